package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// This file keeps what the simulation has found, each as small as it gets.

// found are the seeds that have failed, and what each found, in plans without what amend
// adds. These are made otherwise than when seed 201 failed: what it found has a test of
// its own.
var found = []struct {
	seed uint64
	what string
}{
	{3085, "the embedded broker forgot a member that was cut off while its SyncGroup was in work"},
	{3197, "the same with a session that ended during JoinGroup"},
	{8898, "the judge did not reckon with a connection that an earlier fault had made silent"},
}

// What the seeds found stays found, whichever seeds TestSimulation runs.
func TestSim_FoundSeeds(t *testing.T) {
	for _, f := range found {
		t.Run(fmt.Sprintf("seed_%05d", f.seed), func(t *testing.T) {
			t.Parallel()
			t.Log(f.what)
			simulatePlan(t, makePlan(f.seed), newTally())
		})
	}
}

// A partition is added to the topic of a group, a message published to it, and then
// a member joins, which may be given that partition: the group sees the message.
func TestSim_Seed201_PartitionNewerThanTheGroup(t *testing.T) {
	for _, alive := range []bool{true, false} {
		virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
			first := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
			seen := make(chan gracedb.Message, 10)
			stream := func(c *gracedb.Consumer) {
				for m := range c.Stream(t.Context()) {
					seen <- m
				}
			}
			if alive {
				go stream(first)
			} else if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if err := r.AddPartitions(topic, 3); err != nil {
				t.Fatal(err)
			}
			r.raw(t, topic, 1, "1")
			r.raw(t, topic, 2, "2")
			for range 2 {
				go stream(r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" }))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 2 {
				select {
				case <-seen:
				case <-ctx.Done():
					t.Fatalf("alive %v: a message is not seen", alive)
				}
			}
		})
	}
}
