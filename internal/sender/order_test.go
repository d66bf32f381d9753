package sender

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A broker that does not know a producer takes its batch at any sequence: also the second
// one, after it has refused the first. So a partition has one batch in flight until the
// broker has acknowledged one, not long ago.
func TestFirstBatchRefused(t *testing.T) {
	for _, known := range []bool{false, true} { // at first; and then forgotten
		for _, why := range []*kerr.Error{kerr.MessageTooLarge, kerr.NotEnoughReplicas} {
			t.Run(fmt.Sprintf("%v, forgotten %v", why.Message, known), func(t *testing.T) {
				cfg := kafkatest.Config{TopicMaxMessageBytes: map[string]int{rigTopic: 500_000}}
				withRig(t, cfg, true, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
					r.learn()
					var want []string
					if known {
						r.must(r.send("before"))
						want = append(want, "before")
						time.Sleep(knownFor + time.Second)
						c.ForgetProducers()
					}
					padding := 400_000 // two of which are too large together
					if why == kerr.NotEnoughReplicas {
						padding = 0
						c.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Keys: []kmsg.Key{kmsg.Produce}, Err: why})
					}
					_, p := r.held()
					all := []*Record{record("a1", padding), record("a2", padding), record("b", 0)}
					r.sender.Send(all[0])
					r.sender.Send(all[1])
					r.release(p) // one batch of two
					r.sender.Send(all[2])
					for _, one := range all {
						r.must(one)
					}
					if diff := cmp.Diff(append(want, "a1", "a2", "b"), logged(t, c)); diff != "" {
						t.Error(diff)
					}
				})
			})
		}
	}
}

// Once the broker knows the producer, several batches are in flight.
func TestWindowOpens(t *testing.T) {
	withRig(t, kafkatest.Config{}, true, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
		r.learn()
		r.must(r.send("first"))
		c.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Keys: []kmsg.Key{kmsg.Produce}, Delay: time.Second})
		var all []*Record
		for i := range maxInFlight + 2 {
			all = append(all, r.send(fmt.Sprint(i)))
			synctest.Wait()
		}
		topic := r.sender.lock(rigTopic)
		if n := len(topic.parts[0].inFlight); n != maxInFlight {
			t.Errorf("%d batches are in flight, want %d", n, maxInFlight)
		}
		topic.mu.Unlock()
		for _, one := range all {
			r.must(one)
		}
	})
}

// The next partitions of a topic that a broker has refused for a while begin at sequence 0.
// With the same producer id, the broker would take what they send for what it has already.
func TestTopicRefusedForAWhile(t *testing.T) {
	withRig(t, kafkatest.Config{}, true, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
		r.learn()
		for i := range 3 {
			r.must(r.send(fmt.Sprint("before ", i)))
		}
		topic := r.sender.lock(rigTopic)
		r.sender.unlock(topic, topic.judgeState(State{}, kerr.TopicAuthorizationFailed))
		if topic.removed {
			t.Error("the topic is forgotten, and brokers remember what was sent to it")
		}
		r.must(r.send("after")) // asks who leads it
		if diff := cmp.Diff([]string{"before 0", "before 1", "before 2", "after"}, logged(t, c)); diff != "" {
			t.Error(diff)
		}
	})
}

// A broker that recognises a batch answers with the batch's own timestamp, on a topic with
// CreateTime, too: that is no time of the append.
func TestTimeOfADuplicate(t *testing.T) {
	withRig(t, kafkatest.Config{}, true, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
		r.learn()
		c.LoseAcks(1, kafkatest.CutResponse)
		one := r.send("twice")
		r.must(one)
		if o := r.told(one); o != nil && !o.Time.IsZero() {
			t.Errorf("appended at %v on a topic with CreateTime", o.Time)
		}
		if diff := cmp.Diff([]string{"twice"}, logged(t, c)); diff != "" {
			t.Error(diff)
		}
	})
	// Any other time, and one that a first try is answered with, is the broker's.
	for _, row := range []struct {
		doubt bool
		at    int64 // after the last record's
		want  bool
	}{{true, 0, false}, {true, 1, true}, {false, 0, true}, {false, 1, true}} {
		records := []*Record{{Time: moment}, {Time: moment.Add(-time.Hour)}}
		b := sealedBatch(records)
		for _, one := range records {
			one.topic = b.part.topic
		}
		answer := kmsg.NewProduceResponseTopicPartition()
		answer.LogAppendTime = moment.UnixMilli() + row.at
		b.doubt, b.answer = row.doubt, &answer
		for _, o := range b.part.acknowledge(b) {
			if got := o.outcome.Time; row.want && got.UnixMilli() != answer.LogAppendTime || !row.want && !got.IsZero() {
				t.Errorf("%+v: appended at %v", row, got)
			}
		}
	}
}
