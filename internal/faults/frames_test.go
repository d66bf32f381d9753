package faults

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	judge "github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// allocating runs f and checks how many bytes it allocates, with all that the
// brokers in this process do.
func allocating(t *testing.T, bound uint64, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > bound {
		t.Errorf("%d MiB allocated", n>>20)
	}
}

// Lengths that no frame has.
func TestFault_X1_FrameLength(t *testing.T) {
	for _, length := range []int32{1<<31 - 1, 90 << 20, -1} {
		huge := func(count int, keys ...kmsg.Key) kafkatest.Fault {
			return kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: keys, Count: count}
		}
		for name, f := range map[string]func(*testing.T, *rig){
			"constructor": func(t *testing.T, r *rig) {
				for _, key := range []kmsg.Key{kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate, kmsg.Metadata} {
					i := r.Inject(huge(-1, key))
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: r.cluster("alice"), Topic: "test"})
					wantKinds(t, err, is(gracedb.ErrProducer), nil)
					t.Log(key.Name(), err)
					_, err = gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: r.cluster("alice"), Topics: []string{"test"}})
					wantKinds(t, err, is(gracedb.ErrConsumer), nil)
					t.Log(key.Name(), err)
					cancel()
					i.Remove()
				}
			},
			"acknowledgement": func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				once := r.Inject(huge(1, kmsg.Produce))
				r.send(t, p, "k")
				if once.Hits() != 1 {
					t.Error("the fault did not happen")
				}
				always := r.Inject(huge(-1, kmsg.Produce))
				took, err := r.try(t, p, "k", 3*time.Second)
				within(t, "ProduceSync", took, 3100*time.Millisecond)
				wantKinds(t, err, is(gracedb.ErrOutcomeUnknown), is(gracedb.ErrDelivery))
				t.Log(err)
				always.Remove()
				within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
				closeProducer(t, p)
				r.judge(t)
			},
			"fetch":       func(t *testing.T, r *rig) { hugeFetch(t, r, "", length) },
			"group fetch": func(t *testing.T, r *rig) { hugeFetch(t, r, "g", length) },
		} {
			t.Run(fmt.Sprint(name, " ", length), func(t *testing.T) {
				virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
					allocating(t, 40<<20, func() { f(t, r) })
				})
			})
		}
	}
}

// A frame that is too large ends the Stream, once, and ranging again goes on. One of a negative length is to the
// engine a connection that is out of step, which heals as all broken ones do.
func hugeFetch(t *testing.T, r *rig, group string, length int32) {
	// Before the first fetch, which the constructor begins and which waits for messages.
	i := r.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1})
	con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
	r.raw(t, topic, 0, numbers(0, 5)...)
	told := 0
	for start := time.Now(); time.Since(start) < 30*time.Second; {
		got, err := ranged(t, con, 1, 30*time.Second)
		if len(got) > 0 {
			t.Fatalf("got offset %d", got[0].Offset)
		}
		if err == nil {
			break
		}
		told++
		// A frame carries no topic, but what was to be read is known.
		wantKinds(t, err, is(gracedb.ErrConsumer), is(gracedb.ErrAuthentication),
			"kafka: fetching from "+strings.Join(r.Addrs(), ", ")+": ", fmt.Sprint(length), "topic "+topic+" partition 0 offset 0")
	}
	if want := min(max(length, 0), 1); told != int(want) {
		t.Errorf("told %d times, want %d", told, want)
	}
	if n := i.Hits(); n > 30*10 {
		t.Errorf("asked %d times in 30 s", n)
	}
	i.Remove()
	got, err := ranged(t, con, 5, time.Minute)
	if err != nil {
		t.Error(err)
	}
	wantOffsets(t, got, 0, 5)
}

