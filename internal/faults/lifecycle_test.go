package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// After Close every call says so, at once and without a broker.
func TestFault_F1_AfterClose(t *testing.T) {
	both(t, kafkatest.Config{}, func(t *testing.T, r *rig, group string) {
		p := r.producer(t, nil)
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
		r.send(t, p, "k")
		closeProducer(t, p)
		if err := con.Close(); err != nil {
			t.Error(err)
		}
		r.Freeze()
		defer r.Thaw()
		ctx := context.Background()
		done := func(gracedb.Message, error) { t.Error("done is called") }
		for name, call := range map[string]func() error{
			"Produce":            func() error { return p.Produce(ctx, gracedb.Message{}, done) },
			"ProduceSync":        func() error { _, err := p.ProduceSync(ctx, gracedb.Message{}); return err },
			"Ping":               func() error { _, err := p.Ping(ctx, ""); return err },
			"Producer.Check":     func() error { return p.Check(ctx) },
			"Poll":               func() error { _, err := con.Poll(ctx); return err },
			"Stream":             func() error { return streamed(t, con) },
			"Subscribe":          func() error { return con.Subscribe(ctx, "other") },
			"Subscribe to known": func() error { return con.Subscribe(ctx, "test") },
			"Commit":             func() error { return con.Commit(ctx) },
			"Consumer.Check":     func() error { return con.Check(ctx) },
		} {
			start := time.Now()
			err := call()
			within(t, name, time.Since(start), 0)
			wantKinds(t, err, is(gracedb.ErrClosed, gracedb.ErrKafka), is(gracedb.ErrOutcomeUnknown, gracedb.ErrConnection), "closed")
		}
		if err := p.Flush(ctx); err != nil || p.Pending() != 0 {
			t.Errorf("Flush: %v, with %d pending", err, p.Pending())
		}
		r.judge(t)
	})
}

// streamed returns the error that a Stream ends with, which is its only pair.
func streamed(t testing.TB, c *gracedb.Consumer) (last error) {
	pairs := 0
	for _, err := range c.Stream(context.Background()) {
		pairs++
		last = err
	}
	if pairs != 1 {
		t.Errorf("%d pairs", pairs)
	}
	return last
}

// A hundred callers close a producer in the midst of its work: none is told of an
// error, and what was accepted is delivered.
func TestFault_F2_ProducerClosedAtOnce(t *testing.T) {
	r := newRig(t, kafkatest.Config{})
	for round := range 20 {
		p := r.producer(t, nil)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for r.async(t, context.Background(), p, fmt.Sprint("round", round, "sender", i)) == nil {
				}
			})
		}
		time.Sleep(time.Duration(round) * time.Millisecond / 4)
		closeAtOnce(t, p.Close)
		wg.Wait()
		if p.Pending() != 0 {
			t.Errorf("%d pending", p.Pending())
		}
	}
	r.judge(t)
	for value, s := range r.sends() {
		if s.Err != nil && !errors.Is(s.Err, gracedb.ErrClosed) {
			t.Errorf("%s: %v", value, s.Err)
		}
	}
}

// The same with a consumer that is read from.
func TestFault_F2_ConsumerClosedAtOnce(t *testing.T) {
	r := newRig(t, kafkatest.Config{})
	r.raw(t, topic, 0, numbers(0, 2000)...)
	for round := range 20 {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) {
			c.FromBeginning = true
			if round%2 == 0 {
				c.GroupID = fmt.Sprint("g", round)
			}
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := con.Poll(context.Background()); err != nil {
					wantKinds(t, err, is(gracedb.ErrClosed, gracedb.ErrConsumer), nil)
					return
				}
			}
		})
		wg.Go(func() {
			for {
				if err := con.Check(context.Background()); err != nil {
					wantKinds(t, err, is(gracedb.ErrClosed, gracedb.ErrConsumer), nil)
					return
				}
			}
		})
		time.Sleep(time.Duration(round) * time.Millisecond / 2)
		start := time.Now()
		closeAtOnce(t, con.Close)
		wg.Wait()
		within(t, "Close", time.Since(start), 10*time.Second)
	}
}

func closeAtOnce(t testing.TB, closeIt func() error) {
	t.Helper()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for range 2 {
				if err := closeIt(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// Flush ends with its ctx, says how many messages are not settled, and of how many it is
// not certain that they were not written, and can be called again.
func TestFault_F3_FlushTimeout(t *testing.T) {
	for name, fault := range map[string]func(*rig) (sent int, heal func()){
		"frozen":  func(r *rig) (int, func()) { r.Freeze(); return 1, func() { r.Thaw() } },
		"mute":    func(r *rig) (int, func()) { r.Mute(kafkatest.MuteResponses); return 1, func() { r.Mute(0) } },
		"refused": func(r *rig) (int, func()) { r.Refuse(); r.Drop(kafkatest.RST); return 0, func() { _ = r.Accept() } },
		"token refused": func(r *rig) (int, func()) {
			r.RefuseTokens(kafkatest.Refusal{})
			r.Drop(kafkatest.RST)
			return 0, func() { r.AcceptTokens() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				sent, heal := fault(r)
				says := "none was sent so far, and all will be: do not produce them again"
				if sent > 0 {
					says = fmt.Sprint(sent, " of them may have been written, and the others will be: do not produce them again")
				}
				for n := 1; n <= 3; n++ {
					if err := r.async(t, t.Context(), p, "k"); err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*300*time.Millisecond)
					start := time.Now()
					err := p.Flush(ctx)
					cancel()
					if took := time.Since(start); took != time.Duration(n)*300*time.Millisecond {
						t.Errorf("Flush took %v", took)
					}
					wantKinds(t, err, is(gracedb.ErrOutcomeUnknown, context.DeadlineExceeded), is(gracedb.ErrDelivery), fmt.Sprint(n, " message"), says)
				}
				heal()
				if err := p.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				closeProducer(t, p)
				r.judge(t)
				if n := r.count(); n[delivered] != 3 {
					t.Errorf("%v", n)
				}
			})
		})
	}
}

