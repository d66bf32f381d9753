package gracedb_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// Close tells each of very many messages that fail for one reason what became of it, and
// counts them all.
func TestCloseTellsMany(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", FlushTimeout: time.Second})
	c.Refuse()
	c.Drop(kafkatest.RST)
	const n = 50_000
	var told atomic.Int64
	for range n {
		done := func(gracedb.Message, error) { told.Add(1) }
		if err := p.Produce(context.Background(), gracedb.Message{Value: []byte("x")}, done); err != nil {
			t.Fatal(err)
		}
	}
	err := p.Close()
	if got := told.Load(); got != n {
		t.Errorf("told of %d messages when Close returned, want %d", got, n)
	}
	wantErr(t, err, kinds(gracedb.ErrDelivery), nil, "closed with 50000 message(s) failed")
}
