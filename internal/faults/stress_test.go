package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A leader that loses its office while it waits for its replicas has appended, and
// answers that it is not the leader.
func TestFault_F5_LeaderLosesItsOffice(t *testing.T) {
	for _, answer := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.LeaderNotAvailable} {
		t.Run(answer.Message, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				r.send(t, p, "k")
				f := r.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Err: answer, Keys: produces, Count: -1})
				_, err := r.try(t, p, "k", 2*time.Second)
				wantKinds(t, err, is(gracedb.ErrOutcomeUnknown), is(gracedb.ErrDelivery))
				f.Remove()
				closeProducer(t, p)
				r.judge(t)
				if n := len(r.records(t)); n != 2 {
					t.Errorf("%d messages in the log: the fault did not happen", n)
				}
			})
		})
	}
}

// Eight callers whose patience is short, three brokers that fail in every way: each
// outcome is true.
func TestFault_F5_Stress(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { stress(t, seed) })
	}
}

func stress(t *testing.T, seed uint64) {
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: 6}}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		dice := rand.New(rand.NewPCG(seed, 0))
		end := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 8 {
			own := rand.New(rand.NewPCG(seed, uint64(i)+1))
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-end:
						return
					default:
					}
					patience := time.Duration(2+own.IntN(78)) * time.Millisecond
					key := fmt.Sprint("caller", i, "-", own.IntN(4))
					if own.IntN(4) == 0 {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						_ = r.async(t, ctx, p, key)
						time.AfterFunc(patience, cancel)
						time.Sleep(time.Duration(own.IntN(5)) * time.Millisecond)
					} else if took, err := r.try(t, p, key, patience); err != nil {
						within(t, "an answer", took, patience+100*time.Millisecond)
					}
					time.Sleep(time.Duration(1+own.IntN(20)) * time.Millisecond)
				}
			})
		}
		for range 100 {
			r.mischief(t, dice)
		}
		close(end)
		wg.Wait()
		r.Mute(0)
		r.Drop(kafkatest.RST) // those that are mute for good
		_ = p.Close()
		r.judge(t)
		if n := r.count(); n[delivered] < 1000 || n[failed]+n[unknown] < 100 {
			t.Errorf("%v: too little happened", n)
		}
	})
}

// mischief does one thing to the brokers for a while.
func (r *rig) mischief(t *testing.T, dice *rand.Rand) {
	node := int32(dice.IntN(3))
	pause := time.Duration(40+dice.IntN(160)) * time.Millisecond
	errs := []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas, kerr.KafkaStorageError,
	}
	err := errs[dice.IntN(len(errs))]
	ways := []func() func(){
		func() func() { r.Drop(kafkatest.RST); return nil },
		func() func() { r.Drop(kafkatest.FIN, node); return nil },
		func() func() {
			r.Mute(kafkatest.MuteResponses, node)
			return func() { r.Mute(0, node); r.Drop(kafkatest.RST, node) }
		},
		func() func() {
			r.Mute(kafkatest.MuteRequests, node)
			return func() { r.Mute(0, node); r.Drop(kafkatest.RST, node) }
		},
		func() func() { r.LoseAcks(1+dice.IntN(3), kafkatest.CutResponse); return nil },
		func() func() { r.LoseProduces(1+dice.IntN(3), kafkatest.CutRequest); return nil },
		func() func() {
			f := r.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Err: err, Keys: produces, Count: -1})
			return f.Remove
		},
		func() func() { return r.reply(err, -1).Remove },
		func() func() {
			_ = r.MoveLeader(topic, int32(dice.IntN(6)), node) // unless it is down
			return nil
		},
		func() func() {
			if err := r.Kill(node); err != nil {
				t.Error(err)
			}
			return func() {
				if err := r.Restart(node); err != nil {
					t.Error(err)
				}
			}
		},
	}
	undo := ways[dice.IntN(len(ways))]()
	time.Sleep(pause)
	if undo != nil {
		undo()
	}
	time.Sleep(time.Duration(dice.IntN(200)) * time.Millisecond)
}