// A message whose ctx is done is not sent, whether or not there is room for it.
func TestFault_F4_CtxDoneBefore(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.MaxBufferedBytes = 1700 })
		r.send(t, p, "k")
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		expired, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		<-expired.Done()
		refused := func(t *testing.T) {
			t.Helper()
			for _, ctx := range []context.Context{canceled, expired} {
				requests, pending := r.Requests()[kmsg.Produce], p.Pending()
				for _, call := range []func() error{
					func() error { return r.async(t, ctx, p, "refused") },
					func() error {
						m := r.begin("refused")
						_, err := p.ProduceSync(ctx, m)
						r.end(t, m, gracedb.Message{}, err)
						return err
					},
					func() error { _, err := p.Ping(ctx, ""); return err },
				} {
					start := time.Now()
					err := call()
					within(t, "the call", time.Since(start), 0)
					wantKinds(t, err, is(ctx.Err(), gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown), topic)
				}
				synctest.Wait()
				if n := r.Requests()[kmsg.Produce] - requests; n != 0 || p.Pending() != pending {
					t.Errorf("%d requests; %d pending, before %d", n, p.Pending(), pending)
				}
			}
		}
		refused(t)
		r.Freeze()
		for _, size := range []int{400, 200} {
			m := r.begin("k")
			m.Value = append(m.Value, append([]byte(" "), make([]byte, size)...)...)
			if err := p.Produce(t.Context(), m, func(got gracedb.Message, err error) { r.end(t, m, got, err) }); err != nil {
				t.Fatal(err)
			}
		}
		refused(t)
		r.Thaw()
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[delivered] != 3 || n[failed] != 8 {
			t.Errorf("%v", n)
		}
	})
}

// Breaking out of a Stream leaves nothing behind, and ranging again goes on behind
// the message at which it broke.
func TestFault_F6_BreakOutOfStream(t *testing.T) {
	for _, group := range withAndWithout {
		t.Run("group="+group, func(t *testing.T) {
			r := newRig(t, kafkatest.Config{})
			r.raw(t, topic, 0, numbers(0, 501)...)
			r.writer.Close() // it opens connections of its own accord
			before := inUse(t)
			con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID, c.FromBeginning = group, true })
			var got []gracedb.Message
			stream := func(n int) {
				for m, err := range con.Stream(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					if got = append(got, m); len(got)%n == 0 {
						break
					}
				}
			}
			stream(1)
			running := runtime.NumGoroutine()
			for range 500 {
				stream(1)
			}
			// A request may be under way, but not one for each stream.
			if n := runtime.NumGoroutine(); n > running+20 {
				t.Errorf("%d goroutines after 500 more streams, before %d", n, running)
			}
			wantOffsets(t, got, 0, 501)
			if err := con.Close(); err != nil {
				t.Error(err)
			}
			before.restored(t)
		})
	}
}

// A usage is what a program holds.
type usage struct{ goroutines, files int }

func inUse(t testing.TB) usage {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no list of open files: ", err)
	}
	return usage{runtime.NumGoroutine(), len(files)}
}

// restored waits until no more is in use than before: the brokers' ends of the
// connections are in this process, too, and end a little later.
func (before usage) restored(t testing.TB) {
	t.Helper()
	var now usage
	for start := time.Now(); time.Since(start) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		if now = inUse(t); now.goroutines <= before.goroutines && now.files <= before.files {
			return
		}
	}
	stacks := make([]byte, 64<<10)
	t.Errorf("in use: %+v, before: %+v\n%s", now, before, stacks[:runtime.Stack(stacks, true)])
}

// A thousand producers and consumers that are opened, used and closed leave nothing
// behind.
func TestFault_F7_OpenUseClose(t *testing.T) {
	cycles, most := 1000, int64(10_000)
	if raced { // when all this takes ten times as long; the run without does the whole number
		cycles = 100
	}
	r := newRig(t, kafkatest.Config{})
	openUseClose(t, r, 50)
	before, heap := inUse(t), liveHeap()
	openUseClose(t, r, cycles)
	before.restored(t)
	grown := (int64(liveHeap()) - int64(heap)) / int64(cycles)
	t.Logf("%d bytes a cycle", grown)
	if grown > most && !raced {
		t.Errorf("%d bytes a cycle, want at most %d", grown, most)
	}
}

// openUseClose opens a producer and a consumer, in every second cycle of a group,
// uses them and closes them.
func openUseClose(t testing.TB, r *rig, cycles int) {
	t.Helper()
	for i := range cycles {
		cfg := gracedb.ConsumerConfig{Cluster: r.cluster("bob"), Topics: []string{"test"}}
		if i%2 == 0 {
			cfg.GroupID = "g"
		}
		con, err := gracedb.NewConsumer(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: r.cluster("alice"), Topic: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.ProduceSync(t.Context(), gracedb.Message{Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if _, err := take(t, con, 1); err != nil {
			t.Fatal(err)
		}
		if err := con.Close(); err != nil {
			t.Error(err)
		}
		closeProducer(t, p)
	}
}

// liveHeap returns how many bytes are in use after garbage collection.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
