package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
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

// A frame that is too large is told, once. One of a negative length is to the
// engine a connection that is out of step, which heals as all broken ones do.
func hugeFetch(t *testing.T, r *rig, group string, length int32) {
	// Before the first fetch, which the constructor begins and which waits for messages.
	i := r.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1})
	con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
	r.raw(t, topic, 0, numbers(0, 5)...)
	told := 0
	for start := time.Now(); time.Since(start) < 30*time.Second; {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err := con.Poll(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		told++
		wantKinds(t, err, is(gracedb.ErrConsumer), is(gracedb.ErrAuthentication), r.Addrs()[0])
		t.Log(err)
	}
	if want := min(max(length, 0), 1); told != int(want) {
		t.Errorf("told %d times, want %d", told, want)
	}
	if n := i.Hits(); n > 30*10 {
		t.Errorf("asked %d times in 30 s", n)
	}
	i.Remove()
	got, err := take(t, con, 5)
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
		"limit known": func(*rig) {},
		"limit hidden": func(r *rig) {
			r.Inject(kafkatest.Fault{
				Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.DescribeConfigs}, Count: -1,
				Rewrite: func(_ kmsg.Request, resp kmsg.Response) { resp.(*kmsg.DescribeConfigsResponse).Resources = nil },
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			// On the real clock: the engine leaves zstd's decoders, and their channels,
			// to finalizers, which are in no bubble.
			r := newRig(t, kafkatest.Config{Topics: map[string]int{topic: 2}, TopicMaxMessageBytes: map[string]int{topic: limit}})
			edit(r)
			p := r.producer(t, nil)
			stop := r.traffic(t, p, 4, 5*time.Millisecond)
			random := rand.NewChaCha8([32]byte{1})
			for range 10 {
				good := r.begin("compressible")
				good.Value = append(append(good.Value, ' '), make([]byte, 5*limit)...)
				got, err := p.ProduceSync(t.Context(), good)
				r.end(t, good, got, err)
				if err != nil {
					t.Error(err)
				}
				bad := r.begin("incompressible")
				noise := make([]byte, 2*limit)
				_, _ = random.Read(noise)
				bad.Value = append(append(bad.Value, ' '), noise...)
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
				random := rand.NewChaCha8([32]byte{2})
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
					noise := make([]byte, sizes[i%len(sizes)])
					_, _ = random.Read(noise)
					m.Value = append(append(m.Value, ' '), noise...)
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
