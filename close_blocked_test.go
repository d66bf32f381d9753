package gracedb_test

import (
	"context"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A done that blocks keeps Close waiting for a second, and no longer, also where Close itself
// withdraws the message: whoever waits for what done tells may be who closes.
func TestCloseBesideABlockedDone(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		const flush = 2 * time.Second
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", FlushTimeout: flush})
		c.Refuse()
		c.Drop(kafkatest.RST)
		release := make(chan struct{})
		watchdog := time.AfterFunc(time.Minute, func() { close(release) }) // or the test would not end
		err := p.Produce(context.Background(), gracedb.Message{Value: []byte("x")}, func(gracedb.Message, error) { <-release })
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = p.Close()
		if took := time.Since(began); took > flush+3*time.Second {
			t.Errorf("Close took %v", took)
		}
		wantErr(t, err, kinds(gracedb.ErrDelivery), nil, "closed with 1 message(s) failed")
		if watchdog.Stop() {
			close(release)
		}
	})
}
