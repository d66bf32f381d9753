package sender

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A hostileAnswer is what a broker says to each Produce request, whatever it was.
type hostileAnswer struct {
	name string
	code *kerr.Error
	also func(n int, answer *kmsg.ProduceResponseTopicPartition) // to the nth request
	// refuses is whether that is of the records: all are settled while the Sender works.
	refuses bool
}

var hostileAnswers = []hostileAnswer{
	{name: "always out of order", code: kerr.OutOfOrderSequenceNumber},
	{name: "always a duplicate", code: kerr.DuplicateSequenceNumber},
	{name: "an epoch that is never right", code: kerr.InvalidProducerEpoch},
	{name: "always too large", code: kerr.MessageTooLarge, refuses: true},
	{name: "damaged by whoever sent it", code: kerr.CorruptMessage},
	{name: "invalid, and names no record", code: kerr.InvalidRecord, refuses: true},
	{
		name: "invalid, and names records that are not there", code: kerr.InvalidTimestamp, refuses: true,
		also: func(_ int, answer *kmsg.ProduceResponseTopicPartition) {
			for _, at := range []int32{-1, 1 << 30, -1 << 31, hostileRecords + 1} {
				named := kmsg.NewProduceResponseTopicPartitionErrorRecord()
				named.RelativeOffset = at
				answer.ErrorRecords = append(answer.ErrorRecords, named)
			}
		},
	},
	{
		name: "another leads it, and that one names the next", code: kerr.NotLeaderForPartition,
		also: func(n int, answer *kmsg.ProduceResponseTopicPartition) {
			answer.CurrentLeader.LeaderID, answer.CurrentLeader.LeaderEpoch = int32(n%2), int32(n)
		},
	},
	{
		name: "brokers lead it that are not there", code: kerr.NotLeaderForPartition,
		also: func(n int, answer *kmsg.ProduceResponseTopicPartition) {
			answer.CurrentLeader.LeaderID, answer.CurrentLeader.LeaderEpoch = int32(n%7), int32(n)
		},
	},
	{
		name: "names another partition",
		also: func(_ int, answer *kmsg.ProduceResponseTopicPartition) { answer.Partition = 1 << 30 },
	},
}

const (
	hostileRecords = 50
	// hostileRequests is how many a Sender may make in 3 s: its pauses are of 250 ms at last,
	// with five batches in flight; and a record that is refused alone, or smaller batches, make those behind go again.
	hostileRequests = 10 * hostileRecords
)

// No answer makes a Sender busy, and none keeps a record from being settled, once, when it
// is closed.
func TestHostileAnswers(t *testing.T) {
	for _, hostile := range hostileAnswers {
		t.Run(hostile.name, func(t *testing.T) {
			withRig(t, kafkatest.Config{Brokers: 2}, true, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
				r.learn()
				r.must(r.send("first"))
				var n atomic.Int32
				met := c.Inject(kafkatest.Fault{
					Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Produce}, Count: -1,
					Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
						nth := int(n.Add(1))
						for i := range resp.(*kmsg.ProduceResponse).Topics {
							for j := range resp.(*kmsg.ProduceResponse).Topics[i].Partitions {
								answer := &resp.(*kmsg.ProduceResponse).Topics[i].Partitions[j]
								if hostile.code != nil {
									answer.ErrorCode = hostile.code.Code
								}
								if hostile.also != nil {
									hostile.also(nth, answer)
								}
							}
						}
					},
				})
				all := make([]*Record, hostileRecords)
				for i := range all {
					all[i] = r.send(fmt.Sprint(i))
				}
				time.Sleep(3 * time.Second)
				if hits := met.Hits(); hits == 0 || hits > hostileRequests {
					t.Errorf("%d Produce requests in 3 s, want %d at most", hits, hostileRequests)
				}
				if asked := r.questions(); asked > 20 {
					t.Errorf("%d questions about the topic in 3 s", asked)
				}
				time.Sleep(time.Minute)
				settled := 0
				for _, one := range all {
					if r.told(one) != nil {
						settled++
					}
				}
				if want := map[bool]int{true: hostileRecords}[hostile.refuses]; settled != want {
					t.Errorf("%d records are settled after a minute, want %d", settled, want)
				}
				r.sender.Close()
				synctest.Wait()
				for _, one := range all {
					if r.told(one) == nil {
						t.Fatalf("%s is not settled after Close", one.Value)
					}
				}
			})
		})
	}
}
