package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A kind of fault in plans.
type kind struct {
	name string
	// fill completes a step, and reports whether the plan can have one.
	fill func(*rand.Rand, *plan, *step) bool
	// begin does it; lift, if not nil, ends it.
	begin func(*simulation, step) (lift func())
	// bound is for how long after the end the first acknowledgement may be out.
	bound time.Duration
}

const (
	soon = time.Second
	// brokersBack: they were down, or have moved.
	brokersBack = 5 * time.Second
	// silence: a connection stays open and silent, which only the time of a
	// produce request, 20 seconds, tells.
	silence = 25 * time.Second
)

func instant(s *step) bool { s.lasting = 0; return true }

func several(p *plan) bool { return p.brokers > 1 }

// kinds are the faults that makePlan knows; laterKinds are the others. What seeds mean
// depends on how many these are, and on their order. One that brokers can have is left
// out: a forgotten producer (B14), which in Kafka forgets together with it that a message
// has been written before.
var kinds = []kind{
	{"kill", func(r *rand.Rand, p *plan, s *step) bool {
		if several(p) && s.node < 0 && r.IntN(2) == 0 {
			s.node = 0
		}
		return true
	}, (*simulation).kill, brokersBack},
	{"refuse", nil, (*simulation).refuse, soon},
	{"leader moves", func(_ *rand.Rand, p *plan, s *step) bool {
		return several(p) && s.node >= 0 && instant(s)
	}, func(s *simulation, st step) func() {
		s.skip(s.MoveLeader(topic, st.part, st.node))
		return nil
	}, soon},
	{"cut", func(r *rand.Rand, _ *plan, s *step) bool {
		s.how, s.n = kafkatest.Cut(r.IntN(2)), 1+r.IntN(5)
		s.delay = someTime(r, time.Millisecond, time.Second)
		s.lasting = time.Duration(s.n-1) * s.delay
		return true
	}, (*simulation).cut, soon},
	{"short lives", func(r *rand.Rand, _ *plan, s *step) bool {
		s.delay = someTime(r, 200*time.Millisecond, 2*time.Second)
		s.n = min(10, 2+int(s.lasting/s.delay))
		s.lasting = time.Duration(s.n-1) * s.delay
		return true
	}, (*simulation).cut, soon},
	{"mute", func(r *rand.Rand, _ *plan, s *step) bool {
		s.mute = kafkatest.Mute(1 + r.IntN(3))
		return true
	}, (*simulation).mute, silence},
	{"mute, then cut", func(r *rand.Rand, _ *plan, s *step) bool {
		s.mute = kafkatest.Mute(1 + r.IntN(3))
		return true
	}, (*simulation).mute, soon},
	{"freeze", nil, func(s *simulation, st step) func() {
		s.Freeze(st.nodes()...)
		return func() { s.Thaw(st.nodes()...) }
	}, soon},
	{"lost frame, cut", func(r *rand.Rand, _ *plan, s *step) bool {
		s.do = []kafkatest.Action{kafkatest.CutRequest, kafkatest.CutResponse, kafkatest.HalfResponse, kafkatest.GarbageResponse, kafkatest.StrayResponse}[r.IntN(5)]
		s.key, s.n, s.how = someKey(r), 1+r.IntN(4), kafkatest.Cut(r.IntN(2))
		return true
	}, (*simulation).inject, soon},
	{"lost frame, silence", func(r *rand.Rand, _ *plan, s *step) bool {
		s.do = []kafkatest.Action{kafkatest.DropRequest, kafkatest.DropResponse}[r.IntN(2)]
		s.key, s.n = someKey(r), 1+r.IntN(2)
		return true
	}, (*simulation).inject, silence},
	{"held answer", func(r *rand.Rand, _ *plan, s *step) bool {
		s.do, s.key, s.n, s.delay = kafkatest.HoldResponse, someKey(r), 1+r.IntN(4), someTime(r, 10*time.Millisecond, 4*time.Second)
		return true
	}, (*simulation).inject, soon + 4*4*time.Second},
	{"throttle", func(r *rand.Rand, _ *plan, s *step) bool {
		s.do, s.key, s.n, s.delay = kafkatest.ThrottleResponse, someKey(r), 1+r.IntN(3), someTime(r, 10*time.Millisecond, 2*time.Second)
		return true
	}, (*simulation).inject, soon + 2*time.Second},
	{"error", func(r *rand.Rand, _ *plan, s *step) bool {
		s.err = []*kerr.Error{
			kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend,
			kerr.KafkaStorageError, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition, kerr.UnknownServerError,
		}[r.IntN(8)]
		if s.n = r.IntN(10); s.n == 0 {
			s.n = -1
		}
		return true
	}, (*simulation).fail, soon},
	// A leader that has appended, waits for its replicas and loses its office.
	{"deposed", func(r *rand.Rand, _ *plan, s *step) bool {
		s.do, s.err, s.key, s.n = kafkatest.ErrorResponse, kerr.NotLeaderForPartition, kmsg.Produce, 1+r.IntN(3)
		return true
	}, (*simulation).inject, soon},
	{"moved", func(_ *rand.Rand, _ *plan, s *step) bool { return instant(s) }, (*simulation).move, brokersBack},
	{"advertised elsewhere", func(_ *rand.Rand, p *plan, s *step) bool { return s.node >= 0 }, func(s *simulation, st step) func() {
		s.Advertise(st.node, "broker.invalid:9093")
		s.Drop(kafkatest.FIN, st.node)
		return func() { s.Advertise(st.node, "") }
	}, brokersBack},
	{"no token", nil, func(s *simulation, _ step) func() {
		s.tokens.take(errNoToken)
		s.Drop(kafkatest.FIN)
		return func() { s.tokens.take(nil) }
	}, soon},
	{"token refused", nil, (*simulation).refuseTokens, soon},
	{"token refused, code 58", nil, (*simulation).refuseTokens, soon},
	{"other principal", nil, func(s *simulation, _ step) func() {
		s.other.Store(true)
		return func() { s.other.Store(false) }
	}, soon},
	{"keys rotated", func(_ *rand.Rand, _ *plan, s *step) bool { return instant(s) }, func(s *simulation, _ step) func() {
		s.skip(s.Issuer().Rotate(true))
		return nil
	}, soon},
	{"no right", func(_ *rand.Rand, p *plan, _ *step) bool { return p.acl }, (*simulation).takeRights, soon},
	{"latency", func(r *rand.Rand, p *plan, s *step) bool {
		s.delay = someTime(r, time.Millisecond, 300*time.Millisecond)
		p.latency = max(p.latency, s.delay)
		return true
	}, func(s *simulation, st step) func() {
		s.latency.Add(int64(st.delay))
		return func() { s.latency.Add(-int64(st.delay)) }
	}, soon + 3*time.Second},
	{"partition added", func(_ *rand.Rand, p *plan, s *step) bool { return instant(s) }, func(s *simulation, _ step) func() {
		defer s.look()()
		s.partitions.Add(1)
		if err := s.AddPartitions(topic, int(s.partitions.Load())); err != nil {
			s.partitions.Add(-1)
			s.skip(err)
		}
		return nil
	}, soon},
	{"trimmed", func(r *rand.Rand, p *plan, s *step) bool { s.n = 1 + r.IntN(10); return instant(s) }, (*simulation).trim, soon},
	{"coordinators move", func(_ *rand.Rand, p *plan, s *step) bool { return several(p) && instant(s) }, func(s *simulation, _ step) func() {
		s.Kfake().RehashCoordinators()
		return nil
	}, soon},
}

