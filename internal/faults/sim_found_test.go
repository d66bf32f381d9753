package faults

import (
	"context"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// This file keeps what the simulation has found, each as small as it gets.

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
