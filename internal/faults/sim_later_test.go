package faults

import (
	"context"
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
	r := rand.New(rand.NewPCG(seed, 0x6c617465))
	for i := range p.episodes {
		for j, st := range p.episodes[i].steps {
			if r.IntN(8) == 0 && st.kind != "topic made anew" {
				p.episodes[i].steps[j] = makeStep(r, p, lateKinds)
			}
		}
	}
	return p
}

// amend draws from an r of its own.
func (p *plan) amend(r *rand.Rand) {
	if r.IntN(3) == 0 {
		p.rtt = someTime(r, 10*time.Millisecond, 50*time.Millisecond)
	}
	p.producers = []int{1, 1, 2, 3}[r.IntN(4)]
	p.others = r.IntN(3)
	if p.remade = r.IntN(6) == 0; p.remade {
		p.direct, p.members = 0, nil // what consumers make of that has tests of its own
	}
	// The embedded broker compacts its logs every hour, and the judge counts all.
	p.compacted = r.IntN(8) == 0 && p.length() < 40*time.Minute
	for i := range p.senders {
		s := &p.senders[i]
		s.producer = i % p.producers
		if r.IntN(4) == 0 {
			s.spoiled = 1 + r.IntN(5)
		}
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
	if e := &p.episodes[r.IntN(len(p.episodes))]; p.remade {
		st := &e.steps[r.IntN(len(e.steps))]
		for *st = makeStep(r, p, laterKinds); st.kind != "topic made anew"; *st = makeStep(r, p, laterKinds) {
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
	// The answers to n requests are lost first: what is refused then is in the log.
	{"no replicas", func(r *rand.Rand, _ *plan, s *step) bool {
		s.n = r.IntN(4)
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
	// In a row, so that numbers begin anew before they are large.
	{"topic made anew", func(r *rand.Rand, p *plan, s *step) bool {
		s.n, s.delay = 1+r.IntN(5), someTime(r, 20*time.Millisecond, 2*time.Second)
		s.lasting = time.Duration(s.n) * s.delay
		return p.remade
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

// lateKinds are about what comes late: an append, its acknowledgement, and the news of it.
var lateKinds = []kind{
	// The same is sent again meanwhile, on another connection, and appended first.
	{"request lies in the broker", func(r *rand.Rand, _ *plan, s *step) bool {
		s.n, s.delay = 1+r.IntN(3), someTime(r, 50*time.Millisecond, 20*time.Second)
		return true
	}, func(s *simulation, st step) func() {
		held := s.Inject(kafkatest.Fault{Do: kafkatest.HoldRequest, Keys: produces, Nodes: st.nodes(), Count: st.n, Delay: st.delay})
		ctx, cancel := context.WithTimeout(s.t.Context(), st.lasting)
		defer cancel()
		if held.Wait(ctx, 1) == nil {
			time.Sleep(st.delay / 4)
			s.Drop(kafkatest.RST, st.nodes()...)
		}
		return func() { held.Remove(); time.Sleep(st.delay) }
	}, soon},
	{"replicas are slow", func(r *rand.Rand, _ *plan, s *step) bool {
		s.n, s.delay = 1+r.IntN(5), someTime(r, 10*time.Millisecond, 5*time.Second)
		return true
	}, func(s *simulation, st step) func() {
		slow := s.Inject(kafkatest.Fault{Do: kafkatest.AwaitReplicas, Keys: produces, Nodes: st.nodes(), Count: st.n, Delay: st.delay})
		return func() { slow.Remove(); time.Sleep(st.delay) }
	}, soon},
	{"metadata lag", func(_ *rand.Rand, p *plan, s *step) bool {
		return several(p) && !p.remade && s.node >= 0
	}, func(s *simulation, st step) func() {
		s.skip(s.LagMetadata(topic, st.node))
		s.skip(s.MoveLeader(topic, st.part, st.node))
		return func() { s.CatchUp(st.node) }
	}, soon},
}

// loseReplicas makes brokers refuse what asks for all replicas, before they append.
func (s *simulation) loseReplicas(st step) func() {
	parts, match := []int32{st.part}, toPartition(st.part)
	if st.node < 0 {
		parts, match = nil, nil
	}
	if st.n > 0 {
		lost := s.Inject(kafkatest.Fault{Do: kafkatest.CutResponse, Keys: produces, Count: st.n, Match: match})
		ctx, cancel := context.WithTimeout(s.t.Context(), st.lasting/2)
		defer cancel()
		_ = lost.Wait(ctx, st.n)
		lost.Remove()
	}
	return s.ShrinkISR(topic, parts...).Remove
}

// toPartition matches Produce requests with a batch for a partition.
func toPartition(part int32) func(kmsg.Request) bool {
	return func(r kmsg.Request) bool {
		return slices.ContainsFunc(r.(*kmsg.ProduceRequest).Topics, func(t kmsg.ProduceRequestTopic) bool {
			return slices.ContainsFunc(t.Partitions, func(p kmsg.ProduceRequestTopicPartition) bool { return p.Partition == part })
		})
	}
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

// mislead moves a leader, and makes brokers that do not lead say that they still do.
func (s *simulation) mislead(st step) func() {
	s.skip(s.MoveLeader(topic, st.part, st.node))
	s.HintLeaders(kafkatest.StaleHints)
	return func() { s.HintLeaders(kafkatest.TrueHints) }
}

// remake deletes the topic and makes another of the same name, n times. Each is away for
// half of the delay; brokers do not all know it at once.
func (s *simulation) remake(st step) func() {
	for i := range st.n {
		if !s.deleteTopic() {
			return nil
		}
		time.Sleep(st.delay / 2)
		var refused *kfake.FaultHandle
		if i%2 == 0 {
			refused = s.Fail(kfake.Fault{Keys: produces, Topic: topic, Err: kerr.UnknownTopicOrPartition, Count: 1 + i})
		}
		s.createTopic(int(s.partitions.Load()))
		time.Sleep(st.delay - st.delay/2)
		if refused != nil {
			refused.Remove()
		}
	}
	return nil
}

// takeIDs takes producer ids, which brokers count from 0.
func (s *simulation) takeIDs(n int) {
	client := s.kgoClient()
	defer client.Close()
	for range n {
		if _, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(s.t.Context(), client); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *simulation) createTopic(partitions int) {
	configs := map[string]string{"message.timestamp.after.max.ms": "3600000"}
	if s.plan.compacted {
		configs["cleanup.policy"] = "compact"
	}
	if err := s.CreateTopic(topic, partitions, configs); err != nil {
		s.t.Error(err)
	}
}

// look lets nobody else change the log outside of the brokers, until done is called. It
// is no mutex: virtual time has to go on meanwhile.
func (s *simulation) look() (done func()) {
	s.looking <- struct{}{}
	return func() { <-s.looking }
}

// deleteTopic keeps what has been in the log for the judge: nothing is appended between
// the look at it and the deletion.
func (s *simulation) deleteTopic() bool {
	defer s.look()()
	shut := s.Fail(kfake.Fault{Keys: produces, Topic: topic, Err: kerr.NotLeaderForPartition, Count: -1})
	defer shut.Remove()
	records, err := s.Records(topic)
	if err == nil {
		err = s.DeleteTopic(topic)
	}
	if err != nil {
		s.skip(err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = append(s.gone, slices.Concat(records, s.trimmed))
	s.trimmed, s.trimmedTo = nil, make(map[int32]int64)
	return true
}
