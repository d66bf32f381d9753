package faults

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// Answers to every kind of request that are of the right form and say anything at
// all: no call hangs past its ctx, nothing panics, every message has one outcome.
func TestFault_X5_RandomAnswers(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { randomAnswers(t, seed) })
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(randomAnswers)
}

func randomAnswers(t *testing.T, seed uint64) {
	// What spins keeps virtual time from passing, and the test's own limit with it.
	watchdog := time.AfterFunc(2*time.Minute, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprint("hangs with seed ", seed))
	})
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 5))
		c, err := kafkatest.Start(kafkatest.Config{
			Virtual: true, Plaintext: true, Brokers: 2, Topics: map[string]int{topic: 3}, MaxSession: 4 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		r := &rig{Cluster: c, history: newHistory()}
		use := r.users(t, random.IntN(2) == 0)
		s := &scrambler{random: random, rarely: 1 << random.IntN(7)}
		c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) { s.scramble(resp) }})
		var wg sync.WaitGroup
		for _, f := range use {
			wg.Go(func() {
				for start := time.Now(); time.Since(start) < 10*time.Second; {
					ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
					begun := time.Now()
					what := f(ctx)
					cancel()
					within(t, what, time.Since(begun), 800*time.Millisecond)
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
	})
}

// users returns calls to clients that are, or are not, in position before the
// answers go wrong.
//
// The log cannot judge what became of their messages, since answers lie: one that is an
// acknowledgement may have been a refusal, a refusal may follow an append, and a
// producer that is given another id sends again what the log has. But whatever brokers
// say, each call is told one thing, once, and what Produce refuses is never sent.
func (r *rig) users(t *testing.T, lazy bool) []func(context.Context) string {
	refused := make(map[string]bool) // never accepted
	p := r.producer(t, func(c *gracedb.ProducerConfig) {
		c.Cluster.Plaintext, c.Lazy, c.FlushTimeout = true, lazy, 2*time.Second
	})
	t.Cleanup(func() {
		start := time.Now()
		_ = p.Close()
		within(t, "Producer.Close", time.Since(start), 2200*time.Millisecond)
		if n := r.count()[pending]; n > 0 {
			t.Errorf("%d messages have no outcome", n)
		}
		for _, rec := range r.records(t) {
			if refused[string(rec.Value)] {
				t.Errorf("Produce refused %s, and it is in the log", rec.Value)
			}
		}
		t.Logf("%v, of which Produce refused %d", r.count(), len(refused))
	})
	plain := r.cluster("carol")
	plain.Plaintext = true
	use := []func(context.Context) string{
		func(ctx context.Context) string {
			m := r.message("sync")
			got, err := p.ProduceSync(ctx, m)
			r.end(t, m, got, err)
			return "ProduceSync"
		},
		func(ctx context.Context) string {
			m := r.message("async")
			if err := p.Produce(ctx, m, func(got gracedb.Message, err error) { r.end(t, m, got, err) }); err != nil {
				r.end(t, m, gracedb.Message{}, err)
				refused[string(m.Value)] = true
			}
			return "Produce"
		},
		func(ctx context.Context) string { _ = p.Flush(ctx); return "Flush" },
		func(ctx context.Context) string { _, _ = p.Ping(ctx, ""); return "Ping" },
		func(ctx context.Context) string { _ = p.Check(ctx); return "Producer.Check" },
		func(ctx context.Context) string {
			if p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: plain, Topic: "test", FlushTimeout: time.Millisecond}); err == nil {
				_ = p.Close()
			}
			return "NewProducer"
		},
		func(ctx context.Context) string {
			if c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: plain, Topics: []string{"test"}}); err == nil {
				_ = c.Close()
			}
			return "NewConsumer"
		},
	}
	for _, group := range withAndWithout {
		c := r.consumer(t, func(c *gracedb.ConsumerConfig) {
			c.Cluster.Plaintext, c.GroupID, c.Lazy = true, group, lazy
		})
		t.Cleanup(func() {
			start := time.Now()
			_ = c.Close()
			within(t, "Consumer.Close", time.Since(start), 3*time.Second)
		})
		calls := 0
		use = append(use,
			func(ctx context.Context) string {
				switch calls++; calls % 7 {
				case 0:
					_ = c.Commit(ctx)
					return "Commit"
				case 1:
					_ = c.Subscribe(ctx, fmt.Sprint("no", calls))
					return "Subscribe"
				}
				_, _ = c.Poll(ctx)
				return "Poll"
			},
			func(ctx context.Context) string { _ = c.Check(ctx); return "Consumer.Check" })
	}
	return use
}

// message begins a message without a key.
func (r *rig) message(name string) gracedb.Message {
	m := r.begin(name)
	m.Key = nil
	return m
}

// A scrambler changes what is in answers.
type scrambler struct {
	mu     sync.Mutex
	random *rand.Rand
	rarely int // one in so many values is changed
}

func (s *scrambler) scramble(resp kmsg.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value(reflect.ValueOf(resp).Elem())
}

func (s *scrambler) hit() bool { return s.random.IntN(s.rarely) == 0 }

var (
	oddNumbers = []int64{0, 1, -1, 2, 3, -2, 7, 58, 100, 1 << 10, 1 << 20, math.MaxInt16, math.MinInt16, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64}
	oddNames   = []string{"", "x", topic, "gracedb-test.other", "localhost", "\x00\n\x1b[2J", "eyJhbGciOiJub25lIn0.e30.c2ln", "range", "consumer"}
)

func (s *scrambler) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Version" && name != "UnknownTags" {
				s.value(v.Field(i))
			}
		}
	case reflect.Bool:
		if s.hit() {
			v.SetBool(!v.Bool())
		}
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if s.hit() {
			n := oddNumbers[s.random.IntN(len(oddNumbers))]
			if v.Kind() == reflect.Int16 && s.random.IntN(2) == 0 {
				n = s.random.Int64N(140) - 1 // an error code
			}
			v.SetInt(n << (64 - v.Type().Bits()) >> (64 - v.Type().Bits()))
		}
	case reflect.String:
		if s.hit() {
			v.SetString(oddNames[s.random.IntN(len(oddNames))])
		}
	case reflect.Pointer:
		if v.IsNil() || s.hit() {
			v.SetZero()
		} else {
			s.value(v.Elem())
		}
	case reflect.Array:
		if s.hit() && v.Type().Elem().Kind() == reflect.Uint8 {
			v.Index(s.random.IntN(v.Len())).SetUint(uint64(s.random.IntN(256)))
		}
	case reflect.Slice:
		s.slice(v)
	}
}

func (s *scrambler) slice(v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		if s.hit() && v.Len() > 0 {
			b := append([]byte(nil), v.Bytes()...)
			b[s.random.IntN(len(b))] = byte(s.random.Uint32())
			v.SetBytes(b[:1+s.random.IntN(len(b))])
		}
		return
	}
	if s.hit() {
		switch n := v.Len(); s.random.IntN(4) {
		case 0:
			v.SetZero()
		case 1:
			v.Set(v.Slice(0, n-min(n, 1)))
		case 2:
			v.Set(reflect.AppendSlice(v.Slice3(0, n, n), v))
		case 3:
			v.Set(reflect.Append(v.Slice3(0, n, n), reflect.Zero(v.Type().Elem())))
		}
	}
	for i := range v.Len() {
		s.value(v.Index(i))
	}
}
