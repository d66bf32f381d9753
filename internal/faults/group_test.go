package faults

import (
	"context"
	"errors"
	"log/slog"
	"strings"
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

// A blocker keeps who logs a text waiting while it is shut, with what locks it holds.
type blocker struct {
	slog.Handler
	text string
	shut chan struct{} // holds a value while somebody is to wait
	held chan struct{} // gets a value when somebody does
	open chan struct{} // closed to let go
}

func (b *blocker) Enabled(context.Context, slog.Level) bool { return true }

func (b *blocker) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, b.text) {
		select {
		case <-b.shut:
			b.held <- struct{}{}
			<-b.open
		default:
		}
	}
	return b.Handler.Handle(ctx, r)
}

// The engine holds the lock of its group for long: calls of the Consumer return with their
// ctx all the same, messages that have been fetched are handed over, and what is done
// meanwhile is stored when the lock is free.
func TestPollWhileTheGroupIsLocked(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		b := &blocker{
			Handler: slog.DiscardHandler, text: "updated committed",
			shut: make(chan struct{}, 1), held: make(chan struct{}), open: make(chan struct{}),
		}
		group := func(c *gracedb.ConsumerConfig) { c.GroupID, c.Cluster.Logger = "g", slog.New(b) }
		con := r.consumer(t, group)
		r.raw(t, topic, 0, numbers(0, 10)...)
		if _, err := take(t, con, 2); err != nil { // the first is done
			t.Fatal(err)
		}
		b.shut <- struct{}{}
		<-b.held // it has been stored, which the engine notes with its lock held
		letGo := sync.OnceFunc(func() { close(b.open) })
		defer time.AfterFunc(time.Minute, letGo).Stop() // or whoever waits for it would for ever
		timed := func(what string, call func(context.Context) error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := call(ctx)
			within(t, what, time.Since(start), 400*time.Millisecond)
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
		}
		var got []gracedb.Message
		for range 12 {
			timed("Poll", func(ctx context.Context) error {
				m, err := con.Poll(ctx)
				if err == nil {
					got = append(got, m)
				}
				return err
			})
			time.Sleep(200 * time.Millisecond) // what is marked is due
		}
		wantOffsets(t, got, 2, 10)
		timed("Check", con.Check)
		timed("Commit", con.Commit)
		timed("Subscribe", func(ctx context.Context) error { return con.Subscribe(ctx, "test") })
		letGo()
		time.Sleep(2 * time.Second)
		if err := con.Close(); err != nil {
			t.Fatal(err)
		}
		silent(t, r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" }), 3*time.Second) // all is done
	})
}
