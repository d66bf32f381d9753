//go:build unix

package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// A kind is a sort of fault.
type kind string

// Of a step's faults one at most is of the first group, so that never more than one
// broker is down, save when all are meant to be.
const (
	kill        kind = "kill -9 of a leader"
	halt        kind = "SIGSTOP of a leader"
	restart     kind = "clean restart of a broker"
	haltAll     kind = "SIGSTOP of all brokers"
	move        kind = "leader moved"
	moveOffsets kind = "group coordinator moved"

	rotate kind = "signing key rotated"
	noTok  kind = "no token"
	badTok kind = "token refused"

	cutAll      kind = "connections reset"
	cutRequest  kind = "request cut"
	cutAnswer   kind = "answer cut"
	dropRequest kind = "request swallowed"
	dropAnswer  kind = "answer swallowed"
	holdAnswer  kind = "answer held"
	freeze      kind = "network silent"
	byByte      kind = "one byte at a time"
	slow        kind = "64 KiB/s"
	far         kind = "100 ms away"

	leave kind = "group member leaves and comes back"
)

// groups are the kinds by what they touch, the likeliest first: two faults of one
// group are never at work together.
var groups = [][]kind{
	{kill, halt, restart, move, kill, halt, move, moveOffsets, haltAll},
	{cutAll, cutRequest, cutAnswer, dropRequest, dropAnswer, holdAnswer, freeze, byByte, slow, far},
	{rotate, noTok, badTok},
	{leave},
}

// A fault is one thing that goes wrong.
type fault struct {
	kind      kind
	partition int32         // whose leader is meant, or the next to be one
	broker    int           // that is restarted
	skip      int           // requests or answers that pass before
	forward   float64       // part of the frame that gets through
	lasting   time.Duration // until it is put right again
}

func (f fault) String() string {
	return fmt.Sprintf("%s (partition %d, broker %d, skip %d, forward %.2f, %v)", f.kind, f.partition, f.broker, f.skip, f.forward,
		f.lasting.Round(time.Millisecond))
}

// A step is faults that begin together, after a while without any.
type step struct {
	after  time.Duration
	faults []fault
}

func (s step) String() string {
	var said []string
	for _, f := range s.faults {
		said = append(said, f.String())
	}
	return strings.Join(said, " and ")
}

// A plan yields one step after the other, the same for the same seed.
type plan struct{ *rand.Rand }

func newPlan(seed uint64) plan { return plan{rand.New(rand.NewPCG(seed, 5))} }

func (p plan) next() step {
	s := step{after: p.between(200*time.Millisecond, 3*time.Second)}
	first := p.pick(5, 5, 2, 1)
	s.faults = append(s.faults, p.fault(groups[first]))
	if p.IntN(3) == 0 {
		if second := p.pick(5, 5, 2, 1); second != first {
			s.faults = append(s.faults, p.fault(groups[second]))
		}
	}
	return s
}

// pick returns an index, each with its weight.
func (p plan) pick(weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := p.IntN(sum)
	for i, w := range weights {
		if n -= w; n < 0 {
			return i
		}
	}
	return 0
}

func (p plan) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.Int64N(int64(high-low)))
}

func (p plan) fault(of []kind) fault {
	f := fault{
		kind:      of[p.IntN(len(of))],
		partition: p.Int32N(partitions),
		broker:    p.IntN(3),
		skip:      p.IntN(4),
		forward:   p.Float64(),
	}
	switch f.kind {
	case haltAll:
		f.lasting = p.between(2*time.Second, 6*time.Second)
	case holdAnswer:
		f.lasting = p.between(100*time.Millisecond, 4*time.Second)
	default:
		f.lasting = p.between(500*time.Millisecond, 8*time.Second)
	}
	return f
}

// recovery is the longest that a sender may wait for an acknowledgement after the
// end of the faults. A frame that is swallowed on a connection that stays is missed
// only after the request's own timeout, 15 seconds and the engine's 5.
func (s step) recovery() time.Duration {
	for _, f := range s.faults {
		if f.kind == dropRequest || f.kind == dropAnswer {
			return 20*time.Second + room*time.Second
		}
	}
	return room * time.Second
}

func TestPlan(t *testing.T) {
	a, b := newPlan(7), newPlan(7)
	seen := make(map[kind]int)
	for range 2000 {
		s := a.next()
		if want := b.next(); s.String() != want.String() || s.after != want.after {
			t.Fatalf("%v, then %v", s, want)
		}
		for _, f := range s.faults {
			seen[f.kind]++
		}
	}
	for _, group := range groups {
		for _, k := range group {
			if seen[k] < 20 {
				t.Errorf("%s: %d times", k, seen[k])
			}
		}
	}
	if newPlan(8).next().String() == newPlan(7).next().String() {
		t.Error("the seed does not matter")
	}
}
