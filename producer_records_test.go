package gracedb_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A message that the broker refuses for what it is fails alone, and says why, in the
// broker's words, and what to do; those beside it arrive in their order, whether the broker
// names the one that it means, names none, or names what is not there.
func TestRecordRefused(t *testing.T) {
	const n, bad = 40, 20
	rename := func(to []kmsg.ProduceResponseTopicPartitionErrorRecord) func(*kmsg.ProduceResponseTopicPartition) {
		return func(p *kmsg.ProduceResponseTopicPartition) { p.ErrorRecords, p.ErrorMessage = to, nil }
	}
	keyless := func(m *gracedb.Message) { m.Key = nil }
	compacted := map[string]string{"cleanup.policy": "compact"}
	for _, tt := range []struct {
		name   string
		config map[string]string
		edit   func(*gracedb.Message)
		answer func(*kmsg.ProduceResponseTopicPartition)
		kind   error
		says   []string
	}{
		{"no key", compacted, keyless, nil, kerr.InvalidRecord, []string{
			"INVALID_RECORD: the broker says: Compacted topic cannot accept message without key in topic partition gracedb-test.odd-0;", "set Message.Key",
		}},
		{"none named", compacted, keyless, rename(nil), kerr.InvalidRecord, []string{"INVALID_RECORD: This record has failed the validation", "set Message.Key"}},
		{"others named", compacted, keyless, rename([]kmsg.ProduceResponseTopicPartitionErrorRecord{{RelativeOffset: 1000}, {RelativeOffset: -1}}), kerr.InvalidRecord, nil},
		{"odd words", compacted, keyless, func(p *kmsg.ProduceResponseTopicPartition) {
			for i := range p.ErrorRecords {
				p.ErrorRecords[i].ErrorMessage = new("no\nkey " + strings.Repeat("x", 100_000))
			}
		}, kerr.InvalidRecord, []string{"the broker says: no key xxx"}},
		{"far ahead", nil, func(m *gracedb.Message) { m.Time = time.Now().Add(2 * time.Hour) }, nil, kerr.InvalidTimestamp, []string{
			"INVALID_TIMESTAMP: the broker says: Timestamp 946692000000 of message with offset", "its Message.Time is 2000-01-01T02:00:00.000Z, and this machine's clock says 2000-01-01T00:00:0",
			"message.timestamp.after.max.ms",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				if err := c.CreateTopic("gracedb-test.odd", 1, tt.config); err != nil {
					t.Fatal(err)
				}
				p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "odd"})
				if tt.answer != nil {
					c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Produce}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
						for _, topic := range resp.(*kmsg.ProduceResponse).Topics {
							for i := range topic.Partitions {
								tt.answer(&topic.Partitions[i])
							}
						}
					}})
				}
				produces := c.Requests()[kmsg.Produce]
				outcomes := make([]error, n)
				var want []string
				c.Freeze()
				for i := range n {
					m := gracedb.Message{Key: []byte("key"), Value: fmt.Append(nil, i)}
					if i == bad {
						tt.edit(&m)
					} else {
						want = append(want, fmt.Sprint(i))
					}
					if err := p.Produce(t.Context(), m, func(_ gracedb.Message, err error) { outcomes[i] = err }); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				c.Thaw()
				_ = p.Flush(t.Context())
				for i, err := range outcomes {
					if i == bad {
						wantErr(t, err, kinds(gracedb.ErrDelivery, tt.kind), kinds(gracedb.ErrOutcomeUnknown), append(tt.says, "gracedb-test.odd")...)
						if len(err.Error()) > 2000 {
							t.Errorf("%d bytes of text", len(err.Error()))
						}
					} else if err != nil {
						t.Errorf("%d: %v", i, err)
					}
				}
				if got := values(t, c, "gracedb-test.odd"); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("written: %q", got)
				}
				t.Logf("%d requests; %v", c.Requests()[kmsg.Produce]-produces, outcomes[bad])
			})
		})
	}
}

