package gracedb_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
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
