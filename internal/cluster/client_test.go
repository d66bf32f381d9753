package cluster

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

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// A lateContext has reached its deadline, and does not know it yet.
type lateContext struct{ context.Context }

func (lateContext) Deadline() (time.Time, bool) { return time.Now(), true }

// A connection has its deadline from the context, and may notice it first: the
// call has ended because of its context all the same.
func TestAwaitConnectionDeadline(t *testing.T) {
	auth := sasl.NewState(slog.New(slog.DiscardHandler), 0)
	l := &Client{
		Auth: auth, Health: NewHealth(auth.Log, auth), kind: errs.Consumer,
		Brokers: []string{"localhost:9092"}, Life: NewLifecycle(),
	}
	err := l.Await(lateContext{t.Context()}, Starting, "connecting", func(context.Context) error {
		return connError{os.ErrDeadlineExceeded}
	})
	for _, kind := range []error{context.DeadlineExceeded, errs.Connection, errs.Consumer} {
		if !errors.Is(err, kind) {
			t.Errorf("not %q: %v", kind, err)
		}
	}
}

// Connecting that fails at once is not tried again at once, or the engine would spin.
func TestRedials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails bool
		dial, err := Config{Plaintext: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			if fails {
				return nil, errors.New("refused")
			}
			conn, far := net.Pipe()
			_ = far.Close()
			return conn, nil
		}}.dialer(t.Context())
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

func TestCheckPartitions(t *testing.T) {
	numbered := func(ids ...int32) (parts []Partition) {
		for _, id := range ids {
			parts = append(parts, Partition{ID: id})
		}
		return parts
	}
	for _, good := range [][]Partition{nil, numbered(0), numbered(0, 1, 2)} {
		if err := checkPartitions(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range [][]Partition{numbered(1), numbered(-1, 0), numbered(0, 0), numbered(0, 2), make([]Partition, maxPartitions+1)} {
		if checkPartitions(bad) == nil {
			t.Errorf("%d partitions are fetched", len(bad))
		}
	}
}

// Brokers say themselves what their addresses are: not all are remembered for ever.
func TestAddressesAreForgotten(t *testing.T) {
	auth := sasl.NewState(slog.New(slog.DiscardHandler), 0)
	w := NewHealth(auth.Log, auth)
	for i := range 10 * maxAddresses {
		w.OnBrokerConnect(kgo.BrokerMetadata{Host: "kafka.test", Port: int32(i)}, 0, nil, errors.New("refused"))
	}
	if len(w.last) > maxAddresses {
		t.Errorf("%d addresses", len(w.last))
	}
	if is, _ := w.Trouble(); len(is) == 0 {
		t.Error("no trouble is known")
	}
}

// When an outage has cut the connections to three brokers, and some to the addresses as they were
// configured, five tries fail before the next is answered. That takes less than the second within
// which the first message behind an outage is on its way.
func TestRetryBackoff(t *testing.T) {
	total := time.Duration(0)
	for tries := 1; tries <= 5; tries++ {
		total += retryBackoff(tries)
	}
	if total > 700*time.Millisecond {
		t.Errorf("five tries that fail cost %v", total)
	}
	if last := retryBackoff(1 << 30); last < 400*time.Millisecond || last > 500*time.Millisecond {
		t.Errorf("brokers that are away are tried every %v", last)
	}
}
