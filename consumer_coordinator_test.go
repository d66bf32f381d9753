package gracedb_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A group's coordinator may be missing for seconds: a broker that has never had a
// group first makes its topic of offsets. NewConsumer waits, as for a silent broker.
func TestConsumerWaitsForCoordinator(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		const missing = 5 * time.Second
		there := time.Now().Add(missing)
		c.Kfake().ControlKey(int16(kmsg.FindCoordinator), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.Kfake().KeepControl()
			if time.Now().After(there) {
				return nil, nil, false
			}
			ask := req.(*kmsg.FindCoordinatorRequest)
			resp := ask.ResponseKind().(*kmsg.FindCoordinatorResponse)
			resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
			for _, key := range ask.CoordinatorKeys {
				r := kmsg.NewFindCoordinatorResponseCoordinator()
				r.Key, r.ErrorCode = key, kerr.CoordinatorNotAvailable.Code
				resp.Coordinators = append(resp.Coordinators, r)
			}
			return resp, nil, true
		})
		start := time.Now()
		con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: "g"})
		if took := time.Since(start); took < missing || took > missing+time.Second {
			t.Errorf("NewConsumer took %v, the coordinator was missing for %v", took, missing)
		}
		produceRaw(t, c, record(testTopic, 0, "x"))
		if got := poll(t, con); string(got.Value) != "x" {
			t.Errorf("got %s", got.Value)
		}
	})
}
