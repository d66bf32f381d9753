package faults

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A broker says that authentication has failed where nobody has asked it to
// authenticate: it is asked hardly more often than at a login, and what waits for it
// is delivered when that is over, in its order but for what the engine already had
// when it failed what came before. (What follows on a refused message
// when that is refused is not sent again, since it may have been written.)
func TestRefusedWithoutLogin(t *testing.T) {
	const outage = 10 * time.Second
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.Produce} {
		t.Run(key.Name(), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Lazy = true })
				refused := r.refuse(key)
				begun := time.Now()
				stop := r.traffic(t, p, 3, 20*time.Millisecond)
				time.Sleep(outage)
				asked := r.Requests()[key]
				refused.Remove()
				t.Logf("asked %d times in %v", asked, outage)
				if most := 10 * int(outage.Seconds()); asked < 5 || asked > most {
					t.Errorf("asked %d times in %v, want at most %d", asked, outage, most)
				}
				within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
				r.unordered(begun, time.Now())
				time.Sleep(time.Second)
				stop()
				closeProducer(t, p)
				r.judge(t)
				for value, s := range r.sends() {
					if s.Outcome != delivered && s.Key != "probe" && key != kmsg.Produce {
						t.Fatalf("%s: %v", value, s.Err)
					}
				}
			})
		})
	}
}

// What waits for that is withdrawn like anything else, by its caller and by Close. The
// engine never asks again for a producer's id that was refused: then all waits.
func TestRefusedWithoutLogin_Withdrawn(t *testing.T) {
	// What spins keeps virtual time from passing, and the test's own limit with it.
	watchdog := time.AfterFunc(time.Minute, func() { panic("spins") })
	defer watchdog.Stop()
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.InitProducerID, kmsg.Produce} {
		t.Run(key.Name(), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Lazy = true })
				r.refuse(key)
				for range 50 {
					took, err := r.try(t, p, "k", 333*time.Millisecond)
					within(t, "ProduceSync", took, 433*time.Millisecond)
					wantKinds(t, err, is(gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown))
				}
				for range 50 {
					_ = r.async(t, t.Context(), p, "waits")
					time.Sleep(77 * time.Millisecond)
				}
				start := time.Now()
				wantKinds(t, p.Close(), is(gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown))
				within(t, "Close", time.Since(start), 10*time.Second+100*time.Millisecond)
				r.judge(t)
			})
		})
	}
}

// refuse makes requests of a kind fail with code 58 before anything is done. There is
// an end to it, lest what spins keeps virtual time from passing.
func (r *rig) refuse(key kmsg.Key) *kfake.FaultHandle {
	return r.Fail(kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.SaslAuthenticationFailed, Count: 10_000})
}
