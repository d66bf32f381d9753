package gracedb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"testing/synctest"
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

// Connecting that fails at once is not tried again at once, or the engine would spin.
func TestRedials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails bool
		dial, err := Cluster{Plaintext: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			if fails {
				return nil, errors.New("refused")
			}
			conn, far := net.Pipe()
			_ = far.Close()
			return conn, nil
		}}.dialer()
		if err != nil {
			t.Fatal(err)
		}
		try := func(address string, works bool, want time.Duration) {
			t.Helper()
			start := time.Now()
			conn, err := dial(t.Context(), "tcp", address)
			if took := time.Since(start); (err == nil) != works || took != want {
				t.Errorf("%s: %v after %v; want it after %v", address, err, took, want)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
		try("kafka.ligo.org:9092", false, 0) // plaintext is not for there
		for range 3 {
			try("kafka.ligo.org:9092", false, redialPause)
		}
		fails = true
		try("localhost:9092", false, 0)
		try("localhost:9092", false, redialPause)
		time.Sleep(redialPause / 2)
		try("localhost:9093", false, 0)
		fails = false
		try("localhost:9092", true, redialPause/2)
		try("localhost:9092", true, 0)

		for port := range 3000 { // a broker may say that it has any address
			try(fmt.Sprint("kafka.ligo.org:", port), false, 0)
		}
		ctx, cancel := context.WithTimeout(t.Context(), redialPause/2)
		defer cancel()
		if _, err := dial(ctx, "tcp", "kafka.ligo.org:2999"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v; want it to end with its context", err)
		}
	})
}