// What is refused for its size says how large it was in truth, what the limit is if it may
// be read, and what may be meant.
func TestSizeRefused(t *testing.T) {
	const limit = 1_048_588
	words := strings.Repeat("gravitational waves ", 100_000)
	for _, tt := range []struct {
		name   string
		config map[string]string
		hidden bool
		value  []byte
		says   []string
		not    string
	}{
		{"noise", nil, false, history.Noise(2_000_000)[:2_000_000], []string{
			"a message of 2000000 bytes", "as a batch of 2000074 bytes, and compressed it is no smaller", "the topic's max.message.bytes is 1048588",
		}, "uncompressed"},
		{"noise, limit hidden", nil, true, history.Noise(2_000_000)[:2_000_000], []string{"as a batch of 2000074 bytes", "may not read it"}, "1048588"},
		{"kept uncompressed", map[string]string{"compression.type": "uncompressed"}, false, []byte(words), []string{
			"a message of 2000000 bytes", "although it is compressed, to a batch of ", "is 1048588, and counts it uncompressed if the topic has compression.type=uncompressed",
		}, ""},
		{"kept uncompressed, limit hidden", map[string]string{"compression.type": "uncompressed"}, true, []byte(words), []string{
			"although it is compressed", "may not read it, and counts it uncompressed if",
		}, "1048588"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCluster(t, kafkatest.Config{MaxMessageBytes: limit})
			if err := c.CreateTopic("gracedb-test.odd", 1, tt.config); err != nil {
				t.Fatal(err)
			}
			if tt.hidden {
				hideLimits(c)
			}
			p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "odd"})
			_, err := p.ProduceSync(t.Context(), gracedb.Message{Value: tt.value})
			wantErr(t, err, kinds(gracedb.ErrTooLarge, gracedb.ErrDelivery), kinds(gracedb.ErrOutcomeUnknown), tt.says...)
			if tt.not != "" && strings.Contains(err.Error(), tt.not) {
				t.Errorf("%v", err)
			}
			t.Log(err)
			send(t, p, "next")
		})
	}
}

// hideLimits makes brokers refuse to tell topics' configurations, as they do to those who have
// no right to ask.
func hideLimits(c *kafkatest.Cluster) { failLimits(c, kerr.TopicAuthorizationFailed) }

// failLimits makes brokers answer code to who asks for topics' configurations.
func failLimits(c *kafkatest.Cluster, code *kerr.Error) *kafkatest.Injection {
	return c.Inject(kafkatest.Fault{
		Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.DescribeConfigs}, Count: -1,
		Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
			resources := resp.(*kmsg.DescribeConfigsResponse).Resources
			for i := range resources {
				resources[i].ErrorCode, resources[i].Configs = code.Code, nil
			}
		},
	})
}

// A limit that brokers could not tell is asked for again, and one that they refused to tell
// is not. Errors say which it was.
func TestLimitAskedAgain(t *testing.T) {
	for _, tt := range []struct {
		code  *kerr.Error
		again bool
		says  string
	}{
		{kerr.CoordinatorLoadInProgress, true, "is not known, since no broker has told it so far"},
		{kerr.UnknownServerError, true, "is not known, since no broker has told it so far"},
		{kerr.TopicAuthorizationFailed, false, "is not known, since this client may not read it"},
	} {
		t.Run(tt.code.Message, func(t *testing.T) {
			virtually(t, kafkatest.Config{TopicMaxMessageBytes: map[string]int{testTopic: 100_000}}, func(t *testing.T, c *kafkatest.Cluster) {
				failing := failLimits(c, tt.code)
				p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
				refused := func(says string) {
					t.Helper()
					_, err := p.ProduceSync(t.Context(), gracedb.Message{Value: history.Noise(300_000)})
					wantErr(t, err, kinds(gracedb.ErrTooLarge), nil, says)
				}
				time.Sleep(time.Minute) // a Producer asks about all topics of the instance some time after its start
				refused(tt.says)
				failing.Remove()
				time.Sleep(2 * time.Minute)
				asked := c.Requests()[kmsg.DescribeConfigs]
				if tt.again {
					refused("max.message.bytes is 100000")
				} else {
					refused(tt.says)
				}
				time.Sleep(2 * time.Minute)
				if n := c.Requests()[kmsg.DescribeConfigs] - asked; n != 0 {
					t.Errorf("asked %d times for what is answered", n)
				}
			})
		})
	}
}

