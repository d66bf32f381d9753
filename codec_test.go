package gracedb_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A slowConn answers late, and counts what it is given.
type slowConn struct {
	net.Conn
	delay   time.Duration
	written *atomic.Int64
}

func (c slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	time.Sleep(c.delay)
	return n, err
}

func (c slowConn) Write(b []byte) (int, error) {
	c.written.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// The first message on a connection is compressed if the broker is far, whether or
// not the Producer had a topic to get ready for. (Nothing here reads it back: a zstd
// decoder must not outlive a bubble of virtual time, and the engine's do.)
func TestCodecFarAndNear(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond} {
		for _, cfg := range []gracedb.ProducerConfig{{Topic: "test"}, {}, {Lazy: true}} {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				var written atomic.Int64
				cfg.Cluster = clusterFor(t, c, "alice")
				cfg.Cluster.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := c.Dial(ctx, network, addr)
					return slowConn{conn, delay, &written}, err
				}
				p, err := gracedb.NewProducer(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				before := written.Load()
				value := []byte(strings.Repeat("0.25 1.5e-23 ", 10_000))
				if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: "test", Value: value}); err != nil {
					t.Error(err)
				}
				if sent, far := written.Load()-before, delay > 0; far != (sent < 20_000) {
					t.Errorf("topic %q, lazy %v, %v away: %d bytes sent", cfg.Topic, cfg.Lazy, delay, sent)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The topic's limit is for the compressed batch: of three events of 1.2 MB one
// shrinks much and one, in base64, by a quarter, and both get through at the first
// try. The third is refused, with its size and the limit, and hurts nobody.
func TestCodecFits(t *testing.T) {
	const limit = 1 << 20
	c := startCluster(t, kafkatest.Config{TopicMaxMessageBytes: map[string]int{testTopic: limit}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	random := make([]byte, 1_200_000)
	rand.NewChaCha8([32]byte{}).Read(random)
	text := base64.StdEncoding.AppendEncode(nil, random)[:len(random)]
	produces := c.Requests()
	for _, value := range [][]byte{bytes.Repeat([]byte("0.25 1.5e-23"), 100_000), text} {
		if _, err := p.ProduceSync(t.Context(), gracedb.Message{Value: value}); err != nil {
			t.Error(err)
		}
	}
	if got := c.Requests()[0] - produces[0]; got != 2 {
		t.Errorf("%d Produce requests for 2 messages", got)
	}
	if err := p.Produce(t.Context(), gracedb.Message{Value: []byte("before")}, nil); err != nil {
		t.Error(err)
	}
	_, err := p.ProduceSync(t.Context(), gracedb.Message{Value: random})
	wantErr(t, err, kinds(gracedb.ErrTooLarge, gracedb.ErrDelivery, kerr.MessageTooLarge), kinds(gracedb.ErrOutcomeUnknown), "1200000", "1048576", testTopic)
	send(t, p, "after")
	if err := p.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if got := values(t, c, testTopic); len(got) != 4 || got[2] != "before" || got[3] != "after" {
		t.Errorf("%d messages in the log", len(got))
	}
}
