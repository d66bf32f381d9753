package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A plan is what happens in a simulation. It is made of nothing but its seed; the
// order in which the scheduler lets the clients meet it is not part of it.
type plan struct {
	seed               uint64
	brokers            int
	partitions         int
	session, tokenLife time.Duration // 0 is three hours
	acl                bool
	grace              time.Duration
	senders            []sender
	direct             int           // consumers without a group, from the start
	members            []member      // of a group; the first is there from the start
	latency            time.Duration // of the network while a step says so; 0 if none does
	episodes           []episode
	closeEarly         bool // the first producer is closed amid the last episode

	producers int           // at least one
	others    int           // producer ids that are another's, who sends nothing here
	rtt       time.Duration // of the network, always
	remade    bool          // the topic is made anew
	compacted bool          // the topic takes nothing without a key
}

// A sender sends messages of one key.
type sender struct {
	fast, slow time.Duration // between messages, in episodes and in the quiet after them
	sync       int           // of ten, how many wait for their acknowledgement
	timeout    time.Duration // at most, of those that wait and of some that do not
	large      int           // of a hundred, how many have up to 200 kB

	producer int           // which it uses
	burst    int           // how many messages it sends where others send one; 0 is one
	gap      time.Duration // between those of a burst
	unkeyed  int           // of ten bursts, how many have no keys
	spoiled  int           // of a hundred, how many brokers must refuse
}

// A member consumes as one of the group.
type member struct {
	at, life time.Duration // life 0: until the end
	pause    time.Duration // per message
	crash    bool          // it is cut off instead of leaving
}

// An episode is faults that overlap, and the quiet after the last.
type episode struct {
	steps []step
	quiet time.Duration
}

// A step is one fault. What its numbers mean is up to its kind.
type step struct {
	kind        string
	at, lasting time.Duration // from the episode's beginning; instant if lasting is 0
	node        int32         // all if negative
	part        int32
	n           int
	delay       time.Duration
	err         *kerr.Error
	key         kmsg.Key
	do          kafkatest.Action
	how         kafkatest.Cut
	mute        kafkatest.Mute
}

// makePlan returns the plan of a seed.
func makePlan(seed uint64) *plan {
	r := rand.New(rand.NewPCG(seed, 0x67726163656462))
	p := &plan{
		seed: seed, brokers: 1 + r.IntN(3), partitions: 1 + r.IntN(6),
		acl: r.IntN(3) == 0, direct: r.IntN(3), closeEarly: r.IntN(6) == 0, producers: 1,
	}
	if r.IntN(2) == 0 {
		p.session = someTime(r, 2*time.Second, 10*time.Minute)
	}
	if r.IntN(3) == 0 {
		p.tokenLife = someTime(r, 5*time.Second, time.Hour).Truncate(time.Second)
	}
	if r.IntN(3) == 0 {
		p.grace = someTime(r, 100*time.Millisecond, 20*time.Second)
	}
	for range 1 + r.IntN(5) {
		p.senders = append(p.senders, sender{
			fast: someTime(r, 60*time.Millisecond, 4*time.Second), sync: r.IntN(11),
			timeout: someTime(r, 50*time.Millisecond, 30*time.Second), large: max(0, r.IntN(6)-3),
		})
	}
	long := false
	for range 1 + r.IntN(4) {
		e := episode{quiet: someTime(r, time.Second, time.Minute)}
		if !long && r.IntN(20) == 0 {
			long, e.quiet = true, someTime(r, 10*time.Minute, time.Hour)
		}
		for _, life := range []time.Duration{p.session, p.tokenLife} {
			if life > 0 { // a login costs the processor a millisecond
				e.quiet = min(e.quiet, 200*life)
			}
		}
		for range 1 + r.IntN(3) {
			e.steps = append(e.steps, makeStep(r, p, kinds))
		}
		p.episodes = append(p.episodes, e)
	}
	p.addMembers(r)
	for i := range p.senders {
		// Hours of silence are not filled with messages.
		p.senders[i].slow = max(p.senders[i].fast, p.length()/100)
	}
	return p
}

