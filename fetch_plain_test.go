package gracedb_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// Batches that are not compressed are decoded before anybody is asked: where they bring very
// many small messages, fetches become smaller.
func TestConsumerPlainSmallMessages(t *testing.T) {
	cl := startCluster(t, kafkatest.Config{})
	client, err := cl.Client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const n = 200_000 // 36 MiB when they are decoded
	for range n {
		client.Produce(t.Context(), &kgo.Record{Topic: testTopic}, nil)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var least atomic.Int64
	least.Store(1 << 40)
	cl.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1, Match: func(req kmsg.Request) bool {
		least.Store(min(least.Load(), int64(req.(*kmsg.FetchRequest).MaxBytes)))
		return true
	}})
	c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, FromBeginning: true})
	for i := range int64(n) {
		if m := poll(t, c); m.Offset != i {
			t.Fatalf("offset %d, want %d", m.Offset, i)
		}
	}
	for range 100 {
		if least.Load() <= 2<<20 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("fetches ask for %d bytes", least.Load())
}