func kindOf(name string) kind {
	for _, k := range slices.Concat(kinds, laterKinds, lateKinds) {
		if k.name == name {
			return k
		}
	}
	panic(name)
}

func someKey(r *rand.Rand) kmsg.Key {
	return []kmsg.Key{kmsg.Produce, kmsg.Produce, kmsg.Fetch, kmsg.Metadata, kmsg.OffsetCommit, kmsg.Heartbeat, kmsg.InitProducerID}[r.IntN(7)]
}

// nodes returns which brokers a step concerns; none is all.
func (s step) nodes() []int32 {
	if s.node < 0 {
		return nil
	}
	return []int32{s.node}
}

// skip notes that a step could not be done, such as to a broker that is down.
func (s *simulation) skip(err error) {
	if err != nil {
		s.note("skipped: %v", err)
	}
}

func (s *simulation) kill(st step) func() {
	ids := st.nodes()
	if ids == nil {
		for id := range int32(s.plan.brokers) {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		s.skip(s.Kill(id))
	}
	return func() {
		for _, id := range ids {
			s.skip(s.Restart(id))
		}
	}
}

func (s *simulation) refuse(st step) func() {
	s.Refuse(st.nodes()...)
	s.Drop(kafkatest.RST, st.nodes()...)
	return func() { s.skip(s.Accept(st.nodes()...)) }
}

func (s *simulation) cut(st step) func() {
	for i := range st.n {
		if i > 0 {
			time.Sleep(st.delay)
		}
		s.Drop(st.how, st.nodes()...)
	}
	return nil
}

func (s *simulation) mute(st step) func() {
	s.Mute(st.mute, st.nodes()...)
	return func() {
		s.Mute(0, st.nodes()...)
		if st.kind == "mute, then cut" {
			s.Drop(kafkatest.RST, st.nodes()...)
		}
	}
}

func (s *simulation) inject(st step) func() {
	return s.Inject(kafkatest.Fault{
		Do: st.do, Keys: []kmsg.Key{st.key}, Nodes: st.nodes(), Count: st.n, How: st.how, Delay: st.delay, Err: st.err,
	}).Remove
}

func (s *simulation) fail(st step) func() {
	return s.Fail(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: st.err, Count: st.n}).Remove
}