func makeStep(r *rand.Rand, p *plan, kinds []kind) step {
	for {
		k := kinds[r.IntN(len(kinds))]
		s := step{
			kind: k.name, at: someTime(r, time.Millisecond, 5*time.Second), lasting: someTime(r, 100*time.Millisecond, 30*time.Second),
			node: int32(r.IntN(p.brokers+1)) - 1, part: int32(r.IntN(p.partitions)),
		}
		if k.fill == nil || k.fill(r, p, &s) {
			return s
		}
	}
}

// addMembers adds a group, mostly.
func (p *plan) addMembers(r *rand.Rand) {
	if r.IntN(4) == 0 {
		return
	}
	for i := range 1 + r.IntN(4) {
		m := member{crash: r.IntN(4) == 0}
		if r.IntN(3) == 0 {
			m.pause = someTime(r, time.Millisecond, 30*time.Millisecond)
		}
		if i > 0 {
			m.at = time.Duration(r.Int64N(int64(min(p.length(), 3*time.Minute))))
		}
		if r.IntN(2) == 0 {
			m.life = someTime(r, time.Second, 2*time.Minute)
		}
		p.members = append(p.members, m)
	}
}

// someTime returns a time between two, small ones as often as large ones.
func someTime(r *rand.Rand, least, most time.Duration) time.Duration {
	octaves := 0
	for d := least; d < most; d *= 2 {
		octaves++
	}
	d := least << r.IntN(octaves)
	return min(most, d+time.Duration(r.Int64N(int64(d)))).Truncate(time.Millisecond)
}

// lasting is from the beginning to the end of the last fault.
func (e episode) lasting() time.Duration {
	var end time.Duration
	for _, s := range e.steps {
		end = max(end, s.at+s.lasting)
	}
	return end
}

func (p *plan) length() time.Duration {
	var sum time.Duration
	for _, e := range p.episodes {
		sum += e.lasting() + e.quiet
	}
	return sum
}

// has reports whether some step is of one of the kinds.
func (p *plan) has(names ...string) bool {
	for _, e := range p.episodes {
		if e.has(names...) {
			return true
		}
	}
	return false
}

func (e episode) has(names ...string) bool {
	for _, s := range e.steps {
		if slices.Contains(names, s.kind) {
			return true
		}
	}
	return false
}

// String returns the whole plan, one line for each thing.
func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d broker(s) %v away, %d partition(s), %d producer(s) after %d, sessions %v, tokens %v, ACL %v, grace %v, %d direct consumer(s), close early %v, made anew %v, compacted %v, %v in all\n",
		p.seed, p.brokers, p.rtt, p.partitions, p.producers, p.others, p.session, p.tokenLife, p.acl, p.grace, p.direct, p.closeEarly, p.remade, p.compacted, p.length())
	for i, s := range p.senders {
		fmt.Fprintf(&b, "  sender %d: producer %d, every %v, in quiet %v, %d of 10 wait, at most %v, %d%% large", i, s.producer, s.fast, s.slow, s.sync, s.timeout, s.large)
		if s.burst > 0 {
			fmt.Fprintf(&b, ", %d at once, %v apart, %d of 10 without keys", s.burst, s.gap, s.unkeyed)
		}
		if s.spoiled > 0 {
			fmt.Fprintf(&b, ", %d%% to be refused", s.spoiled)
		}
		b.WriteByte('\n')
	}
	for i, m := range p.members {
		fmt.Fprintf(&b, "  member %d: from %v for %v, %v a message, crashes %v\n", i, m.at, m.life, m.pause, m.crash)
	}
	var start time.Duration
	for _, e := range p.episodes {
		for _, s := range e.steps {
			fmt.Fprintf(&b, "  at %v %s\n", start+s.at, s)
		}
		start += e.lasting() + e.quiet
		fmt.Fprintf(&b, "  until %v quiet\n", start)
	}
	return b.String()
}

func (s step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "for %v: %s, node %d", s.lasting, s.kind, s.node)
	add := func(is bool, format string, args ...any) {
		if is {
			fmt.Fprintf(&b, format, args...)
		}
	}
	add(s.n > 0, ", %d times", s.n)
	add(s.delay > 0, ", %v", s.delay)
	add(s.err != nil, ", %v", s.err)
	add(s.do > 0, ", action %d on %s of partition %d, how %d", s.do, s.key.Name(), s.part, s.how)
	add(s.mute > 0, ", mute %d", s.mute)
	return b.String()
}
