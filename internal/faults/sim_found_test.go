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

// A member is cut off while it joins, for good: the others have its partitions when
// its session would have ended.
func TestSim_Seed924_CutOffWhileJoining(t *testing.T) {
	virtually(t, kafkatest.Config{Topics: map[string]int{topic: 2}}, func(t *testing.T, r *rig) {
		first := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
		time.Sleep(time.Second)
		r.consumer(t, func(c *gracedb.ConsumerConfig) {
			c.GroupID = "g"
			c.Cluster.Dial = untilDone(t, r, 200*time.Millisecond)
		})
		start := time.Now()
		time.Sleep(3 * time.Second) // it has been given a partition
		for part := range int32(2) {
			r.raw(t, topic, part, "x")
		}
		if _, err := take(t, first, 2); err != nil {
			t.Fatal(err)
		}
		within(t, "taking over", time.Since(start), 15*time.Second)
	})
}

// untilDone dials connections that all end after a while, and none later.
func untilDone(t *testing.T, r *rig, lasting time.Duration) dialFunc {
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	t.Cleanup(cancel)
	return (&simulation{}).dialOf(ctx)(r.Dial)
}
