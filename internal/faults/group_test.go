package faults

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// What goes to the partitions of a member that leaves is with the others within 2 seconds,
// although each broker has other partitions of theirs, on which there is nothing to read.
func TestMemberLeaves(t *testing.T) {
	const partitions = 6
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: partitions}}, func(t *testing.T, r *rig) {
		got := make(chan gracedb.Message, 100)
		member := func() (leave func()) {
			con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
			ctx, cancel := context.WithCancel(t.Context())
			var polling sync.WaitGroup
			polling.Go(func() {
				for ctx.Err() == nil {
					if m, err := con.Poll(ctx); err == nil {
						got <- m
					}
				}
			})
			return func() {
				cancel()
				polling.Wait()
				if err := con.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		defer member()()
		worst := time.Duration(0)
		for i := range 12 {
			leave := member()
			time.Sleep(10*time.Second + time.Duration(i)*237*time.Millisecond) // at any time between two heartbeats
			start := time.Now()
			leave()
			for part := range int32(partitions) {
				r.raw(t, topic, part, "x")
			}
			for range partitions {
				select {
				case m := <-got:
					took := time.Since(start)
					worst = max(worst, took)
					if took > 2*time.Second {
						t.Errorf("what is on partition %d came after %v", m.Partition, took)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("a message is missing")
				}
			}
		}
		t.Logf("at most %v", worst)
	})
}
