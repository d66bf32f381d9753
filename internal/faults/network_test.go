package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	judge "github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// losing checks that n messages arrive although each Produce request meets a fault.
func losing(t *testing.T, n int, fault kafkatest.Fault, bound time.Duration) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		var worst time.Duration
		for range n {
			fault.Keys = produces
			i := r.Inject(fault)
			worst = max(worst, r.send(t, p, "k"))
			if i.Hits() == 0 {
				t.Fatal("the fault did not happen")
			}
		}
		within(t, "a message", worst, bound)
		t.Logf("worst %v", worst)
		closeProducer(t, p)
		r.judge(t)
	})
}

func TestFault_N1_ResetInProduce(t *testing.T) {
	losing(t, 200, kafkatest.Fault{Do: kafkatest.CutRequest, How: kafkatest.RST}, 300*time.Millisecond)
}

func TestFault_N2_AckLost(t *testing.T) {
	losing(t, 200, kafkatest.Fault{Do: kafkatest.CutResponse, How: kafkatest.RST}, 300*time.Millisecond)
}

// Without a reset only a timeout tells that an answer will not come.
func TestFault_N2_AckSwallowed(t *testing.T) {
	losing(t, 3, kafkatest.Fault{Do: kafkatest.DropResponse}, 21*time.Second)
}

func TestFault_N3_RequestLost(t *testing.T) {
	losing(t, 200, kafkatest.Fault{Do: kafkatest.CutRequest, How: kafkatest.FIN}, 300*time.Millisecond)
}

func TestFault_N3_RequestSwallowed(t *testing.T) {
	losing(t, 3, kafkatest.Fault{Do: kafkatest.DropRequest}, 21*time.Second)
}

func TestFault_N4_EndInsideResponse(t *testing.T) {
	losing(t, 200, kafkatest.Fault{Do: kafkatest.HalfResponse, How: kafkatest.FIN}, 300*time.Millisecond)
}

func TestFault_N5_HalfARequest(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		armed := false
		s := &shape{dial: r.Dial, halve: func(n int) bool {
			mu.Lock()
			defer mu.Unlock()
			now := armed
			armed = false
			return now
		}}
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial = s.Dial })
		var worst time.Duration
		for range 100 {
			mu.Lock()
			armed = true
			mu.Unlock()
			worst = max(worst, r.send(t, p, "k"))
		}
		within(t, "a message", worst, 600*time.Millisecond)
		closeProducer(t, p)
		r.judge(t)
	})
}

// outage checks that messages sent all along survive an outage, and how soon the
// first is acknowledged when it is over.
func outage(t *testing.T, cfg kafkatest.Config, lasting, bound time.Duration, begin, end func(*rig)) {
	virtually(t, cfg, func(t *testing.T, r *rig) {
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.FlushTimeout = time.Minute })
		stop := r.traffic(t, p, 4, 20*time.Millisecond)
		time.Sleep(time.Second)
		begin(r)
		time.Sleep(lasting)
		end(r)
		within(t, "the first acknowledgement", r.firstAck(t, p), bound)
		time.Sleep(time.Second)
		stop()
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[failed]+n[unknown] > n[delivered]/10 {
			t.Errorf("%v", n)
		}
	})
}

func TestFault_N6_Blackhole(t *testing.T) {
	outage(t, kafkatest.Config{}, 5*time.Second, time.Second, func(r *rig) { r.Freeze() }, func(r *rig) { r.Thaw() })
}

// Of messages that nobody answers, one may have been written. Those behind it were not,
// which their callers are told.
func TestFault_N7_BlackholePastCtx(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		r.send(t, p, "k")
		r.Freeze()
		for i := range 5 {
			took, err := r.try(t, p, "k", 300*time.Millisecond)
			within(t, "ProduceSync", took, 400*time.Millisecond)
			kind, not := gracedb.ErrDelivery, gracedb.ErrOutcomeUnknown
			if i == 0 {
				kind, not = not, kind
			}
			wantKinds(t, err, is(kind, gracedb.ErrProducer, context.DeadlineExceeded), is(not), topic)
		}
		r.Thaw()
		time.Sleep(time.Second)
		r.send(t, p, "k")
		closeProducer(t, p)
		r.judge(t)
	})
}

// The same, with requests that get through and answers that do not, from brokers
// that stay so until Close.
func TestFault_N7_MutePastCtx(t *testing.T) {
	for _, mute := range []kafkatest.Mute{kafkatest.MuteRequests, kafkatest.MuteResponses} {
		virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
			p := r.producer(t, nil)
			r.Mute(mute)
			took, err := r.try(t, p, "k", 300*time.Millisecond)
			within(t, "ProduceSync", took, 400*time.Millisecond)
			wantKinds(t, err, is(gracedb.ErrOutcomeUnknown), is(gracedb.ErrDelivery))
			start := time.Now()
			if err := p.Close(); err == nil {
				t.Log("Close has nothing to say of what the caller knows to be unknown")
			}
			within(t, "Close", time.Since(start), 10*time.Second+200*time.Millisecond)
			r.judge(t)
		})
	}
}

