package faults_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// While one of three brokers is away, and the others do not know it yet, what a
// constructor or Check needs may be on it. They wait until it has moved.
func TestBrokerAway(t *testing.T) {
	const noticed = 5 * time.Second // when the others know
	for _, tt := range waitingCalls {
		t.Run(tt.name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testrig.Topic: 32}}, func(t *testing.T, c *kafkatest.Cluster) {
				call := tt.prepare(t, testrig.ClusterFor(t, c, "alice"))
				away(c, 1)
				time.AfterFunc(noticed, func() {
					if err := c.Kill(1); err != nil {
						t.Error(err)
					}
				})
				start := time.Now()
				if err := call(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took < noticed || took > noticed+time.Second {
					t.Errorf("took %v, the broker was away for %v", took, noticed)
				}
			})
		})
	}
}

// Nobody waits when no broker is left, and for no longer than ctx in any case; the
// error says who is away.
func TestBrokersAway(t *testing.T) {
	for _, tt := range waitingCalls {
		t.Run(tt.name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testrig.Topic: 32}}, func(t *testing.T, c *kafkatest.Cluster) {
				call := tt.prepare(t, testrig.ClusterFor(t, c, "alice"))
				away(c, 1)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				testrig.WantErr(t, call(ctx), testrig.Kinds(gracedb.ErrConnection, gracedb.ErrKafka, context.DeadlineExceeded), nil, c.Addrs()[1], "refused")
				if took := time.Since(start); took > 3100*time.Millisecond {
					t.Errorf("one away: after %v", took)
				}

				away(c)
				start = time.Now()
				err := call(t.Context())
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConnection, gracedb.ErrKafka), nil, "refused")
				if took := time.Since(start); took > time.Second || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("all away: after %v: %v", took, err)
				}
			})
		})
	}
}

// waitingCalls are those that a broker is waited for in: prepare returns the call.
var waitingCalls = []struct {
	name    string
	prepare func(*testing.T, gracedb.Cluster) func(context.Context) error
}{
	{"NewProducer", func(_ *testing.T, c gracedb.Cluster) func(context.Context) error {
		return func(ctx context.Context) error {
			return closing(gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: c, Topic: "test"}))
		}
	}},
	{"NewProducer without topic", func(_ *testing.T, c gracedb.Cluster) func(context.Context) error {
		return func(ctx context.Context) error {
			return closing(gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: c}))
		}
	}},
	{"NewConsumer", func(_ *testing.T, c gracedb.Cluster) func(context.Context) error {
		return func(ctx context.Context) error {
			return closing(gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: c, Topics: []string{"test"}}))
		}
	}},
	{"NewConsumer in a group", func(_ *testing.T, c gracedb.Cluster) func(context.Context) error {
		return func(ctx context.Context) error {
			return closing(gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: c, Topics: []string{"test"}, GroupID: "g"}))
		}
	}},
	{"Producer.Check", func(t *testing.T, c gracedb.Cluster) func(context.Context) error {
		return testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: c, Topic: "test"}).Check
	}},
}

// closing closes what a constructor has made.
func closing[T interface{ Close() error }](made T, err error) error {
	if err != nil {
		return err
	}
	return made.Close()
}
