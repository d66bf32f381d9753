package kafkatest

import (
	"fmt"
	"maps"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is about who leads a partition. kfake always has a leader for each.

// A place is one partition.
type place struct {
	topic     string
	partition int32
}

type leaderless struct {
	mu     sync.Mutex
	fault  map[place]*kfake.FaultHandle
	epochs map[place]int32 // in which it has no leader
}

// LoseLeader leaves a partition without a leader, as when all brokers that have it are
// away: the metadata say so, and nobody takes or gives records. ElectLeader ends it.
func (c *Cluster) LoseLeader(topic string, partition int32) error {
	info := c.kfake.PartitionInfo(topic, partition)
	if info == nil {
		return fmt.Errorf("kafkatest: no leader for %s/%d: no such partition", topic, partition)
	}
	// The epoch ends with its leader.
	if err := c.MoveLeader(topic, partition, info.Leader); err != nil {
		return err
	}
	c.leaderless.mu.Lock()
	defer c.leaderless.mu.Unlock()
	at := place{topic, partition}
	if c.leaderless.fault == nil {
		c.leaderless.fault, c.leaderless.epochs = make(map[place]*kfake.FaultHandle), make(map[place]int32)
	}
	if c.leaderless.fault[at] == nil {
		c.leaderless.fault[at] = c.Fail(kfake.Fault{
			Keys:  []kmsg.Key{kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch},
			Topic: topic, Partitions: []int32{partition}, Err: kerr.NotLeaderForPartition, Count: -1,
		})
	}
	c.leaderless.epochs[at] = info.Epoch + 1
	return nil
}

// ElectLeader makes a node the leader of a partition that LoseLeader has left without.
func (c *Cluster) ElectLeader(topic string, partition, node int32) error {
	if err := c.MoveLeader(topic, partition, node); err != nil {
		return err
	}
	c.leaderless.mu.Lock()
	defer c.leaderless.mu.Unlock()
	at := place{topic, partition}
	if f := c.leaderless.fault[at]; f != nil {
		f.Remove()
	}
	delete(c.leaderless.fault, at)
	delete(c.leaderless.epochs, at)
	return nil
}

// forget ends what is said of a topic that is no more.
func (l *leaderless) forget(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for at, f := range l.fault {
		if at.topic == topic {
			f.Remove()
			delete(l.fault, at)
			delete(l.epochs, at)
		}
	}
}

// tell puts into metadata which partitions have no leader.
func (l *leaderless) tell(resp *kmsg.MetadataResponse) {
	l.mu.Lock()
	epochs := maps.Clone(l.epochs)
	l.mu.Unlock()
	for i := range resp.Topics {
		t := &resp.Topics[i]
		if t.Topic == nil {
			continue
		}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if epoch, ok := epochs[place{*t.Topic, p.Partition}]; ok {
				p.ErrorCode, p.Leader, p.LeaderEpoch = kerr.LeaderNotAvailable.Code, -1, epoch
				p.OfflineReplicas, p.ISR = p.Replicas, nil
			}
		}
	}
}

// epochEnds returns the state of the partitions that an OffsetForLeaderEpoch request
// asks about; nil for any other request.
func (c *Cluster) epochEnds(r *request) map[place]*kfake.PartitionInfo {
	if kmsg.Key(r.key) != kmsg.OffsetForLeaderEpoch {
		return nil
	}
	req, err := r.decode()
	if err != nil {
		return nil // kfake says what is wrong
	}
	ends := make(map[place]*kfake.PartitionInfo)
	for _, t := range req.(*kmsg.OffsetForLeaderEpochRequest).Topics {
		for _, p := range t.Partitions {
			c.unlessClosed(func() { ends[place{t.Topic, p.Partition}] = c.kfake.PartitionInfo(t.Topic, p.Partition) })
		}
	}
	return ends
}

// endEpochs puts the end of the log into an answer that says that an epoch is not known.
// In Kafka a leader begins its epoch where the log ends when it is elected; kfake, with
// the first batch, and does not know until then where the epoch before it ended.
func (r *request) endEpochs(resp *kmsg.OffsetForLeaderEpochResponse) error {
	decoded, err := r.decode()
	if err != nil {
		return err
	}
	asked := make(map[place]int32)
	for _, t := range decoded.(*kmsg.OffsetForLeaderEpochRequest).Topics {
		for _, p := range t.Partitions {
			asked[place{t.Topic, p.Partition}] = p.LeaderEpoch
		}
	}
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			at := place{t.Topic, p.Partition}
			if info := r.ends[at]; info != nil && p.ErrorCode == 0 && p.EndOffset < 0 && asked[at] < info.Epoch {
				p.LeaderEpoch, p.EndOffset = asked[at], info.HighWatermark
			}
		}
	}
	return nil
}