func TestFault_N8_Latency(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		s := &shape{dial: r.Dial, latency: between(rand.New(rand.NewPCG(1, 2)), 50*time.Millisecond, 150*time.Millisecond)} // a round trip of 200±100 ms
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial = s.Dial })
		var took []time.Duration
		for range 300 {
			took = append(took, r.send(t, p, "k"))
		}
		within(t, "99 % of messages", percentile(took, 0.99), 500*time.Millisecond)
		t.Logf("p50 %v, p99 %v", percentile(took, 0.5), percentile(took, 0.99))
		closeProducer(t, p)
		time.Sleep(time.Second) // what was on its way when the connections were closed
		r.judge(t)
	})
}

func TestFault_N9_SlowLink(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		s := &shape{dial: r.Dial, rate: 64 << 10}
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial = s.Dial })
		m := r.large(1 << 20)
		before := r.Requests()[kmsg.Produce]
		start := time.Now()
		got, err := p.ProduceSync(t.Context(), m)
		r.end(t, m, got, err)
		if err != nil {
			t.Error(err)
		}
		within(t, "1 MiB", time.Since(start), 30*time.Second)
		t.Logf("1 MiB took %v", time.Since(start))
		if n := r.Requests()[kmsg.Produce] - before; n != 1 {
			t.Errorf("sent %d times", n)
		}
		start = time.Now()
		closeProducer(t, p)
		within(t, "Close", time.Since(start), time.Second)
		r.judge(t)
	})
}

// large begins a message of a size, which does not compress.
func (r *rig) large(size int) gracedb.Message {
	m := r.begin("k")
	m.Value = append(m.Value, judge.Noise(size-1-len(m.Value))...)
	return m
}

// Close waits no longer than FlushTimeout, and what it takes to let go, for a message
// that is on its way still. Nobody can say then whether it gets there: it does if the
// network has all of it, as here 1 MiB but not 4, and it does not if there was more.
func TestFault_N9_ClosedInTransit(t *testing.T) {
	const (
		patience = 2 * time.Second
		letGo    = 1100 * time.Millisecond // at most: for a verdict on what was not sent, and for the engine's end
	)
	for size, arrive := range map[int]int{1 << 20: 1, 4 << 20: 0} {
		t.Run(fmt.Sprint(size>>20, " MiB"), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				s := &shape{dial: r.Dial, rate: 64 << 10}
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial, c.FlushTimeout = s.Dial, patience })
				m := r.large(size)
				told := make(chan error, 1)
				if err := p.Produce(t.Context(), m, func(got gracedb.Message, err error) { r.end(t, m, got, err); told <- err }); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				start := time.Now()
				err := p.Close()
				took := time.Since(start)
				if took < patience {
					t.Errorf("Close took %v", took)
				}
				within(t, "Close", took, patience+letGo)
				wantKinds(t, err, is(gracedb.ErrOutcomeUnknown), is(gracedb.ErrDelivery), "1 message(s)")
				select {
				case err := <-told:
					wantKinds(t, err, is(gracedb.ErrOutcomeUnknown), is(gracedb.ErrDelivery), topic)
				default:
					t.Error("Close has returned, and the caller was told nothing")
				}
				time.Sleep(time.Minute) // what is on its way arrives
				r.judge(t)
				if n := len(r.records(t)); n != arrive {
					t.Errorf("%d messages in the log, want %d", n, arrive)
				}
				t.Logf("Close took %v: %v", took, err)
			})
		})
	}
}

func TestFault_N10_OneByteAtATime(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		s := &shape{dial: r.Dial, slice: 1}
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial = s.Dial })
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.Cluster.Dial = s.Dial })
		for range 20 {
			r.send(t, p, "k")
			if _, err := con.Poll(t.Context()); err != nil {
				t.Error(err)
			}
		}
		closeProducer(t, p)
		r.judge(t)
	})
}

func TestFault_N11_NeverAnswers(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		r.Mute(kafkatest.MuteRequests)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		start := time.Now()
		_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: r.cluster("alice"), Topic: "test"})
		within(t, "NewProducer", time.Since(start), 4100*time.Millisecond)
		wantKinds(t, err, is(gracedb.ErrConnection, context.DeadlineExceeded), nil, r.Addrs()[0])
	})
}

