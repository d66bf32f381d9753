package gracedb_test

import (
	"crypto/rand"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrace"
)

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

// A message that is queued is one allocation, if its topic is known: the place in which it
// waits. Its batch and request are few beside that.
func TestProduceAllocations(t *testing.T) {
	if testrace.Enabled {
		t.Skip("the race detector allocates")
	}
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice")})
	c.Freeze()
	m := gracedb.Message{Topic: "test", Value: make([]byte, 400)}
	if got := testing.AllocsPerRun(5000, func() {
		if err := p.Produce(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
	}); got != 1 {
		t.Errorf("%v allocations, want 1", got)
	}
	c.Thaw()
	if err := p.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}