// What comes instead of an answer is no Kafka, or belongs to another request: a new
// connection heals it, and nothing is lost or said twice. For as long as it lasts,
// calls return when their ctx ends.
func TestFault_X2_Garbage(t *testing.T) {
	for name, do := range map[string]kafkatest.Action{"random bytes": kafkatest.GarbageResponse, "another's answer": kafkatest.StrayResponse} {
		t.Run(name, func(t *testing.T) {
			both(t, kafkatest.Config{Topics: map[string]int{topic: 3}}, func(t *testing.T, r *rig, group string) {
				p := r.producer(t, nil)
				con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
				received := make(chan int)
				ctx, stop := context.WithCancel(t.Context())
				go func() {
					seen := make(map[string]bool)
					for ctx.Err() == nil {
						// Random bytes may look like a frame that is too large, which is told.
						if m, err := con.Poll(ctx); err == nil {
							seen[fmt.Sprint(m.Partition, "/", m.Offset)] = true
						}
					}
					received <- len(seen)
				}()
				for range 10 {
					for _, keys := range [][]kmsg.Key{{kmsg.Produce}, {kmsg.Fetch}, {kmsg.Metadata}, {kmsg.Heartbeat, kmsg.OffsetCommit, kmsg.OffsetFetch}, nil} {
						r.Inject(kafkatest.Fault{Do: do, Keys: keys})
						r.send(t, p, "k")
						time.Sleep(500 * time.Millisecond)
					}
				}
				always := r.Inject(kafkatest.Fault{Do: do, Count: -1})
				took, err := r.try(t, p, "k", 2*time.Second)
				within(t, "ProduceSync", took, 2100*time.Millisecond)
				wantKinds(t, err, is(gracedb.ErrProducer), nil)
				t.Log(err)
				short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				start := time.Now()
				_, err = gracedb.NewConsumer(short, gracedb.ConsumerConfig{Cluster: r.cluster("bob"), Topics: []string{"test"}, GroupID: group})
				cancel()
				within(t, "NewConsumer", time.Since(start), 2100*time.Millisecond)
				wantKinds(t, err, is(gracedb.ErrConsumer), nil)
				t.Log(err)
				always.Remove()
				within(t, "the first acknowledgement", r.firstAck(t, p), 6*time.Second) // random bytes may announce more of them
				closeProducer(t, p)
				r.judge(t)
				time.Sleep(20 * time.Second)
				stop()
				if got, want := <-received, len(r.records(t)); got != want {
					t.Errorf("received %d of %d", got, want)
				}
			})
		})
	}
}

// The broker's limit counts the compressed batch. What does not fit is refused with
// its size and the limit, what fits only compressed gets through, and what waits
// behind or is sent meanwhile is not harmed.
func TestFault_B11_MessageTooLarge(t *testing.T) {
	const limit = 100_000
	for name, edit := range map[string]func(*rig){
		"limit known":  func(*rig) {},
		"limit hidden": hideLimit,
	} {
		t.Run(name, func(t *testing.T) {
			// On the real clock: the engine leaves zstd's decoders, and their channels,
			// to finalizers, which are in no bubble.
			r := newRig(t, kafkatest.Config{Topics: map[string]int{topic: 2}, TopicMaxMessageBytes: map[string]int{topic: limit}})
			edit(r)
			p := r.producer(t, nil)
			stop := r.traffic(t, p, 4, 5*time.Millisecond)
			for range 10 {
				good := r.begin("compressible")
				good.Value = append(append(good.Value, ' '), make([]byte, 5*limit)...)
				got, err := p.ProduceSync(t.Context(), good)
				r.end(t, good, got, err)
				if err != nil {
					t.Error(err)
				}
				bad := r.begin("incompressible")
				bad.Value = append(bad.Value, judge.Noise(2*limit)...)
				size := len(bad.Key) + len(bad.Value)
				_, err = p.ProduceSync(t.Context(), bad)
				r.end(t, bad, gracedb.Message{}, err)
				wantKinds(t, err, is(gracedb.ErrTooLarge, gracedb.ErrDelivery, kerr.MessageTooLarge), is(gracedb.ErrOutcomeUnknown), topic, fmt.Sprint(size))
				if name == "limit known" && !strings.Contains(err.Error(), fmt.Sprint(limit)) {
					t.Errorf("%v does not name the limit, %d", err, limit)
				}
			}
			stop()
			closeProducer(t, p)
			r.judge(t)
			if n := r.count(); n[failed] != 10 || n[unknown] > 0 {
				t.Errorf("%v", n)
			}
		})
	}
}

