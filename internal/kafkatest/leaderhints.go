package kafkatest

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Hints is what a broker that does not lead a partition says about who does, in its
// answer to Produce version 10 or newer (KIP-951).
type Hints int32

// The hints: from metadata that are up to date, none, and from metadata that do not know
// yet of the latest election, by which the broker that is asked still leads.
const (
	TrueHints Hints = iota
	NoHints
	StaleHints
)

// HintLeaders says which hints are given from now on. They are true at first.
func (c *Cluster) HintLeaders(h Hints) { c.hints.Store(int32(h)) }

// hint puts hints into an answer to Produce.
func (n *node) hint(resp *kmsg.ProduceResponse) {
	resp.Brokers = nil
	hints := Hints(n.c.hints.Load())
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.CurrentLeader = kmsg.NewProduceResponseTopicPartitionCurrentLeader()
			if p.ErrorCode != kerr.NotLeaderForPartition.Code || hints == NoHints {
				continue
			}
			leader, epoch, ok := n.c.leader(t.Topic, t.TopicID, p.Partition)
			if !ok || leader == n.id {
				continue // an injected error: whom should it name?
			}
			if hints == StaleHints {
				leader, epoch = n.id, epoch-1
			}
			p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch = leader, epoch
			n.c.addEndpoint(resp, leader)
		}
	}
}

// addEndpoint says where a broker is.
func (c *Cluster) addEndpoint(resp *kmsg.ProduceResponse, id int32) {
	if slices.ContainsFunc(resp.Brokers, func(b kmsg.ProduceResponseBroker) bool { return b.NodeID == id }) {
		return
	}
	for _, n := range c.pick([]int32{id}) {
		n.mu.Lock()
		l := n.broker
		n.mu.Unlock()
		if l == nil || id < 0 {
			continue
		}
		b := kmsg.NewProduceResponseBroker()
		b.NodeID = id
		b.Host, b.Port = l.hostport()
		resp.Brokers = append(resp.Brokers, b)
	}
}

// leader returns who leads a partition, -1 if nobody does, and in which epoch.
func (c *Cluster) leader(name string, id [16]byte, partition int32) (leader, epoch int32, ok bool) {
	var info *kfake.PartitionInfo
	c.unlessClosed(func() {
		if name == "" {
			if topic := c.kfake.TopicIDInfo(id); topic != nil {
				name = topic.Topic
			}
		}
		info = c.kfake.PartitionInfo(name, partition)
	})
	if info == nil {
		return 0, 0, false
	}
	c.leaderless.mu.Lock()
	defer c.leaderless.mu.Unlock()
	if epoch, ok := c.leaderless.epochs[place{name, partition}]; ok {
		return -1, epoch, true
	}
	return info.Leader, info.Epoch, true
}

// replicaPoll is how often it is looked at whether a leader that waits still is one.
const replicaPoll = 5 * time.Millisecond

// awaitReplicas waits for d, as for the followers, before records that are appended are
// acknowledged (there, DelayedProduce). The request's own time may be over before, or
// the leader no longer the one that has appended; the offset is told then all the same.
func (c *conn) awaitReplicas(req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse, d time.Duration) error {
	type waiting struct {
		name  string
		id    [16]byte
		p     *kmsg.ProduceResponseTopicPartition
		epoch int32
	}
	var all []waiting
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			if p := &t.Partitions[j]; p.ErrorCode == 0 {
				_, epoch, _ := c.n.c.leader(t.Topic, t.TopicID, p.Partition)
				all = append(all, waiting{t.Topic, t.TopicID, p, epoch})
			}
		}
	}
	limit := time.Duration(req.TimeoutMillis) * time.Millisecond
	for begin := time.Now(); len(all) > 0 && time.Since(begin) < d; {
		if err := c.wait(min(replicaPoll, d-time.Since(begin))); err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(w waiting) bool {
			_, epoch, ok := c.n.c.leader(w.name, w.id, w.p.Partition)
			switch {
			case !ok:
				w.p.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case epoch != w.epoch:
				w.p.ErrorCode = kerr.NotLeaderForPartition.Code
			case time.Since(begin) >= limit:
				w.p.ErrorCode = kerr.RequestTimedOut.Code
			default:
				return false
			}
			return true
		})
	}
	c.n.hint(resp)
	return nil
}
