package gracedb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

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