// A message that the broker refuses fails alone, and for certain: near the broker nothing is
// in flight behind it, and what is far away is out of order to the broker, and sent again.
// So it is to a broker that has forgotten the producer, and takes what was behind as it
// comes: each batch has an answer of its own.
func TestFault_B11_MessagesBehind(t *testing.T) {
	const limit = 100_000
	for name, refuse := range map[string]func(*rig){
		"too large": func(*rig) {},
		"not valid": func(r *rig) { r.Fail(kfake.Fault{Keys: produces, Topic: topic, Err: kerr.InvalidRecord, Count: 1}) },
	} {
		behind(t, name, kafkatest.Config{Topics: map[string]int{topic: 1}, TopicMaxMessageBytes: map[string]int{topic: limit}}, func(t *testing.T, r *rig, produce func(context.Context, gracedb.Message)) {
			refuse(r)
			r.Freeze()
			for i := range 4 {
				m := r.begin("key")
				if i == 0 && name == "too large" {
					m.Value = append(m.Value, judge.Noise(2*limit)...)
				}
				produce(t.Context(), m)
				time.Sleep(20 * time.Millisecond) // each in a batch of its own, if it is sent at once
			}
			r.Thaw()
		})
	}
}

// The same when the first is given up while it is on its way, and not taken by the broker.
func TestFault_B14_GivenUpBeforeOthers(t *testing.T) {
	behind(t, "given up", kafkatest.Config{}, func(t *testing.T, r *rig, produce func(context.Context, gracedb.Message)) {
		r.Fail(kfake.Fault{Keys: produces, Topic: topic, Err: kerr.CorruptMessage, Count: 1})
		r.Freeze()
		first, giveUp := context.WithCancel(t.Context())
		for i := range 4 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			produce(ctx, r.begin("key"))
			time.Sleep(20 * time.Millisecond)
		}
		giveUp()
		r.Thaw()
	})
}

// behind judges what send does with four messages of a key, the first of which the broker
// does not take: it fails, and the others arrive in their order.
func behind(t *testing.T, name string, cfg kafkatest.Config, send func(*testing.T, *rig, func(context.Context, gracedb.Message))) {
	for _, far := range []bool{false, true} {
		for _, forgotten := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, far %v, forgotten %v", name, far, forgotten), func(t *testing.T) {
				virtually(t, cfg, func(t *testing.T, r *rig) {
					hideLimit(r) // or a message that is too large would be compressed before it is sent
					s := &shape{dial: r.Dial}
					if far {
						s.latency = func() time.Duration { return 25 * time.Millisecond }
					}
					p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial = s.Dial })
					r.send(t, p, "before")
					if forgotten {
						r.ForgetProducers()
					}
					codes := r.produceCodes()
					var first error
					i := 0
					send(t, r, func(ctx context.Context, m gracedb.Message) {
						isFirst := i == 0
						i++
						if err := p.Produce(ctx, m, func(got gracedb.Message, err error) {
							r.end(t, m, got, err)
							if isFirst {
								first = err
							}
						}); err != nil {
							t.Fatal(err)
						}
					})
					time.Sleep(time.Minute)
					closeProducer(t, p)
					r.judge(t)
					wantKinds(t, first, is(gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown))
					if n, want := r.count(), (map[judge.Outcome]int{delivered: 4, failed: 1}); !maps.Equal(n, want) {
						t.Errorf("%v, want %v", n, want)
					}
					if n := codes(kerr.OutOfOrderSequenceNumber); (n > 0) != (far && !forgotten) {
						t.Errorf("%d batches were out of order", n)
					}
				})
			})
		}
	}
}

// A message is refused for its size while another partition's leader is silent: it is
// no reason for the partition's others to wait for that.
func TestRefusalBesideASilentLeader(t *testing.T) {
	const limit = 100_000
	r := newRig(t, kafkatest.Config{Brokers: 2, Topics: map[string]int{topic: 2}, TopicMaxMessageBytes: map[string]int{topic: limit}})
	hideLimit(r)
	for part := range int32(2) {
		if err := r.MoveLeader(topic, part, part); err != nil {
			t.Fatal(err)
		}
	}
	p := r.producer(t, nil)
	keys := make(map[int32]string)
	for i := 0; len(keys) < 2; i++ {
		m := r.begin(fmt.Sprint("key", i))
		got, err := p.ProduceSync(t.Context(), m)
		r.end(t, m, got, err)
		keys[got.Partition] = string(m.Key)
	}
	r.Freeze(1)
	m := r.begin(keys[1])
	stuck := make(chan error, 1)
	err := p.Produce(t.Context(), m, func(got gracedb.Message, err error) { r.end(t, m, got, err); stuck <- err })
	if err != nil {
		t.Fatal(err)
	}
	bad := r.begin(keys[0])
	bad.Value = append(bad.Value, judge.Noise(2*limit)...)
	_, err = p.ProduceSync(t.Context(), bad)
	r.end(t, bad, gracedb.Message{}, err)
	wantKinds(t, err, is(gracedb.ErrTooLarge, gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown))
	for range 3 {
		within(t, "a message to the other leader", r.send(t, p, keys[0]), 5*time.Second)
	}
	select {
	case err := <-stuck:
		t.Errorf("the silent leader has answered: %v", err)
	default:
	}
	r.Thaw()
	if err := <-stuck; err != nil {
		t.Error(err)
	}
	closeProducer(t, p)
	r.judge(t)
}

