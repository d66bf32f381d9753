package faults

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A busyEngine does not return from a poll before it is free, whatever becomes of the
// poll's ctx. The engine is so while it moves a partition from one broker to another.
type busyEngine chan struct{}

// OnPollStart is kgo's hook.
func (b busyEngine) OnPollStart(context.Context) { <-b }

// Poll returns with its ctx though the engine does not, and loses nothing by it.
func TestPollOfABusyEngine(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		free := make(busyEngine)
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.Cluster.Opts = append(c.Cluster.Opts, kgo.WithHooks(free)) })
		r.raw(t, topic, 0, "a message")
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			start := time.Now()
			if m, err := con.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%q, %v", m.Value, err)
			}
			within(t, "Poll", time.Since(start), 400*time.Millisecond)
			cancel()
		}
		close(free)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m, err := con.Poll(ctx); err != nil || string(m.Value) != "a message" {
			t.Errorf("%q, %v", m.Value, err)
		}
	})
}
