//go:build unix

package interop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// Of forty messages in one go the one that the topic does not take for what it is fails, in
// the broker's words, and the others are in the log, in their order.
func TestVersionRecordRefused(t *testing.T) {
	ctx, s := need(t)
	const n, bad = 40, 20
	for _, tt := range []struct {
		name, pipeline string
		config         map[string]string
		edit           func(*gracedb.Message)
		kind           error
		says           []string
	}{
		{"no key", "recordkey", map[string]string{"cleanup.policy": "compact"}, func(m *gracedb.Message) { m.Key = nil }, kerr.InvalidRecord, []string{
			"INVALID_RECORD: the broker says: ", "without key", "set Message.Key",
		}},
		{"far ahead", "recordtime", map[string]string{"message.timestamp.after.max.ms": "3600000"}, func(m *gracedb.Message) { m.Time = time.Now().Add(2 * time.Hour) }, kerr.InvalidTimestamp, []string{
			"INVALID_TIMESTAMP: the broker says: ", "its Message.Time is ", "message.timestamp.after.max.ms",
		}},
		{"inflates", "recordinflates", map[string]string{"max.decompressed.message.bytes": "1048576"}, func(m *gracedb.Message) { m.Value = bytes.Repeat([]byte("gravitational waves "), 70_000) }, kerr.InvalidRecord, []string{
			"INVALID_RECORD", "max.decompressed.message.bytes",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, since44 := tt.config["max.decompressed.message.bytes"]; since44 && strings.Compare(realkafka.Version(), "4.4") < 0 {
				t.Skip("Kafka has this limit since 4.4")
			}
			topic := s.made(ctx, t, tt.pipeline, tt.config)
			p := s.producer(ctx, t, topic)
			outcomes := make([]error, n)
			var want []string
			for i := range n {
				m := gracedb.Message{Key: fmt.Append(nil, "k", i), Value: fmt.Append(nil, i)}
				if i == bad {
					tt.edit(&m)
				} else {
					want = append(want, string(m.Value))
				}
				must(t, p.Produce(ctx, m, func(_ gracedb.Message, err error) { outcomes[i] = err }))
			}
			must(t, p.Flush(ctx))
			for i, err := range outcomes {
				if i != bad {
					must(t, err)
				}
			}
			checkKinds(t, "the message", outcomes[bad], "ErrKafka ErrProducer ErrDelivery", tt.says...)
			if !errors.Is(outcomes[bad], tt.kind) {
				t.Errorf("not %v", tt.kind)
			}
			t.Log(outcomes[bad])
			if got := s.values(ctx, t, topic); !slices.Equal(got, want) {
				t.Errorf("the log holds %d: %q", len(got), got)
			}
			_, err := p.Ping(ctx, "")
			must(t, err)
		})
	}
}

// A topic that keeps messages uncompressed refuses a large one that fits compressed, and
// the error says so, with the size that it had.
func TestVersionKeptUncompressed(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "recorduncompressed", map[string]string{"compression.type": "uncompressed", "max.message.bytes": "1048588"})
	must(t, s.kafka.Allow(ctx, "alice", topic, kadm.OpDescribeConfigs))
	p := s.producer(ctx, t, topic)
	_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte(strings.Repeat("gravitational waves ", 70_000))})
	checkKinds(t, "1.4 MB", err, "ErrKafka ErrProducer ErrDelivery ErrTooLarge",
		"a message of 1400000 bytes", "although it is compressed, to a batch of ", "max.message.bytes is 1048588, and counts it uncompressed if the topic has compression.type=uncompressed")
	t.Log(err)
	_, err = p.ProduceSync(ctx, gracedb.Message{Value: []byte(strings.Repeat("gravitational waves ", 50_000))})
	must(t, err)
}

// A topic takes what it takes, also from those who may not read how much that is.
func TestVersionLimitHidden(t *testing.T) {
	ctx, s := need(t)
	const limit, overhead = 10_485_760, 61 + 13 // what a batch and its one record add
	topic := s.made(ctx, t, "recordlimit", map[string]string{"max.message.bytes": fmt.Sprint(limit)})
	must(t, s.kafka.Allow(ctx, "erin", topic, kadm.OpWrite))
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: s.cluster(t, testauth.Claims{Subject: "erin"}), Topic: topic, MaxMessageBytes: 2 * limit})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	value := make([]byte, limit-overhead+1)
	_, _ = rand.Read(value)
	_, err = p.ProduceSync(ctx, gracedb.Message{Value: value[1:]})
	must(t, err)
	_, err = p.ProduceSync(ctx, gracedb.Message{Value: value})
	checkKinds(t, "a byte more", err, "ErrKafka ErrProducer ErrDelivery ErrTooLarge", fmt.Sprintf("a batch of %d bytes", limit+1), "may not read it")
	t.Log(err)
	_, err = p.ProduceSync(ctx, gracedb.Message{Value: []byte("next")})
	must(t, err)
}

// Where the broker's clock counts, an acknowledged message has its time.
func TestVersionLogAppendTime(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "recordappend", map[string]string{"message.timestamp.type": "LogAppendTime"})
	p := s.producer(ctx, t, topic)
	m, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("x"), Time: time.Now().Add(2 * time.Hour)})
	must(t, err)
	records, err := s.kafka.Records(ctx, topic)
	must(t, err)
	if len(records) != 1 || !m.Time.Equal(records[0].Timestamp) || time.Since(m.Time).Abs() > time.Minute {
		t.Errorf("%v; in the log %v", m.Time, records)
	}
}
