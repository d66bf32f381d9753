package faults

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// This file adds to plans what an idempotent producer has to stand: brokers that are
// far, bursts, other producers, and faults of its own. A seed's plan is what makePlan
// makes of it, with these added, so that what a seed found without them stays found.

// planOf returns the plan of a seed, with all that there is.
func planOf(seed uint64) *plan {
	p := makePlan(seed)
	p.amend(rand.New(rand.NewPCG(seed, 0x73657175656e6365)))
	return p
}

// amend draws from an r of its own.
func (p *plan) amend(r *rand.Rand) {
	if r.IntN(3) == 0 {
		p.rtt = someTime(r, 10*time.Millisecond, 50*time.Millisecond)
	}
	p.producers = []int{1, 1, 2, 3}[r.IntN(4)]
	if p.remade = r.IntN(6) == 0; p.remade {
		p.direct, p.members = 0, nil // what consumers make of that has tests of its own
	}
	for i := range p.senders {
		s := &p.senders[i]
		s.producer = i % p.producers
		if r.IntN(3) == 0 {
			s.burst, s.unkeyed = 2+r.IntN(30), r.IntN(11)
			// A window of several batches fills only with time between the messages.
			s.gap = someTime(r, time.Millisecond, 8*time.Millisecond) - time.Millisecond
		}
	}
	for i := range p.episodes {
		for j := range p.episodes[i].steps {
			if r.IntN(3) == 0 {
				p.episodes[i].steps[j] = makeStep(r, p, laterKinds)
			}
		}
	}
	for i := range p.senders {
		// A burst is many messages, and comes so much more seldom.
		s := &p.senders[i]
		s.slow = max(s.fast, p.length()/100) * time.Duration(max(1, s.burst))
		s.fast *= time.Duration(max(1, s.burst/2))
	}
}

// laterKinds are faults that matter to who numbers batches.
var laterKinds = []kind{
	// Answers are lost first, n of them: the refusal is then of what is in the log.
	{"no replicas", func(r *rand.Rand, _ *plan, s *step) bool {
		s.n = max(0, r.IntN(5)-2)
		return true
	}, (*simulation).loseReplicas, soon},
	{"throttled for long", func(r *rand.Rand, _ *plan, s *step) bool {
		s.n, s.delay = 1+r.IntN(3), someTime(r, time.Second, time.Minute)
		return true
	}, func(s *simulation, st step) func() {
		end := s.Inject(kafkatest.Fault{
			Do: kafkatest.ThrottleResponse, Keys: produces, Nodes: st.nodes(), Count: st.n, Delay: st.delay,
		}).Remove
		return func() { end(); time.Sleep(st.delay) } // the last is over, too
	}, soon},
	{"topic made anew", func(r *rand.Rand, p *plan, s *step) bool {
		s.delay = max(0, someTime(r, 100*time.Millisecond, 5*time.Second)-time.Second)
		return p.remade && instant(s)
	}, (*simulation).remake, brokersBack},
	{"no leader", nil, (*simulation).loseLeader, soon},
	{"leaders come and go", func(r *rand.Rand, p *plan, s *step) bool {
		s.delay = someTime(r, 20*time.Millisecond, time.Second)
		s.lasting = min(s.lasting, 20*s.delay)
		return several(p)
	}, (*simulation).shuffle, soon},
	{"stale hints", func(r *rand.Rand, p *plan, s *step) bool {
		s.lasting = min(s.lasting, 5*time.Second)
		return several(p) && s.node >= 0
	}, (*simulation).mislead, soon},
}

// loseReplicas makes brokers refuse what asks for all replicas, before they append.
func (s *simulation) loseReplicas(st step) func() {
	if st.n > 0 {
		defer s.LoseAcks(st.n, kafkatest.CutResponse)
	}
	return s.Fail(kfake.Fault{
		Keys: produces, Topic: topic, Partitions: []int32{st.part}, Err: kerr.NotEnoughReplicas, Count: -1,
		When: func(kmsg.Request) bool { return true },
	}).Remove
}

func (s *simulation) loseLeader(st step) func() {
	if err := s.LoseLeader(topic, st.part); err != nil {
		s.skip(err)
		return nil
	}
	return func() {
		s.atEnd(func() error { return s.elect(st.part, max(0, st.node)) })
	}
}

// elect makes a node the leader of a partition, or another if it is down.
func (s *simulation) elect(part, node int32) (err error) {
	for i := range int32(s.plan.brokers) {
		if err = s.ElectLeader(topic, part, (node+i)%int32(s.plan.brokers)); err == nil {
			return nil
		}
	}
	return err
}

// shuffle gives partitions other leaders, one after the other.
func (s *simulation) shuffle(st step) func() {
	r := rand.New(rand.NewPCG(s.plan.seed, uint64(st.at)))
	for began := time.Now(); time.Since(began) < st.lasting; time.Sleep(st.delay) {
		_ = s.MoveLeader(topic, int32(r.IntN(s.plan.partitions)), int32(r.IntN(s.plan.brokers)))
	}
	return nil
}

// mislead moves a leader, and makes brokers that do not lead say that another does who
// does not either, in an earlier epoch.
func (s *simulation) mislead(st step) func() {
	s.skip(s.MoveLeader(topic, st.part, st.node))
	wrong := (st.node + 1) % int32(s.plan.brokers)
	return s.Inject(kafkatest.Fault{
		Do: kafkatest.RewriteResponse, Keys: produces, Count: -1,
		Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
			for _, t := range resp.(*kmsg.ProduceResponse).Topics {
				for i := range t.Partitions {
					if l := &t.Partitions[i].CurrentLeader; l.LeaderEpoch > 0 {
						l.LeaderID, l.LeaderEpoch = wrong, l.LeaderEpoch-1
					}
				}
			}
		},
	}).Remove
}

// remake deletes the topic and makes another of the same name. What has been in the log
// is kept for the judge: nothing is appended between the look at it and the deletion.
func (s *simulation) remake(st step) func() {
	shut := s.Fail(kfake.Fault{Keys: produces, Topic: topic, Err: kerr.NotLeaderForPartition, Count: -1})
	records, err := s.Records(topic)
	if err == nil {
		err = s.DeleteTopic(topic)
	}
	shut.Remove()
	if err != nil {
		s.skip(err)
		return nil
	}
	s.mu.Lock()
	s.gone = append(s.gone, slices.Concat(records, s.trimmed))
	s.trimmed, s.trimmedTo = nil, make(map[int32]int64)
	s.mu.Unlock()
	time.Sleep(st.delay)
	n := s.plan.partitions
	if st.n%2 == 0 {
		n = int(s.partitions.Load())
	}
	if err := s.CreateTopic(topic, n, nil); err != nil {
		s.t.Error(err)
	}
	s.partitions.Store(int32(n))
	return nil
}
