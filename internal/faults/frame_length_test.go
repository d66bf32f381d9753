package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testlog"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// An answer to a constructor whose length is impossible is told at once, with whose
// it is.
func TestConstructorFrameLength(t *testing.T) {
	for _, length := range []int32{90 << 20, 3 << 20, -1} {
		for _, make := range testrig.Constructors {
			t.Run(fmt.Sprint(length, "/", make.Name), func(t *testing.T) {
				testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
					c.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1})
					start := time.Now()
					_, err := make.Make(t.Context(), testrig.ClusterFor(t, c, "alice"), "test")
					testrig.WantErr(t, err, testrig.Kinds(make.Kind), nil, c.Addrs()[0], fmt.Sprint(length))
					if took := time.Since(start); took > time.Second {
						t.Errorf("after %v", took)
					}
				})
			})
		}
	}
}

// The engine takes a length that no frame has for a broken connection, which it makes
// anew without a word: the log says so, once a minute, and the Consumer heals.
func TestFetchFrameLength(t *testing.T) {
	for _, length := range []int32{-1, 0, 3} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				var log testlog.Log
				cluster := testrig.ClusterFor(t, c, "bob")
				cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
				i := c.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1})
				con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "x"))
				time.Sleep(50 * time.Second)
				if n := i.Hits(); n < 10 {
					t.Errorf("%d fetches", n)
				}
				said := 0
				for line := range strings.Lines(log.String()) {
					if strings.Contains(line, "level=WARN") && strings.Contains(line, "broker="+c.Addrs()[0]) && strings.Contains(line, "request=Fetch") && strings.Contains(line, "size") {
						said++
					}
				}
				if said != 1 {
					t.Errorf("said %d times: %s", said, log.String())
				}
				i.Remove()
				if got := testrig.Poll(t, con); string(got.Value) != "x" {
					t.Errorf("got %s", got.Value)
				}
			})
		})
	}
}

// More brokers than are believed are told at once, by whoever asked.
func TestConstructorTooManyBrokers(t *testing.T) {
	for _, make := range testrig.Constructors {
		t.Run(make.Name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
					m := resp.(*kmsg.MetadataResponse)
					for i := range int32(2000) {
						b := kmsg.NewMetadataResponseBroker()
						b.NodeID, b.Host, b.Port = 1000+i, "broker.invalid", 9092
						m.Brokers = append(m.Brokers, b)
					}
				}})
				start := time.Now()
				_, err := make.Make(t.Context(), testrig.ClusterFor(t, c, "alice"), "test")
				testrig.WantErr(t, err, testrig.Kinds(make.Kind), nil, "2001 brokers; at most 1000")
				if took := time.Since(start); took > time.Second {
					t.Errorf("after %v", took)
				}
			})
		})
	}
}

// An answer to Produce that is larger than such answers are keeps no call past its ctx, and
// the Producer works when it is over.
func TestProduceFrameLength(t *testing.T) {
	for _, length := range []int32{3 << 20, 5} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
				i := c.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Produce}, Count: -1})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("x")})
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrOutcomeUnknown), testrig.Kinds(gracedb.ErrDelivery))
				if took := time.Since(start); took > 3100*time.Millisecond {
					t.Errorf("after %v", took)
				}
				if i.Hits() < 2 {
					t.Error("the rest of the answer was waited for")
				}
				i.Remove()
				testrig.Send(t, p, "y")
			})
		})
	}
}

// An answer to Produce that ends early leaves each message once in the log, and acknowledged
// or unknown; what waits behind it for longer than its caller does is not written.
func TestProduceAnswerEndsEarly(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
		var sent []string
		for length := int32(4); length < 70; length += 3 {
			i := c.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Produce}})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			value := fmt.Sprint(length)
			_, err := p.ProduceSync(ctx, gracedb.Message{Key: []byte("k"), Value: []byte(value)})
			cancel()
			if i.Hits() != 1 {
				t.Errorf("%d: %d hits", length, i.Hits())
			}
			if errors.Is(err, gracedb.ErrDelivery) && len(sent) > 0 {
				testrig.WantErr(t, err, testrig.Kinds(context.DeadlineExceeded), testrig.Kinds(gracedb.ErrOutcomeUnknown), "was not written")
				continue
			}
			if err != nil {
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrOutcomeUnknown), nil)
			}
			sent = append(sent, value)
		}
		if got := testrig.Values(t, c, testrig.Topic); !slices.Equal(got, sent) {
			t.Errorf("in the log are %q, want %q", got, sent)
		}
	})
}
