package gracedb_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// askedFor counts the topics that Metadata requests name.
func askedFor(c *kafkatest.Cluster) (topics *atomic.Int64) {
	topics = new(atomic.Int64)
	c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(req kmsg.Request, _ kmsg.Response) {
		topics.Add(int64(len(req.(*kmsg.MetadataRequest).Topics)))
	}})
	return topics
}

// Topics that do not exist are forgotten when their messages are settled: nothing asks for
// them any more, and one that is made later is found.
func TestAbsentTopicsAreForgotten(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		const topics, each = 200, 3
		var failed atomic.Int64
		for i := range topics * each {
			m := gracedb.Message{Topic: fmt.Sprintf("none%d", i%topics), Value: []byte("x")}
			if err := p.Produce(t.Context(), m, func(_ gracedb.Message, err error) {
				if err != nil {
					failed.Add(1)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if failed.Load() != topics*each {
			t.Errorf("%d failed", failed.Load())
		}
		// One whose caller gives up before brokers have said that there is no such topic.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := p.ProduceSync(ctx, gracedb.Message{Topic: "given-up", Value: []byte("x")})
		wantErr(t, err, kinds(gracedb.ErrDelivery), nil)

		time.Sleep(time.Minute)
		asked := askedFor(c)
		time.Sleep(10 * time.Minute)
		if n := asked.Load(); n > 20 {
			t.Errorf("asked for %d topics in ten minutes", n)
		}
		if err := c.CreateTopic("gracedb-test.none7", 1, nil); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: "none7", Value: fmt.Append(nil, i)}); err != nil {
				t.Error(err)
			}
		}
		if got := values(t, c, "gracedb-test.none7"); len(got) != 3 {
			t.Errorf("got %q", got)
		}
	})
}

// Messages that are sent to a topic while it is being forgotten have their outcome, and
// their order.
func TestAbsentTopicAppears(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		var acked []string
		time.AfterFunc(10*time.Second, func() { _ = c.CreateTopic("gracedb-test.late", 1, nil) })
		done := make(chan struct{})
		const n = 1000
		var settled atomic.Int64
		for i := range n {
			value := fmt.Sprint(i)
			m := gracedb.Message{Topic: "late", Key: []byte("k"), Value: []byte(value)}
			if err := p.Produce(t.Context(), m, func(_ gracedb.Message, err error) {
				if err == nil {
					acked = append(acked, value)
				}
				if settled.Add(1) == n {
					close(done)
				}
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		<-done
		got := values(t, c, "gracedb-test.late")
		if len(got) < n/4 || fmt.Sprint(got) != fmt.Sprint(acked) {
			t.Errorf("%d in the log, %d acknowledged: %q, %q", len(got), len(acked), got, acked)
		}
	})
}
