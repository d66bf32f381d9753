package gracedb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file keeps the promise that nothing published after NewConsumer or
// Subscribe is missed. The engine's own "start at the end" finds the end out some
// time after; so the ends are listed first, and pinned: without a group by
// starting exactly there, with a group by storing them as its position. So are the
// beginnings, with FromBeginning, lest it go unnoticed that they are deleted.

// places is what a Consumer knows of its topics.
type places struct {
	wanted []string // subscribed by a lazy Consumer, not yet in position
	states map[string]topicState
	gone   map[string]int                       // in how many rounds in a row a topic was not there
	start  map[string]map[int32]kgo.EpochOffset // the snapshot: an offset, or -1 for the end of an epoch
	from   map[string]map[int32]int64           // where the engine was told to begin or go on
	want   map[string]map[int32]int64           // the next offset expected
	done   map[string]map[int32]kgo.EpochOffset // behind the last message that is done
	marked map[string]map[int32]bool            // where the engine has not been told of done
	owned  map[string]map[int32]bool            // a group member's partitions
	read   map[string]map[int32]int64           // behind the last message that Poll has returned
	left   map[string]map[int32]int64           // what was not read of topics that are not there any more
	former map[string][][16]byte                // the ids of topics that were made anew
	afresh map[string]map[int32]time.Time       // when their partitions were, whose stored position may be an old one
	lost   map[string]map[int32]int             // at which of losses a partition was lost last
	losses int
	said   map[string]map[string]bool // by topic: errors reported and not over
}

func newPlaces() places {
	return places{
		states: make(map[string]topicState), gone: make(map[string]int),
		start: make(map[string]map[int32]kgo.EpochOffset), from: make(map[string]map[int32]int64),
		want: make(map[string]map[int32]int64), done: make(map[string]map[int32]kgo.EpochOffset),
		marked: make(map[string]map[int32]bool),
		lost:   make(map[string]map[int32]int), owned: make(map[string]map[int32]bool),
		said: make(map[string]map[string]bool), read: make(map[string]map[int32]int64),
		left: make(map[string]map[int32]int64), former: make(map[string][][16]byte),
		afresh: make(map[string]map[int32]time.Time),
	}
}

func set[V any](m map[string]map[int32]V, topic string, partition int32, v V) {
	if m[topic] == nil {
		m[topic] = make(map[int32]V)
	}
	m[topic][partition] = v
}

// has reports whether topic is subscribed.
func (p *places) has(topic string) bool {
	_, ok := p.states[topic]
	return ok || slices.Contains(p.wanted, topic)
}

func (p *places) topics() []string {
	return slices.Concat(slices.Sorted(maps.Keys(p.states)), p.wanted)
}

func (p *places) owns(topic string, partition int32) bool { return p.owned[topic][partition] }

// expect returns the offset that was expected next, and expects next from now on,
// unless that is negative.
func (p *places) expect(topic string, partition int32, next int64) (was int64, known bool) {
	was, known = p.want[topic][partition]
	if !known {
		was = -1
	}
	if next >= 0 {
		set(p.want, topic, partition, next)
	}
	return was, known
}

// reset notes where the engine was told to begin or go on.
func (p *places) reset(topic string, partition int32, next int64) {
	set(p.from, topic, partition, next)
	set(p.want, topic, partition, next)
	set(p.read, topic, partition, next)
}

// back notes that the engine goes on at an offset that it had been past: what was
// done behind it, or before the snapshot, is not there any more.
func (p *places) back(topic string, partition int32, next int64) {
	p.reset(topic, partition, next)
	for _, places := range []map[string]map[int32]kgo.EpochOffset{p.done, p.start} {
		if was := places[topic][partition]; was.Offset > next {
			set(places, topic, partition, kgo.EpochOffset{Epoch: was.Epoch, Offset: next})
		}
	}
}

