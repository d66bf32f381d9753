package gracedb_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// What brokers answer for longer than a leader takes to move is in the log, once a minute,
// and the message is there when they take it.
func TestProducerTellsWhatMessagesWaitFor(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		var log lockedBuffer
		cluster := clusterFor(t, c, "alice")
		cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		for _, tt := range []struct {
			lasting time.Duration
			lines   int
		}{{300 * time.Millisecond, 0}, {90 * time.Second, 2}} {
			before := strings.Count(log.String(), "takes no messages for now")
			fault := c.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Err: kerr.NotEnoughReplicas, Keys: []kmsg.Key{kmsg.Produce}, Count: -1})
			time.AfterFunc(tt.lasting, fault.Remove)
			if _, err := p.ProduceSync(t.Context(), gracedb.Message{Value: []byte("x")}); err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), "takes no messages for now") - before; n != tt.lines || n > 0 && !strings.Contains(log.String(), "NOT_ENOUGH_REPLICAS") {
				t.Errorf("%v: %d lines, want %d: %s", tt.lasting, n, tt.lines, log.String())
			}
		}
	})
}
