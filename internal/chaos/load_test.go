//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/history"
)

// A publisher is a gracedb.Producer, or what it is compared with.
type publisher interface {
	Produce(ctx context.Context, m gracedb.Message, done func(gracedb.Message, error)) error
	ProduceSync(ctx context.Context, m gracedb.Message) (gracedb.Message, error)
	Close() error
}

// The ways to send.
const (
	longCtx  = "ProduceSync, 30 s"
	shortCtx = "ProduceSync, 20-500 ms"
	async    = "Produce"
	shortly  = "Produce, withdrawn after 20-500 ms"
)

// A load is what publishes while things go wrong.
type load struct {
	history *history.History
	seed    uint64
	end     chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	lanes   []*lane
	acks    atomic.Int64 // when the last acknowledgement came, by clock

	unopened causes // of producers that could not be opened

	mu   sync.Mutex
	over map[string]time.Duration // by call: the worst time past its ctx, or past its promise
}

var began = time.Now()

// clock is a time that atomics can hold.
func clock() int64 { return int64(time.Since(began)) }

func newLoad(h *history.History, seed uint64) *load {
	return &load{history: h, seed: seed, end: make(chan struct{}), over: make(map[string]time.Duration)}
}

// A lane is a sender of messages, one after the other, with a key of its own or
// with none: with keys on their way ctx withdraws nothing.
type lane struct {
	key   string // in the history, if loose the beginning of it
	loose bool
	sent  int
	how   string
	every time.Duration
	rand  *rand.Rand
	acked atomic.Int64 // when its last acknowledgement came
}

// newLane returns a lane whose choices follow from the run's seed and its number. The
// plan's own are those of a small number.
func (l *load) newLane(key, how string, number uint64) *lane {
	return &lane{key: key, how: how, every: 160 * time.Millisecond, rand: rand.New(rand.NewPCG(l.seed, 1000+number))}
}

// What a lane sends follows from the seed.
func TestLane(t *testing.T) {
	sent := func(seed, number uint64) lengths {
		l := newLoad(history.New(), seed)
		lane := l.newLane("k", async, number)
		var s lengths
		for range 20 {
			l.send(&s, lane)
		}
		return s
	}
	first := sent(7, 1)
	if again := sent(7, 1); !slices.Equal(first, again) {
		t.Errorf("%d, then %d", first, again)
	}
	if slices.Equal(first, sent(8, 1)) || slices.Equal(first, sent(7, 2)) {
		t.Error("the seed or the number does not matter")
	}
}

// lengths are those of the messages that were sent.
type lengths []int

func (s *lengths) Produce(_ context.Context, m gracedb.Message, done func(gracedb.Message, error)) error {
	*s = append(*s, len(m.Value))
	done(m, nil)
	return nil
}

func (s *lengths) ProduceSync(_ context.Context, m gracedb.Message) (gracedb.Message, error) {
	return m, nil
}
func (s *lengths) Close() error { return nil }

// start sends through p in every way, 25 messages a second.
func (l *load) start(name string, p publisher, loose bool) {
	for i, how := range []string{async, shortly, longCtx, shortCtx} {
		lane := l.newLane(fmt.Sprintf("%s-%d", name, i), how, uint64(1+len(l.lanes)))
		lane.loose = loose
		l.lanes = append(l.lanes, lane)
		l.wg.Go(func() {
			tick := time.NewTicker(lane.every)
			defer tick.Stop()
			for {
				select {
				case <-l.end:
					return
				case <-tick.C:
					l.send(p, lane)
				}
			}
		})
	}
}

func (l *load) send(p publisher, lane *lane) {
	key := lane.key
	if lane.loose {
		key = fmt.Sprintf("%s.%d", lane.key, lane.sent) // nothing is promised of their order
	}
	lane.sent++
	m := l.history.Begin(key)
	if lane.loose {
		m.Key = nil
	}
	m.Value = append(m.Value, " "+strings.Repeat("x", lane.rand.IntN(1500))...)
	limit := 30 * time.Second
	if lane.how == shortCtx || lane.how == shortly {
		limit = 20*time.Millisecond + time.Duration(lane.rand.Int64N(int64(480*time.Millisecond)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	done := func(got gracedb.Message, err error) {
		cancel()
		l.history.End(m, got, err)
		if err == nil {
			now := clock()
			lane.acked.Store(now)
			l.acks.Store(now)
		}
	}
	start := time.Now()
	if lane.how == longCtx || lane.how == shortCtx {
		got, err := p.ProduceSync(ctx, m)
		l.returned(lane.how, time.Since(start)-limit)
		done(got, err)
		return
	}
	err := p.Produce(ctx, m, done)
	l.returned(lane.how, time.Since(start)-limit)
	if err != nil {
		done(gracedb.Message{}, err)
	}
}

// returned notes by how much a call was late.
func (l *load) returned(call string, late time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over[call] = max(l.over[call], late, 0)
}

// visit opens producers, one after the other, which send a few messages and close.
func (l *load) visit(open func(context.Context) (publisher, error)) {
	l.wg.Go(func() {
		lane := l.newLane("visitor", async, 0)
		for {
			select {
			case <-l.end:
				return
			case <-time.After(time.Second):
			}
			start := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			p, err := open(ctx)
			cancel()
			l.returned("NewProducer, 10 s", time.Since(start)-10*time.Second)
			if err != nil {
				l.unopened.add(err)
				continue
			}
			for range 10 {
				l.send(p, lane)
				wait(20 * time.Millisecond)
			}
			start = time.Now()
			_ = p.Close()
			l.returned("Close, 10 s", time.Since(start)-10*time.Second)
		}
	})
}

// stop ends all senders.
func (l *load) stop() {
	l.once.Do(func() { close(l.end) })
	l.wg.Wait()
}

var errNoAck = errors.New("no message is acknowledged")

// recovered waits until every lane has had an acknowledgement again, and returns
// how long after since the first and the last of them had one, and which was that.
func (l *load) recovered(ctx context.Context, since int64) (first, all time.Duration, last string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var waiting []string
		for _, lane := range l.lanes {
			if lane.acked.Load() <= since {
				waiting = append(waiting, lane.key)
			}
		}
		now := time.Duration(clock() - since)
		if len(waiting) < len(l.lanes) && first == 0 {
			first = now
		}
		if len(waiting) == 0 {
			return first, now, last, nil
		}
		last = strings.Join(waiting, " ")
		select {
		case <-tick.C:
		case <-ctx.Done():
			return first, now, last, fmt.Errorf("%w of %s after %v", errNoAck, last, now)
		}
	}
}