func TestFault_N12_SYNDropped(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		cluster := r.cluster("alice")
		cluster.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		for _, timeout := range []time.Duration{time.Second, 12 * time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			start := time.Now()
			_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			within(t, "NewProducer", time.Since(start), timeout+100*time.Millisecond)
			wantKinds(t, err, is(gracedb.ErrConnection, context.DeadlineExceeded), nil, r.Addrs()[0])
			cancel()
		}
	})
}

func TestFault_N13_RefusedForAWhile(t *testing.T) {
	outage(t, kafkatest.Config{Brokers: 2, Topics: map[string]int{topic: 4}}, 3*time.Second, time.Second,
		func(r *rig) { r.Refuse(); r.Drop(kafkatest.RST) }, func(r *rig) { r.Accept() })
}

func TestFault_N14_NoSuchHost(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		asked := 0
		cluster := r.cluster("alice")
		cluster.Brokers = []string{"kafka.invalid:9092"}
		cluster.Dial = func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "kafka.invalid", IsNotFound: true}}
		}
		start := time.Now()
		_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		within(t, "NewProducer", time.Since(start), time.Second)
		wantKinds(t, err, is(gracedb.ErrConnection), nil, "kafka.invalid", "no such host")

		mu.Lock()
		asked = 0 // the engine may still be about it
		mu.Unlock()
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test", Lazy: true, FlushTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.try(t, p, "k", 20*time.Second)
		wantKinds(t, err, is(gracedb.ErrConnection), nil, "kafka.invalid")
		mu.Lock()
		t.Logf("%d look-ups in 20 s", asked)
		if asked > 200 {
			t.Error("that is a storm")
		}
		mu.Unlock()
		_ = p.Close()
		r.judge(t)
	})
}

func TestFault_N15_FirstHostDead(t *testing.T) {
	for name, dead := range map[string]func(context.Context) error{
		"refused": func(context.Context) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: kerr.BrokerNotAvailable}
		},
		"no such host": func(context.Context) error { return &net.DNSError{Err: "no such host", Name: "dead"} },
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				edit := func(c *gracedb.Cluster) {
					c.Brokers = append([]string{"dead.invalid:9092"}, c.Brokers...)
					c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						if strings.HasPrefix(addr, "dead.") {
							return nil, dead(ctx)
						}
						return r.Dial(ctx, network, addr)
					}
				}
				for range 10 {
					start := time.Now()
					p := r.producer(t, func(c *gracedb.ProducerConfig) { edit(&c.Cluster) })
					r.send(t, p, "k")
					within(t, "the first message", time.Since(start), time.Second)
					closeProducer(t, p)
				}
				r.judge(t)
			})
		})
	}
}

func TestFault_N16_ShortLivedConnections(t *testing.T) {
	topics := map[string]int{topic: 6}
	virtually(t, kafkatest.Config{Brokers: 3, Topics: topics}, func(t *testing.T, r *rig) {
		s := &shape{dial: r.Dial, life: between(rand.New(rand.NewPCG(1, 2)), 200*time.Millisecond, time.Second)}
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial, c.FlushTimeout = s.Dial, time.Minute })
		stop := r.traffic(t, p, 10, 11*time.Millisecond)
		time.Sleep(45 * time.Second)
		stop()
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[delivered] < 40_000 || n[failed]+n[unknown] > 0 {
			t.Errorf("%v", n)
		}
		t.Logf("%d connections", s.count())
	})
}

func TestFault_N18_OnlyAnswersHeldUp(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		s := &shape{dial: r.Dial}
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial, c.FlushTimeout = s.Dial, time.Minute })
		stop := r.traffic(t, p, 4, 20*time.Millisecond)
		time.Sleep(time.Second)
		release := s.hold()
		time.Sleep(10 * time.Second)
		release()
		within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
		stop()
		closeProducer(t, p)
		r.judge(t)
	})
}

func TestFault_N19_LinkDown(t *testing.T) {
	outage(t, kafkatest.Config{}, 3*time.Second, time.Second, func(r *rig) { r.Freeze() }, func(r *rig) { r.Thaw() })
}

// A flow that something in between has forgotten swallows all, in silence: the
// message itself finds that out, or a keep-warm request before it.
func TestFault_N20_FlowForgotten(t *testing.T) {
	for _, before := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				r.send(t, p, "k")
				r.Mute(kafkatest.MuteRequests | kafkatest.MuteResponses)
				lift := func() { r.Mute(0) } // for new connections
				if before > 0 {
					time.Sleep(before)
					lift()
				} else {
					time.AfterFunc(100*time.Millisecond, lift)
				}
				took := r.send(t, p, "k")
				within(t, "the next message", took, 25*time.Second)
				t.Logf("took %v", took)
				closeProducer(t, p)
				r.judge(t)
			})
		})
	}
}

// percentile returns the p-th of durations.
func percentile(d []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[int(p*float64(len(sorted)-1))]
}