// isNews reports whether this error of topic has not been reported since it last
// worked.
func (p *places) isNews(topic, what string) bool {
	if p.said[topic][what] {
		return false
	}
	if p.said[topic] == nil {
		p.said[topic] = make(map[string]bool)
	}
	p.said[topic][what] = true
	return true
}

func (p *places) topicWorks(topic string) { delete(p.said, topic) }

// ahead says what is to be read next, for an error that is of no one partition.
func (p *places) ahead() string {
	const most = 3
	var next []string
	for _, topic := range slices.Sorted(maps.Keys(p.want)) {
		for _, part := range slices.Sorted(maps.Keys(p.want[topic])) {
			next = append(next, fmt.Sprintf("topic %s partition %d offset %d", topic, part, p.want[topic][part]))
		}
	}
	switch more := len(next) - most; {
	case len(next) == 0:
		return ""
	case more > 0:
		next = append(next[:most], fmt.Sprintf("%d more", more))
	}
	return "; next to be read: " + strings.Join(next, ", ")
}

// position puts topics into position and starts to consume them. If it fails, it can
// be called again.
func (c *Consumer) position(ctx context.Context, topics []string) error {
	states, err := c.cluster.findTopics(ctx, topics...)
	if err != nil {
		return err
	}
	starts, err := c.whereToStart(ctx, states, topics)
	if err != nil {
		return err
	}
	if c.group != "" {
		if err := c.pin(ctx, states, topics, starts); err != nil {
			return err
		}
	}
	direct := make(map[string]map[int32]kgo.Offset)
	c.mu.Lock()
	for _, topic := range topics {
		c.cluster.logLeaders(topicState{}, states[topic])
		c.places.states[topic] = states[topic]
		for _, part := range states[topic].partitions {
			at := kgo.NewOffset().AtStart()
			if start, ok := starts[topic][part.id]; ok {
				at = startingAt(start)
				set(c.places.start, topic, part.id, start)
				if c.group == "" && start.Offset >= 0 {
					c.places.reset(topic, part.id, start.Offset)
				}
			}
			set(direct, topic, part.id, at)
		}
	}
	c.mu.Unlock() // the engine may wait for a broker
	if c.group == "" {
		c.cluster.client.AddConsumePartitions(direct)
	} else {
		c.cluster.client.AddConsumeTopics(topics...)
	}
	return nil
}

// whereToStart returns where to start in each partition: at its end, the offset of the next
// message, or at its beginning as it is now, so that it is noticed if that is deleted. Of a
// partition without a leader it returns the epoch at whose end to start, or nothing if that
// is at the beginning.
func (c *Consumer) whereToStart(ctx context.Context, states map[string]topicState, topics []string) (map[string]map[int32]kgo.EpochOffset, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	const latest, earliest = -1, -2
	when := int64(latest)
	if c.fromBeginning {
		when = earliest
	}
	starts := make(map[string]map[int32]kgo.EpochOffset)
	wanted := 0
	for _, topic := range topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, part := range states[topic].partitions {
			if part.leader < 0 {
				if !c.fromBeginning {
					set(starts, topic, part.id, kgo.EpochOffset{Epoch: part.epoch, Offset: -1})
				}
				continue
			}
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = part.id, when
			t.Partitions = append(t.Partitions, p)
			wanted++
		}
		req.Topics = append(req.Topics, t)
	}
	if wanted == 0 {
		return starts, nil
	}
	for _, shard := range c.cluster.client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					if errors.Is(err, kerr.TopicAuthorizationFailed) {
						return nil, c.cluster.topicError(ctx, t.Topic, err)
					}
					return nil, fmt.Errorf("topic %s partition %d: %w", t.Topic, p.Partition, err)
				}
				set(starts, t.Topic, p.Partition, kgo.EpochOffset{Epoch: p.LeaderEpoch, Offset: p.Offset})
				wanted--
			}
		}
	}
	if wanted != 0 {
		return nil, fmt.Errorf("where %d partition(s) begin or end was not told: %w", wanted, kerr.UnknownTopicOrPartition)
	}
	return starts, nil
}