// hideLimit lets nobody read how large a message of a topic may be.
func hideLimit(r *rig) {
	r.Inject(kafkatest.Fault{
		Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.DescribeConfigs}, Count: -1,
		Rewrite: func(_ kmsg.Request, resp kmsg.Response) { resp.(*kmsg.DescribeConfigsResponse).Resources = nil },
	})
}

// produceCodes counts, from now on, the answers to batches by their codes.
func (r *rig) produceCodes() (count func(*kerr.Error) int) {
	var mu sync.Mutex
	n := make(map[int16]int)
	r.Inject(kafkatest.Fault{
		Do: kafkatest.RewriteResponse, Keys: produces, Count: -1,
		Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
			mu.Lock()
			defer mu.Unlock()
			for _, t := range resp.(*kmsg.ProduceResponse).Topics {
				for _, p := range t.Partitions {
					n[p.ErrorCode]++
				}
			}
		},
	})
	return func(e *kerr.Error) int {
		mu.Lock()
		defer mu.Unlock()
		return n[e.Code]
	}
}

// The order of a key is kept while messages beside it are refused for their size.
func TestOrderAroundRefusals(t *testing.T) {
	const limit = 100_000
	r := newRig(t, kafkatest.Config{Topics: map[string]int{topic: 1}, TopicMaxMessageBytes: map[string]int{topic: limit}})
	hideLimit(r)
	p := r.producer(t, nil)
	r.send(t, p, "before")
	stop := r.traffic(t, p, 4, time.Millisecond)
	for range 5 {
		m := r.begin("incompressible")
		m.Value = append(m.Value, judge.Noise(2*limit)...)
		_, err := p.ProduceSync(t.Context(), m)
		r.end(t, m, gracedb.Message{}, err)
		wantKinds(t, err, is(gracedb.ErrTooLarge, gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown))
	}
	stop()
	closeProducer(t, p)
	r.judge(t)
	if n := r.count(); n[failed] != 5 || n[unknown] > 0 {
		t.Errorf("%v", n)
	}
}

// Messages that queue up while the broker is down come in no batch that exceeds its
// limit, if each of them fits: after an outage nobody knows of a refused batch
// whether it was written at an earlier try.
func TestBatchesFit(t *testing.T) {
	const limit = 100_000
	for name, sizes := range map[string][]int{
		"small": {1, 10, 100}, "mixed": {7, 40_000, 300, 9000, 60_000, 1}, "at the limit": {10, limit - 200, limit - 200, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, kafkatest.Config{Topics: map[string]int{topic: 2}, TopicMaxMessageBytes: map[string]int{topic: limit}}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				r.send(t, p, "k")
				refused := 0
				r.Inject(kafkatest.Fault{
					Do: kafkatest.RewriteResponse, Keys: produces, Count: -1,
					Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
						for _, t := range resp.(*kmsg.ProduceResponse).Topics {
							for _, p := range t.Partitions {
								if p.ErrorCode != 0 {
									refused++
								}
							}
						}
					},
				})
				r.Freeze()
				total := 0
				for i := 0; total < 20*limit && i < 5000; i++ {
					m := r.begin(fmt.Sprint("key", i%3))
					m.Value = append(m.Value, judge.Noise(sizes[i%len(sizes)])...)
					m.Headers = []gracedb.Header{{Key: "h", Value: []byte("v")}, {Key: "h"}}
					total += len(m.Value)
					err := p.Produce(t.Context(), m, func(got gracedb.Message, err error) { r.end(t, brief(m), got, err) })
					if err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				r.Thaw()
				closeProducer(t, p)
				r.judge(t)
				if n := r.count(); n[failed]+n[unknown] != 0 || refused != 0 {
					t.Errorf("%v, %d batches refused", n, refused)
				}
			})
		})
	}
}
