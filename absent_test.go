package gracedb_test

import (
	"context"
	"fmt"
	"runtime"
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
		if n := asked.Load(); n > 35 { // three times a minute for the default topic
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

// At rest a Producer does what it did before it was asked for thousands of topics that do not
// exist: as many requests, of as many bytes, and no goroutine more.
func TestAbsentTopicsLeaveNoWork(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		rest := func() (requests int, bytes int64, goroutines int) {
			time.Sleep(time.Minute)
			was, before := requestsOf(c.Requests()), written(c)
			time.Sleep(10 * time.Minute)
			return requestsOf(c.Requests()) - was, written(c) - before, runtime.NumGoroutine()
		}
		requests, bytes, goroutines := rest()
		var unsettled atomic.Int64
		for i := range 3000 {
			unsettled.Add(1)
			m := gracedb.Message{Topic: fmt.Sprintf("pipeline-%d", i), Value: []byte("x")}
			if err := p.Produce(t.Context(), m, func(gracedb.Message, error) { unsettled.Add(-1) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil || unsettled.Load() != 0 {
			t.Fatalf("%d are not settled: %v", unsettled.Load(), err)
		}
		requestsAfter, bytesAfter, goroutinesAfter := rest()
		t.Logf("in 10 minutes %d requests, then %d; %d bytes, then %d; %d goroutines, then %d", requests, requestsAfter, bytes, bytesAfter, goroutines, goroutinesAfter)
		if requestsAfter > requests+5 || bytesAfter > bytes+bytes/10 || goroutinesAfter > goroutines+2 {
			t.Errorf("in 10 minutes %d requests, were %d; %d bytes, were %d; %d goroutines, were %d",
				requestsAfter, requests, bytesAfter, bytes, goroutinesAfter, goroutines)
		}
	})
}

func requestsOf(requests map[kmsg.Key]int) (n int) {
	for _, of := range requests {
		n += of
	}
	return n
}

// written returns how many bytes clients have written.
func written(c *kafkatest.Cluster) int64 {
	in, _ := c.Bytes()
	return in
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
