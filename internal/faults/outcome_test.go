package faults

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// reply makes all Produce requests fail with err before anything is done.
func (r *rig) reply(err *kerr.Error, count int) *kfake.FaultHandle {
	return r.Fail(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: err, Count: count})
}

// The acknowledgement is lost, and what is answered to the second try does not say
// what became of the first: the message is in the log, and its caller is not told
// that it is not.
func TestFault_F5_AnswerToTheSecondTry(t *testing.T) {
	for _, answer := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.TopicAuthorizationFailed, kerr.MessageTooLarge,
		kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.InvalidRecord, kerr.PolicyViolation, kerr.ClusterAuthorizationFailed,
	} {
		t.Run(answer.Message, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				r.send(t, p, "k")
				r.LoseAcks(1, kafkatest.CutResponse)
				r.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Err: answer, Keys: produces, Count: -1})
				_, err := r.try(t, p, "k", 2*time.Second)
				wantKinds(t, err, is(gracedb.ErrOutcomeUnknown), is(gracedb.ErrDelivery))
				_ = p.Close()
				r.judge(t)
				if n := len(r.records(t)); n != 2 {
					t.Errorf("%d messages in the log: the fault did not happen", n)
				}
			})
		})
	}
}

// The same with a neighbour: that one caller gives up does not send the other's
// message a second time.
func TestFault_F5_NeighbourIsNotSentTwice(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		r.send(t, p, "k")
		slow := r.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Delay: time.Second, Keys: produces})
		_ = r.async(t, t.Context(), p, "first")
		_ = slow.Wait(t.Context(), 1)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		// Both are written by one request, whose answer is lost.
		r.LoseAcks(1, kafkatest.CutResponse)
		moved := r.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Err: kerr.NotLeaderForPartition, Keys: produces, Count: -1})
		_ = r.async(t, ctx, p, "leaves")
		_ = r.async(t, t.Context(), p, "stays")
		time.Sleep(5 * time.Second)
		moved.Remove()
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[delivered] < 3 {
			t.Errorf("%v", n)
		}
	})
}

// What was acknowledged as not written, with nothing lost, is failed, not unknown.
func TestFault_F5_AnswerToTheFirstTry(t *testing.T) {
	for _, answer := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.InvalidRecord, kerr.PolicyViolation} {
		virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
			p := r.producer(t, nil)
			r.LoseAcks(1, kafkatest.CutResponse)
			r.send(t, p, "k") // an earlier loss does not matter
			r.reply(answer, 1)
			_, err := r.try(t, p, "k", 2*time.Second)
			wantKinds(t, err, is(gracedb.ErrDelivery, answer), is(gracedb.ErrOutcomeUnknown))
			closeProducer(t, p)
			r.judge(t)
		})
	}
}

// Each caller's ctx is its own: one that gives up takes nobody along.
func TestFault_F5_OneCtxEnds(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		for _, fault := range []func() (heal func()){
			func() func() { r.Freeze(); return func() { r.Thaw() } },
			func() func() { r.Refuse(); r.Drop(kafkatest.RST); return func() { r.Accept() } },
			func() func() { return func() { r.reply(kerr.NotLeaderForPartition, -1).Remove() } },
			func() func() { f := r.reply(kerr.NotLeaderForPartition, -1); return f.Remove },
		} {
			heal := fault()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			for i := range 20 {
				if i%4 == 0 {
					_ = r.async(t, ctx, p, "leaves")
				} else {
					_ = r.async(t, t.Context(), p, fmt.Sprint("stays", i%4))
				}
				if i == 10 {
					synctest.Wait()
				}
			}
			time.Sleep(2 * time.Second)
			cancel()
			heal()
			if err := p.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
		closeProducer(t, p)
		r.judge(t)
		for value, s := range r.sends() {
			if s.Key != "leaves" && s.Outcome != delivered {
				t.Errorf("%s: %v", value, s.Err)
			}
		}
	})
}
