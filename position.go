package gracedb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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
	start  map[string]map[int32]int64           // the snapshot
	from   map[string]map[int32]int64           // where the engine was told to begin or go on
	want   map[string]map[int32]int64           // the next offset expected
	done   map[string]map[int32]kgo.EpochOffset // behind the last message that is done
	owned  map[string]map[int32]bool            // a group member's partitions
	lost   map[string]map[int32]int             // at which of losses a partition was lost last
	losses int
	said   map[string]map[string]bool // by topic: errors reported and not over
}

func newPlaces() places {
	return places{
		states: make(map[string]topicState), gone: make(map[string]int),
		start: make(map[string]map[int32]int64), from: make(map[string]map[int32]int64),
		want: make(map[string]map[int32]int64), done: make(map[string]map[int32]kgo.EpochOffset),
		lost: make(map[string]map[int32]int), owned: make(map[string]map[int32]bool),
		said: make(map[string]map[string]bool),
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
}

// back notes that the engine goes on at an offset that it had been past: what was
// done behind it is not there any more.
func (p *places) back(topic string, partition int32, next int64) {
	p.reset(topic, partition, next)
	if done := p.done[topic][partition]; done.Offset > next {
		set(p.done, topic, partition, kgo.EpochOffset{Epoch: done.Epoch, Offset: next})
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
	states, err := c.findTopics(ctx, topics...)
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
		c.places.states[topic] = states[topic]
		for _, part := range states[topic].partitions {
			at := kgo.NewOffset().AtStart()
			if start, ok := starts[topic][part.id]; ok {
				at = kgo.NewOffset().At(start.Offset).WithEpoch(start.Epoch)
				set(c.places.start, topic, part.id, start.Offset)
				if c.group == "" {
					c.places.reset(topic, part.id, start.Offset)
				}
			}
			set(direct, topic, part.id, at)
		}
	}
	c.mu.Unlock() // the engine may wait for a broker
	if c.group == "" {
		c.client.AddConsumePartitions(direct)
	} else {
		c.client.AddConsumeTopics(topics...)
	}
	return nil
}

// whereToStart returns where to start in each partition: at its end, the offset of the next
// message, or at its beginning as it is now, so that it is noticed if that is deleted.
func (c *Consumer) whereToStart(ctx context.Context, states map[string]topicState, topics []string) (map[string]map[int32]kgo.EpochOffset, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	const latest, earliest = -1, -2
	when := int64(latest)
	if c.fromBeginning {
		when = earliest
	}
	wanted := 0
	for _, topic := range topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, part := range states[topic].partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = part.id, when
			t.Partitions = append(t.Partitions, p)
			wanted++
		}
		req.Topics = append(req.Topics, t)
	}
	starts := make(map[string]map[int32]kgo.EpochOffset)
	for _, shard := range c.client.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					if errors.Is(err, kerr.TopicAuthorizationFailed) {
						return nil, c.topicError(ctx, t.Topic, err)
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

// pin stores starts as the group's position where it has none. A group with live
// members refuses that; then adjust does it when a partition is assigned. Where the
// group has a position in other partitions of the topic, one without is newer than
// the group, which is to read it from its first message: its start is dropped.
func (c *Consumer) pin(ctx context.Context, states map[string]topicState, topics []string, starts map[string]map[int32]kgo.EpochOffset) error {
	committed, err := c.committed(ctx, states, topics)
	if err != nil {
		return err
	}
	missing := make(map[string]map[int32]kgo.EpochOffset)
	for topic, parts := range starts {
		for part, start := range parts {
			switch _, ok := committed[topic][part]; {
			case ok:
			case len(committed[topic]) > 0:
				delete(parts, part)
			default:
				set(missing, topic, part, start)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	err = c.commitAs(ctx, "", -1, states, missing)
	if err != nil {
		c.log.Debug("gracedb: kafka: the group is alive; its position is stored with the assignment", "group", c.group, "err", reason(err))
	}
	return nil
}

// committed returns the positions that the group has stored.
func (c *Consumer) committed(ctx context.Context, states map[string]topicState, topics []string) (map[string]map[int32]int64, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = c.group, true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = c.group
	names := make(map[[16]byte]string)
	for _, topic := range topics {
		t := kmsg.NewOffsetFetchRequestTopic()
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		// Since version 10 brokers want the id.
		t.Topic, gt.Topic, gt.TopicID = topic, topic, states[topic].id
		names[states[topic].id] = topic
		for _, part := range states[topic].partitions {
			t.Partitions = append(t.Partitions, part.id)
			gt.Partitions = append(gt.Partitions, part.id)
		}
		req.Topics = append(req.Topics, t)
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return nil, err
	}
	committed := make(map[string]map[int32]int64)
	if err := c.groupError(resp.ErrorCode); err != nil {
		return nil, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.Offset >= 0 && p.ErrorCode == 0 {
				set(committed, t.Topic, p.Partition, p.Offset)
			}
		}
	}
	for _, g := range resp.Groups {
		if err := c.groupError(g.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			name := t.Topic
			if name == "" {
				name = names[t.TopicID]
			}
			for _, p := range t.Partitions {
				if p.Offset >= 0 && p.ErrorCode == 0 {
					set(committed, name, p.Partition, p.Offset)
				}
			}
		}
	}
	return committed, nil
}

// groupError returns what keeps a group from being used. A group that does not
// exist yet has no position, which is no error.
func (c *Consumer) groupError(code int16) error {
	err := kerr.ErrorForCode(code)
	switch {
	case err == nil, errors.Is(err, kerr.GroupIDNotFound):
		return nil
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return fail([]error{ErrConsumer, err}, "kafka: group %s: %s may not use it", cleanText(c.group), c.principal())
	}
	return fmt.Errorf("group %s: %w", c.group, err)
}

// commitAs stores positions as the given member of a generation, or as nobody.
func (c *Consumer) commitAs(ctx context.Context, member string, generation int32, states map[string]topicState, at map[string]map[int32]kgo.EpochOffset) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = c.group, member, generation
	for topic, parts := range at {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.TopicID = topic, states[topic].id
		for part, end := range parts {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch = part, end.Offset, end.Epoch
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("topic %s partition %d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return nil
}

// adjust is called when partitions are assigned, with the group's positions. Where
// it has none the snapshot is put in, and where it has not heard of all that is
// done here, since the session ended before that could be stored, what is done.
// Both are stored: else they would be lost if the partition moves on.
func (c *Consumer) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	pinned := make(map[string]map[int32]kgo.EpochOffset)
	c.mu.Lock()
	for topic, parts := range offsets {
		for part, offset := range parts {
			at := offset.EpochOffset()
			told := at.Offset
			if snapshot, ok := c.places.start[topic][part]; ok && told < 0 {
				at = kgo.EpochOffset{Epoch: -1, Offset: snapshot}
			}
			// What was stored under a later leader than that of what is done here is
			// behind a loss of data: what is done is not there any more.
			if done := c.places.done[topic][part]; done.Offset > max(at.Offset, 0) && at.Epoch <= done.Epoch {
				at = kgo.EpochOffset{Epoch: -1, Offset: done.Offset}
			}
			if at.Offset < 0 {
				continue // FromBeginning, or newer than the snapshot: from its first message
			}
			if at.Offset != told {
				parts[part] = kgo.NewOffset().At(at.Offset)
				set(pinned, topic, part, at)
			}
			c.places.reset(topic, part, at.Offset)
		}
	}
	states := maps.Clone(c.places.states)
	c.mu.Unlock()
	if len(pinned) > 0 {
		member, generation := c.client.GroupMetadata()
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		if err := c.commitAs(ctx, member, generation, states, pinned); err != nil {
			c.log.Warn("gracedb: kafka: the group's first position could not be stored yet", "group", c.group, "err", reason(err))
		}
	}
	return offsets, nil
}

func (c *Consumer) assigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, ids := range parts {
		for _, id := range ids {
			set(c.places.owned, topic, id, true)
		}
	}
}

// revoked stores what is done before other members take over.
func (c *Consumer) revoked(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	c.lost(ctx, cl, parts)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := cl.CommitMarkedOffsets(ctx); err != nil {
		c.log.Warn("gracedb: kafka: the position of the group could not be stored; messages will come again", "group", c.group, "err", reason(err))
	}
}

func (c *Consumer) lost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places.losses++
	for topic, ids := range parts {
		for _, id := range ids {
			set(c.places.lost, topic, id, c.places.losses)
			delete(c.places.owned[topic], id)
			delete(c.places.from[topic], id)
			delete(c.places.want[topic], id)
		}
	}
}
