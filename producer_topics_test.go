package gracedb_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// The limit of a topic is learnt at its first use, whether or not it is the default:
// near the broker what fits is not compressed from then on, and what does not fit the
// smallest limit of the topics in use is compressed before it is refused.
func TestProduceLearnsTopic(t *testing.T) {
	const small = "gracedb-test.small"
	for name, cfg := range map[string]gracedb.ProducerConfig{"no default": {}, "lazy": {Topic: "test", Lazy: true}, "default": {Topic: "test"}} {
		t.Run(name, func(t *testing.T) {
			virtually(t, kafkatest.Config{
				Topics: map[string]int{testTopic: 1, small: 1}, TopicMaxMessageBytes: map[string]int{testTopic: 10 << 20, small: 100_000},
			}, func(t *testing.T, c *kafkatest.Cluster) {
				cfg.Cluster = clusterFor(t, c, "alice")
				p, err := gracedb.NewProducer(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				use := func(topic string, size int) (sent int64, requests int) {
					in, _ := c.Bytes()
					before := c.Requests()[kmsg.Produce]
					if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: topic, Value: make([]byte, size)}); err != nil {
						t.Error(err)
					}
					now, _ := c.Bytes()
					return now - in, c.Requests()[kmsg.Produce] - before
				}
				use("test", 10)
				time.Sleep(time.Second)
				if sent, _ := use("test", 3_000_000); sent < 3_000_000 {
					t.Errorf("%d bytes sent: compressed although the topic's limit allows it", sent)
				}
				use("small", 10)
				time.Sleep(time.Second)
				if _, n := use("small", 200_000); n != 1 {
					t.Errorf("%d requests for what fits only compressed", n)
				}
				asked := c.Requests()[kmsg.DescribeConfigs]
				for range 10 {
					use("small", 10)
					time.Sleep(time.Second)
				}
				if n := c.Requests()[kmsg.DescribeConfigs] - asked; n != 0 {
					t.Errorf("asked for limits that are known %d times", n)
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Where limits may not be read, what a refusal has told is not forgotten when another
// topic comes into use.
func TestProduceRefusedLimitStays(t *testing.T) {
	const other = "gracedb-test.other"
	virtually(t, kafkatest.Config{
		Topics: map[string]int{testTopic: 1, other: 1}, TopicMaxMessageBytes: map[string]int{testTopic: 100_000},
	}, func(t *testing.T, c *kafkatest.Cluster) {
		c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.DescribeConfigs}, Count: -1, Rewrite: func(_ kmsg.Request, r kmsg.Response) {
			r.(*kmsg.DescribeConfigsResponse).Resources = nil
		}})
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice")})
		for i, m := range []gracedb.Message{
			{Topic: "test", Value: make([]byte, 500_000)}, {Topic: "other"}, {Topic: "test", Value: make([]byte, 500_000)},
		} {
			before := c.Requests()[kmsg.Produce]
			if _, err := p.ProduceSync(t.Context(), m); err != nil {
				t.Error(err)
			}
			if n := c.Requests()[kmsg.Produce] - before; i > 0 && n != 1 {
				t.Errorf("message %d took %d requests", i, n)
			}
			time.Sleep(time.Second)
		}
	})
}

// The leaders of all topics in use are kept warm, of those too that are not the
// default.
func TestKeepWarmTopicsInUse(t *testing.T) {
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testTopic: 32}}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Lazy: true})
		if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: "test", Key: []byte("k")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + 7*time.Second)
		opened := c.ConnectionCount()
		for i := range byte(30) {
			if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: "test", Key: []byte{i}}); err != nil {
				t.Fatal(err)
			}
		}
		if n := c.ConnectionCount() - opened; n != 0 {
			t.Errorf("%d new connections", n)
		}
	})
}

// A topic that does not exist is asked for no more often than once a second, however
// many messages name it.
func TestProduceMissingTopic(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		asked := c.Requests()[kmsg.DescribeConfigs]
		for range 1000 {
			if err := p.Produce(t.Context(), gracedb.Message{Topic: "missing"}, func(gracedb.Message, error) {}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := c.Requests()[kmsg.DescribeConfigs] - asked; n > 11 {
			t.Errorf("asked for its limit %d times in 10 s", n)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

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

// Names of topics that no topic can have are not repeated to whoever asks for one that is
// missing.
func TestHostileTopicNames(t *testing.T) {
	virtually(t, kafkatest.Config{Topics: map[string]int{"gracedb-test.other": 1}}, func(t *testing.T, c *kafkatest.Cluster) {
		bad := []string{"gracedb-test.a\nb", "gracedb-test.\x1b[31mred", "gracedb-test.\u202etxt", "gracedb-test." + strings.Repeat("x", 5000), "other\r\n.name"}
		c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(req kmsg.Request, resp kmsg.Response) {
			if len(req.(*kmsg.MetadataRequest).Topics) > 0 {
				return
			}
			r := resp.(*kmsg.MetadataResponse)
			for _, name := range bad {
				topic := kmsg.NewMetadataResponseTopic()
				topic.Topic = &name
				r.Topics = append(r.Topics, topic)
			}
		}})
		for _, make := range constructors {
			for _, instance := range []string{"gracedb-test", "elsewhere"} {
				cluster := clusterFor(t, c, "alice")
				cluster.Instance = instance
				_, err := make.Make(t.Context(), cluster, "missing")
				wantErr(t, err, kinds(make.Kind, gracedb.ErrTopic), nil)
				checkClean(t, err)
			}
		}
		cluster := clusterFor(t, c, "alice")
		cluster.Instance = "elsewhere"
		_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster})
		wantErr(t, err, kinds(gracedb.ErrTopic), nil, "instances that have: gracedb-test")
		checkClean(t, err)
	})
}

