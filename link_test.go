package gracedb

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"
)

// A lateContext has reached its deadline, and does not know it yet.
type lateContext struct{ context.Context }

func (lateContext) Deadline() (time.Time, bool) { return time.Now(), true }

// A connection has its deadline from the context, and may notice it first: the
// call has ended because of its context all the same.
func TestAwaitConnectionDeadline(t *testing.T) {
	l := &link{
		watch: newAuthWatch(slog.New(slog.DiscardHandler), 0), kind: ErrConsumer,
		brokers: []string{"localhost:9092"}, closed: make(chan struct{}),
	}
	err := l.await(lateContext{t.Context()}, starting, "connecting", func(context.Context) error {
		return connError{os.ErrDeadlineExceeded}
	})
	for _, kind := range []error{context.DeadlineExceeded, ErrConnection, ErrConsumer} {
		if !errors.Is(err, kind) {
			t.Errorf("not %q: %v", kind, err)
		}
	}
}
