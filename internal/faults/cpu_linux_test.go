package faults_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrace"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// As many topics and partitions as are believed keep no core busy: they took 15 to 35 ms for each
// Metadata answer, with what the embedded broker took to make it.
func TestManyTopicsTakeLittleTime(t *testing.T) {
	for _, parts := range []bool{false, true} {
		t.Run(fmt.Sprint("partitions=", parts), func(t *testing.T) {
			cl := testrig.StartCluster(t, kafkatest.Config{})
			i := cl.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
				m := resp.(*kmsg.MetadataResponse)
				for i := range 9900 {
					next := kmsg.NewMetadataResponseTopic()
					next.Topic = new(fmt.Sprint("t", i))
					next.TopicID[0], next.TopicID[1] = byte(i), byte(i>>8)
					if parts {
						next.Partitions = make([]kmsg.MetadataResponseTopicPartition, 2)
						next.Partitions[1].Partition = 1
					}
					m.Topics = append(m.Topics, next)
				}
			}})
			var before, after syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
				t.Fatal(err)
			}
			p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topic: "test"})
			testrig.Send(t, p, "x")
			testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "bob"), Topics: []string{"test"}})
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
				t.Fatal(err)
			}
			took := time.Duration(after.Utime.Nano() - before.Utime.Nano())
			t.Log(took, i.Hits())
			most := time.Second
			if testrace.Enabled {
				most *= 10
			}
			if i.Hits() == 0 || took > most*time.Duration(i.Hits()) {
				t.Errorf("%v for %d answers", took, i.Hits())
			}
		})
	}
}