func (s *simulation) move(st step) func() {
	ids := st.nodes()
	if ids == nil {
		for id := range int32(s.plan.brokers) {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		s.skip(s.Move(id))
	}
	return nil
}

func (s *simulation) refuseTokens(st step) func() {
	s.RefuseTokens(kafkatest.Refusal{Direct: st.kind == "token refused, code 58"})
	s.Drop(kafkatest.FIN)
	return s.AcceptTokens
}

func (s *simulation) takeRights(step) func() {
	s.skip(s.SetACLs("alice"))
	return func() {
		// When nothing else is wrong: who changes rights asks a broker.
		s.atEnd(func() error { return s.SetACLs("alice", writeRights()...) })
	}
}

func writeRights() []kfake.ACL {
	return allow(topic, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe)
}

func readRights() []kfake.ACL {
	return append(allow(topic, kmsg.ACLOperationRead, kmsg.ACLOperationDescribe), kfake.ACL{
		Resource: kmsg.ACLResourceTypeGroup, Name: "g", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationRead, Allow: true,
	})
}

// trim deletes n tenths of what a partition holds.
func (s *simulation) trim(st step) func() {
	defer s.look()()
	for _, info := range s.Kfake().PartitionInfos(topic) {
		if info.Partition != st.part || info.HighWatermark == info.LogStartOffset {
			continue
		}
		// They are judged with what is there at the end.
		records, err := s.Records(topic)
		if err != nil {
			s.skip(err)
			return nil
		}
		upTo := info.LogStartOffset + (info.HighWatermark-info.LogStartOffset)*int64(st.n)/10
		if err := s.Trim(topic, st.part, upTo); err != nil {
			s.skip(err)
			return nil
		}
		s.mu.Lock()
		for _, r := range records {
			if r.Partition == st.part && r.Offset >= s.trimmedTo[st.part] && r.Offset < upTo {
				s.trimmed = append(s.trimmed, r)
			}
		}
		s.trimmedTo[st.part] = max(s.trimmedTo[st.part], upTo)
		s.mu.Unlock()
	}
	return nil
}

// dial is how clients reach the brokers: by names that stay when brokers move.
func (s *simulation) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	for id, name := range s.names() {
		if addr == name {
			addr = s.Addrs()[id]
		}
	}
	if addr == "broker.invalid:9093" {
		return nil, fmt.Errorf("dial %s: no such host", addr)
	}
	return s.Dial(ctx, network, addr)
}

func (s *simulation) names() (names []string) {
	for id := range s.plan.brokers {
		names = append(names, fmt.Sprintf("kafka%d.test:9092", id))
	}
	return names
}
