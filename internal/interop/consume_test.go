//go:build unix

package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// transact publishes values to a topic in one transaction, and ends it if end says how.
func (s *setting) transact(ctx context.Context, t *testing.T, topic, id string, end *kgo.TransactionEndTry, values ...string) {
	t.Helper()
	client, err := s.kafka.Client(kgo.TransactionalID(id))
	must(t, err)
	t.Cleanup(client.Close)
	must(t, client.BeginTransaction())
	for _, value := range values {
		must(t, client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr())
	}
	if end != nil {
		must(t, client.EndTransaction(ctx, *end))
	}
}

// pollAll polls for a time, and returns what came.
func pollAll(ctx context.Context, t *testing.T, c *gracedb.Consumer, lasting time.Duration) (got []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, lasting)
	defer cancel()
	for {
		m, err := c.Poll(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return got
		}
		must(t, err)
		got = append(got, string(m.Value))
	}
}

// What a transaction has taken back is not handed over, nor what is behind one that is
// open. An option reads all the same. The embedded broker says the same
// (TestConsumerReadsCommitted, TestConsumerOpenTransaction in the root package).
func TestTransactionsOnRealKafka(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "transactions", nil)
	for _, group := range []string{"", "transactions"} {
		cfg := gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{topic}, GroupID: group}
		c, err := gracedb.NewConsumer(ctx, cfg)
		must(t, err)
		cfg.GroupID, cfg.Cluster.Opts = "", append(cfg.Cluster.Opts, kgo.FetchIsolationLevel(kgo.ReadUncommitted()))
		all, err := gracedb.NewConsumer(ctx, cfg)
		must(t, err)
		s.transact(ctx, t, topic, "a"+group, new(kgo.TryAbort), "aborted 1", "aborted 2")
		s.transact(ctx, t, topic, "b"+group, new(kgo.TryCommit), "committed")
		s.transact(ctx, t, topic, "c"+group, nil, "open")
		_, err = s.producer(ctx, t, topic).ProduceSync(ctx, gracedb.Message{Topic: topic, Value: []byte("behind")})
		must(t, err)
		if got := fmt.Sprint(pollAll(ctx, t, c, 3*time.Second)); got != "[committed]" {
			t.Errorf("group %q: %s", group, got)
		}
		if got := fmt.Sprint(pollAll(ctx, t, all, 3*time.Second)); got != "[aborted 1 aborted 2 committed open behind]" {
			t.Errorf("all: %s", got)
		}
		s.transact(ctx, t, topic, "c"+group, new(kgo.TryAbort)) // which ends the open one, too
		if got := fmt.Sprint(pollAll(ctx, t, c, 3*time.Second)); got != "[behind]" {
			t.Errorf("group %q: %s", group, got)
		}
		must(t, c.Close())
		must(t, all.Close())
	}
}

// A topic whose broker compresses with a large window is read.
func TestZstdLevelOnRealKafka(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "zstdlevel", map[string]string{"compression.type": "zstd", "compression.zstd.level": "22"})
	c := s.consumer(ctx, t, topic)
	p := s.producer(ctx, t, topic)
	for _, value := range []string{"small", strings.Repeat("an event file ", 50_000), "after"} {
		_, err := p.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: []byte(value)})
		must(t, err)
		m, err := c.Poll(ctx)
		must(t, err)
		if string(m.Value) != value {
			t.Fatalf("%d bytes, want %d", len(m.Value), len(value))
		}
	}
}