func checkClean(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	text := err.Error()
	t.Log(text)
	if strings.ContainsAny(text, "\x1b\u202e\r") || strings.Contains(text, "red") || strings.Contains(text, "xxxx") || !strings.Contains(text, "gracedb-test") {
		t.Errorf("%q", text)
	}
}

// Without a default topic, all of the instance are known when NewProducer has returned, and how
// large their batches may be: the first message to any takes one request.
func TestProducerKnowsTheInstance(t *testing.T) {
	c := startCluster(t, kafkatest.Config{
		Brokers: 3, Topics: map[string]int{testTopic: 6, "gracedb-test.gstlal": 1, "gracedb-test.large": 1, "another.test": 1},
		TopicMaxMessageBytes: map[string]int{"gracedb-test.large": 3 << 20},
	})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice")})
	opened, before := c.ConnectionCount(), c.Requests()
	if _, err := p.Ping(t.Context(), ""); err != nil {
		t.Error(err)
	}
	large := make([]byte, 2<<20)
	_, _ = rand.Read(large) // which does not compress
	for _, m := range []gracedb.Message{{Topic: "gstlal"}, {Topic: "large", Value: large}} {
		if _, err := p.ProduceSync(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	if got := c.ConnectionCount(); got != opened {
		t.Errorf("%d new connections", got-opened)
	}
	for key, count := range c.Requests() {
		if made := count - before[key]; key == kmsg.Produce && made != 3 || key != kmsg.Produce && made != 0 {
			t.Errorf("%d requests %v", made, key.Name())
		}
	}
}

// A default topic that may not be written, or a topic that may not be read, is told by the
// constructors and by Check, with the principal; without the right to write, PublishEvent
// reserves nothing, and a right that is given later counts.
func TestRightsAreChecked(t *testing.T) {
	write, look := kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe
	on := func(topic string, op kmsg.ACLOperation) kfake.ACL { return allow(kmsg.ACLResourceTypeTopic, topic, op) }
	cfg := kafkatest.Config{Subjects: map[string][]kfake.ACL{"alice": {on("localhost.test", write), on("localhost.gstlal", write)}}}
	testrig.InRig(t, rigConfig{Kafka: cfg, Producer: func(pc *gracedb.ProducerConfig) { pc.Topic = "test" }}, func(t *testing.T, r *testrig.Rig) {
		cluster := clusterFor(t, r.Kafka, "alice")
		cluster.Instance, cluster.Plaintext = "localhost", true
		wantRight := func(err error, kind error, right string) {
			t.Helper()
			wantErr(t, err, kinds(gracedb.ErrTopic, kind, kerr.TopicAuthorizationFailed), kinds(gracedb.ErrConnection, gracedb.ErrAuthentication), "localhost.test", "alice", right)
		}
		_, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
		wantRight(err, gracedb.ErrConsumer, "READ")
		if err := r.Producer.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if err := r.Kafka.SetACLs("alice", on("localhost.test", look), on("localhost.gstlal", write)); err != nil {
			t.Fatal(err)
		}
		wantRight(r.Producer.Check(t.Context()), gracedb.ErrDelivery, "WRITE")
		_, err = gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		wantRight(err, gracedb.ErrDelivery, "WRITE")
		time.Sleep(time.Minute) // keepWarm learns of it, too
		e := event()
		e.Group = "Test"
		_, err = r.Client.PublishEvent(t.Context(), r.Producer, e, gracedb.PublishOptions{})
		wantRight(err, gracedb.ErrDelivery, "WRITE")
		if n := len(r.Reservations()); n > 0 {
			t.Errorf("%d graceids reserved for what may not be published", n)
		}
		if err := r.Kafka.SetACLs("alice", on("localhost.test", write), on("localhost.gstlal", write)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Client.PublishEvent(t.Context(), r.Producer, e, gracedb.PublishOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// Brokers that are older than Kafka 2.3 do not tell rights, which are then not known.
func TestRightsAreNotTold(t *testing.T) {
	virtually(t, kafkatest.Config{Versions: kversion.V2_2_0()}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		if err := p.Check(t.Context()); err != nil {
			t.Error(err)
		}
		newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "alice"), Topics: []string{"test"}})
	})
}
