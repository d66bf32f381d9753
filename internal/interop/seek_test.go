//go:build unix

package interop

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// trim deletes what is before offset in a topic's first partition.
func trim(ctx context.Context, t *testing.T, client *kgo.Client, topic string, offset int64) {
	t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 10_000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Offset = offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, client)
	must(t, err)
	must(t, kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode))
}

// Since and Seek find by time what is there, in a log that is empty, out of order, without its
// beginning, or with transactions. The embedded broker says the same
// (TestConsumerSince and the tests behind it in internal/faults).
func TestSinceOnRealKafka(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "since", nil)
	client, err := s.kafka.Client()
	must(t, err)
	t.Cleanup(client.Close)
	base := time.Now().Add(-30 * time.Minute).Truncate(time.Second)
	at := func(s int) time.Time { return base.Add(time.Duration(s) * time.Second) }
	cfg := gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{topic}}
	since := func(group string, from time.Time, want string) *gracedb.Consumer {
		t.Helper()
		cfg.GroupID, cfg.Since = group, from
		c, err := gracedb.NewConsumer(ctx, cfg)
		must(t, err)
		t.Cleanup(func() { must(t, c.Close()) })
		if got := fmt.Sprint(pollAll(ctx, t, c, 3*time.Second)); got != want {
			t.Errorf("group %q since %v: %s, want %s", group, from.Sub(base), got, want)
		}
		return c
	}
	since("", at(10), "[]") // nothing is there yet
	for _, sec := range []int{10, 30, 20, 40} {
		must(t, client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: fmt.Append(nil, sec), Timestamp: at(sec)}).FirstErr())
	}
	since("", time.Unix(-1, 0), "[10 30 20 40]")
	since("", at(10), "[10 30 20 40]")
	since("", at(10).Add(1), "[30 20 40]")
	since("", at(20), "[30 20 40]")
	since("", at(40), "[40]")
	since("", at(41), "[]")

	c := since("since", at(20), "[30 20 40]")
	for _, tt := range []struct {
		to   time.Time
		want string
	}{{at(40), "[40]"}, {time.Time{}, "[10 30 20 40]"}, {at(41), "[]"}} {
		must(t, c.Seek(ctx, tt.to))
		if got := fmt.Sprint(pollAll(ctx, t, c, 3*time.Second)); got != tt.want {
			t.Errorf("Seek to %v: %s, want %s", tt.to, got, tt.want)
		}
	}
	must(t, c.Seek(ctx, at(35)))
	must(t, c.Close())
	c = since("since", at(0), "[40]") // the group stays where it was put
	must(t, c.Seek(ctx, time.Time{}))
	trim(ctx, t, client, topic, 2)
	since("", at(10), "[20 40]")
	s.transact(ctx, t, topic, "since", nil, "open")
	lagIs(ctx, t, c, 4)
	since("", time.Now().Add(time.Minute), "[]")
	s.transact(ctx, t, topic, "since", new(kgo.TryCommit), "committed")
	since("", at(41), "[committed]")
	pollAll(ctx, t, c, 3*time.Second)
	lagIs(ctx, t, c, 8) // 4 messages, two in transactions and an end of each
	must(t, c.Close())
}

// lagIs checks where a Consumer's one partition ends.
func lagIs(ctx context.Context, t *testing.T, c *gracedb.Consumer, end int64) {
	t.Helper()
	lags, err := c.Lag(ctx)
	must(t, err)
	if len(lags) != 1 || lags[0].End != end {
		t.Errorf("the lag is %v, want the end %d", lags, end)
	}
	if end == 8 && lags[0].Position != end {
		t.Errorf("all is read, and the lag is %v", lags)
	}
}

// Where brokers set the times, Since finds a message by the time that it was received with.
func TestSinceOfAppendTimeOnRealKafka(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "sinceappend", map[string]string{"message.timestamp.type": "LogAppendTime"})
	p := s.producer(ctx, t, topic)
	for i := range 4 {
		_, err := p.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: fmt.Append(nil, i), Time: time.Unix(int64(1_600_000_000-i), 0)})
		must(t, err)
		time.Sleep(10 * time.Millisecond) // the times are to differ
	}
	cfg := gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{topic}, FromBeginning: true}
	c, err := gracedb.NewConsumer(ctx, cfg)
	must(t, err)
	var third gracedb.Message
	for range 3 {
		third, err = c.Poll(ctx)
		must(t, err)
	}
	must(t, c.Seek(ctx, third.Time))
	if got := fmt.Sprint(pollAll(ctx, t, c, 3*time.Second)); got != "[2 3]" {
		t.Error(got)
	}
	must(t, c.Seek(ctx, third.Time.Add(time.Millisecond)))
	if got := fmt.Sprint(pollAll(ctx, t, c, 3*time.Second)); got != "[3]" {
		t.Error(got)
	}
	must(t, c.Close())
}
