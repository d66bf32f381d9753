package faults_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A message that waits for a leader outlasts Metadata answers that are refused: the next
// one, or another broker's, may be good.
func TestBadMetadataFailsNoMessage(t *testing.T) {
	faults := map[string]kafkatest.Fault{
		"too long": {Do: kafkatest.HugeResponse, Length: 3 << 20, Keys: []kmsg.Key{kmsg.Metadata}, Count: 6},
		"too many brokers": {Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: 6, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
			m := resp.(*kmsg.MetadataResponse)
			for i := range int32(2000) {
				b := kmsg.NewMetadataResponseBroker()
				b.NodeID, b.Host, b.Port = 1000+i, "broker.invalid", 9092
				m.Brokers = append(m.Brokers, b)
			}
		}},
	}
	for length := int32(10); length < 130; length += 6 {
		faults[fmt.Sprint("cut short after ", length)] = kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Metadata}, Count: 6}
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Brokers: 2, Topics: map[string]int{testrig.Topic: 1}}, func(t *testing.T, c *kafkatest.Cluster) {
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
				testrig.Send(t, p, "first")
				if err := c.LoseLeader(testrig.Topic, 0); err != nil {
					t.Fatal(err)
				}
				short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				_, err := p.ProduceSync(short, gracedb.Message{Value: []byte("makes the engine look for a leader")})
				cancel()
				if err == nil {
					t.Error("written without a leader")
				}
				i := c.Inject(fault)
				time.AfterFunc(8*time.Second, func() { _ = c.ElectLeader(testrig.Topic, 0, 1) })
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				start := time.Now()
				if _, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("second")}); err != nil {
					t.Errorf("after %v and %d bad answers: %v", time.Since(start), i.Hits(), err)
				}
				if i.Hits() == 0 {
					t.Error("no answer was bad")
				}
			})
		})
	}
}

// A broker that cannot describe the topic for a while (UNKNOWN_SERVER_ERROR) fails no message
// for it, and is named if ctx ends first.
func TestServerErrorFailsNoMessage(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		i := c.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Keys: []kmsg.Key{kmsg.Metadata}, Err: kerr.UnknownServerError, Count: -1})
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test", Lazy: true})
		short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := p.ProduceSync(short, gracedb.Message{Value: []byte("given up")})
		cancel()
		testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrDelivery, context.DeadlineExceeded), testrig.Kinds(gracedb.ErrOutcomeUnknown, gracedb.ErrTopic), kerr.UnknownServerError.Message)
		time.AfterFunc(8*time.Second, i.Remove)
		testrig.Send(t, p, "second")
		if got := testrig.Values(t, c, testrig.Topic); len(got) != 1 {
			t.Errorf("%q in the log", got)
		}
	})
}