// A topic that takes large messages takes them from those who may not read what it takes.
func TestLimitHidden(t *testing.T) {
	const limit = 10_485_760
	c := startCluster(t, kafkatest.Config{TopicMaxMessageBytes: map[string]int{testTopic: limit}})
	hideLimits(c)
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", MaxMessageBytes: 2 * limit})
	const overhead = 61 + 13 // what a batch and its one record add
	for _, size := range []int{limit - overhead, limit - overhead + 1} {
		_, err := p.ProduceSync(t.Context(), gracedb.Message{Value: history.Noise(size)[:size]})
		if size+overhead <= limit {
			if err != nil {
				t.Errorf("%d: %v", size, err)
			}
			continue
		}
		wantErr(t, err, kinds(gracedb.ErrTooLarge), nil, fmt.Sprintf("a batch of %d bytes", limit+1))
	}
}

const mostHeaders = 1000

// Headers that hold nothing count, too, and there may be no more than 1,000 of them.
func TestProduceHeaders(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		cluster := clusterFor(t, c, "me")
		p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		small := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test", MaxMessageBytes: 1000})
		for _, tt := range []struct {
			p       *gracedb.Producer
			headers int
			want    string // what the error names; empty if there is none
		}{
			{p, mostHeaders, ""},
			{p, mostHeaders + 1, "1001 headers"},
			{p, 1_000_000, "1000000 headers"},
			{small, 100, ""},
			{small, 101, "1010 bytes"},
		} {
			_, err := tt.p.ProduceSync(t.Context(), gracedb.Message{Headers: make([]gracedb.Header, tt.headers)})
			if tt.want != "" {
				wantErr(t, err, kinds(gracedb.ErrTooLarge), nil, tt.want, testTopic)
			} else if err != nil {
				t.Errorf("%d headers: %v", tt.headers, err)
			}
		}
	})
}

// A message that is all headers takes its room in the buffer.
func TestHeadersAreBuffered(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "me"), Topic: "test", MaxBufferedBytes: 15_000})
		c.Freeze()
		m := gracedb.Message{Headers: make([]gracedb.Header, mostHeaders)}
		if err := p.Produce(t.Context(), m, func(gracedb.Message, error) {}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := p.Produce(ctx, m, nil)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, gracedb.ErrDelivery) {
			t.Errorf("there is room for one more: %v", err)
		}
		c.Thaw()
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A message with more headers than one may have is told, and costs no other.
func TestConsumerPassesOverHeaders(t *testing.T) {
	for _, group := range []string{"", "group"} {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				for i, headers := range []int{0, mostHeaders + 1, mostHeaders, mostHeaders + 2, 0} {
					produceRaw(t, c, &kgo.Record{Topic: testTopic, Value: fmt.Append(nil, i), Headers: make([]kgo.RecordHeader, headers)})
				}
				cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "me"), Topics: []string{"test"}, GroupID: group, FromBeginning: true}
				first := newConsumer(t, cfg)
				wantPolls(t, first, "0", "offset 1: a message has 1001 headers", "2", "offset 3: a message has 1002 headers")
				if group == "" {
					wantPolls(t, first, "4")
					return
				}
				// Who ends with the error has told nobody: the next member tells it again.
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				second := newConsumer(t, cfg)
				wantPolls(t, second, "offset 3: a message has 1002 headers", "4")
				if err := second.Close(); err != nil {
					t.Fatal(err)
				}
				wantPolls(t, newConsumer(t, cfg), "4")
			})
		})
	}
}

// wantPolls checks the values of messages, or what errors name, in their order.
func wantPolls(t *testing.T, c *gracedb.Consumer, want ...string) {
	t.Helper()
	for _, w := range want {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m, err := c.Poll(ctx)
		cancel()
		switch {
		case err == nil && string(m.Value) != w:
			t.Errorf("message %s, want %s", m.Value, w)
		case err != nil && !strings.Contains(w, "offset"):
			t.Errorf("%v, want message %s", err, w)
		case err != nil:
			wantErr(t, err, kinds(gracedb.ErrConsumer), nil, testTopic, "partition 0", w)
		}
	}
}

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

// A time before 1970 is refused, and takes no other message along. The zero time is now.
func TestTimeBefore1970(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	_, err := p.ProduceSync(t.Context(), gracedb.Message{Time: time.Unix(-1, 0)})
	wantErr(t, err, kinds(gracedb.ErrDelivery), kinds(gracedb.ErrOutcomeUnknown), "has the time 1969-12-31T23:59:59Z")
	for _, at := range []time.Time{{}, time.Unix(0, 0)} {
		if _, err := p.ProduceSync(t.Context(), gracedb.Message{Time: at}); err != nil {
			t.Errorf("%v: %v", at, err)
		}
	}
}
