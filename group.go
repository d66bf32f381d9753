package gracedb

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file is what a Consumer does with the stored position of its group.

// pin stores starts as the group's position where it has none. A group with live
// members refuses that; then adjust does it when a partition is assigned. Where the
// group has a position in other partitions of the topic, one without is newer than
// the group, which is to read it from its first message: its start is dropped.
func (c *Consumer) pin(ctx context.Context, states map[string]topicState, topics []string, starts map[string]map[int32]kgo.EpochOffset) error {
	committed, err := c.committed(ctx, states, topics)
	if err != nil {
		return err
	}
	// What was stored of a partition without a leader holds for all members, however late
	// they come.
	for topic, parts := range committed {
		for part, stored := range parts {
			if stored.Offset < 0 {
				set(starts, topic, part, stored)
			}
		}
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
		c.cluster.log.Debug("gracedb: kafka: the group is alive; its position is stored with the assignment", "group", c.group, "err", errs.Reason(err))
		return nil
	}
	c.logStarts(missing)
	return nil
}

// committed returns the positions that the group has stored: an offset, or -1 and the
// epoch at whose end it begins.
func (c *Consumer) committed(ctx context.Context, states map[string]topicState, topics []string) (map[string]map[int32]kgo.EpochOffset, error) {
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
	resp, err := req.RequestWith(ctx, c.cluster.client)
	if err != nil {
		return nil, c.groupError(err) // who may not use a group is not told its coordinator
	}
	committed := make(map[string]map[int32]kgo.EpochOffset)
	// What cannot be told now, such as while a transaction is ending, is not none.
	note := func(topic string, partition int32, code int16, at kgo.EpochOffset) error {
		if err := kerr.ErrorForCode(code); err != nil {
			return fmt.Errorf("the position in topic %s partition %d: %w", topic, partition, c.groupError(err))
		}
		if at.Offset >= 0 || at.Epoch >= 0 {
			set(committed, topic, partition, at)
		}
		return nil
	}
	if err := c.groupError(kerr.ErrorForCode(resp.ErrorCode)); err != nil {
		return nil, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := note(t.Topic, p.Partition, p.ErrorCode, kgo.EpochOffset{Epoch: p.LeaderEpoch, Offset: p.Offset}); err != nil {
				return nil, err
			}
		}
	}
	for _, g := range resp.Groups {
		if err := c.groupError(kerr.ErrorForCode(g.ErrorCode)); err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			name := t.Topic
			if name == "" {
				name = names[t.TopicID]
			}
			for _, p := range t.Partitions {
				if err := note(name, p.Partition, p.ErrorCode, kgo.EpochOffset{Epoch: p.LeaderEpoch, Offset: p.Offset}); err != nil {
					return nil, err
				}
			}
		}
	}
	return committed, nil
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
	resp, err := req.RequestWith(ctx, c.cluster.client)
	if err != nil {
		return err
	}
	return commitError(resp)
}

// adjust is called when partitions are assigned, with the group's positions. Where
// it has none the snapshot is put in, and where it has not heard of all that is
// done here, since the session ended before that could be stored, what is done.
// Both are stored: else they would be lost if the partition moves on.
func (c *Consumer) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	pinned := make(map[string]map[int32]kgo.EpochOffset)
	first := make(map[string]map[int32]kgo.EpochOffset) // where the group had no position
	c.mu.Lock()
	for topic, parts := range offsets {
		for part, offset := range parts {
			at := offset.EpochOffset()
			told := at.Offset
			known := c.positions.at(topic, part)
			if known.beginsAfresh() {
				if told != 0 {
					set(pinned, topic, part, kgo.EpochOffset{Epoch: -1, Offset: 0})
				}
				parts[part] = kgo.NewOffset().At(0)
				known.reset(0)
				continue
			}
			if known.start != nil && told < 0 {
				at = *known.start
			}
			// What was stored under a later leader than that of what is done here is
			// behind a loss of data: what is done is not there any more.
			if done := known.done; done.Offset > max(at.Offset, 0) && (told < 0 || at.Epoch <= done.Epoch) {
				at = done
			}
			if told < 0 {
				set(first, topic, part, at)
			}
			switch {
			case at.Offset < 0 && known.start == nil:
				continue // newer than the snapshot: from its first message
			case at.Offset < 0:
				parts[part] = startingAt(at)
				if at.Epoch >= 0 {
					set(pinned, topic, part, at)
				}
				continue
			case at.Offset != told:
				parts[part] = startingAt(at)
				set(pinned, topic, part, at)
			}
			known.reset(at.Offset)
		}
	}
	states := c.positions.states()
	c.mu.Unlock()
	c.logStarts(first)
	if len(pinned) > 0 {
		member, generation := c.cluster.client.GroupMetadata()
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		if err := c.commitAs(ctx, member, generation, states, pinned); err != nil {
			c.cluster.log.Warn("gracedb: kafka: the group's first position could not be stored yet", "group", c.group, "err", errs.Reason(err))
		}
	}
	return offsets, nil
}

// assigned is called whenever the group has taken the member, with what is new.
func (c *Consumer) assigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.groupWorks()
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, ids := range parts {
		for _, id := range ids {
			c.positions.at(topic, id).owned = true
		}
	}
}

// revoked stores what is done before other members take over.
func (c *Consumer) revoked(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	c.lose(parts, true)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c.logNotStored(cl.CommitMarkedOffsets(ctx), "messages will come again")
}

// autoCommitted is told how it went to store what is marked. What could not be stored is
// tried again in a second.
func (c *Consumer) autoCommitted(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
	if err == nil {
		err = commitError(resp)
	}
	if err != nil && !errs.IsContext(err) && !c.cluster.health.said.already("not stored: "+err.Error()) {
		c.logNotStored(err, "it will be tried again")
	}
}

// logNotStored logs that the position could not be stored, and what then. That of a topic
// that is not there any more is worth nothing: Poll tells that.
func (c *Consumer) logNotStored(err error, then string) {
	if err != nil && !isTopicGone(err) {
		c.cluster.log.Warn("gracedb: kafka: the position of the group could not be stored; "+then, "group", c.group, "err", errs.Reason(err))
	}
}

// isTopicGone reports whether err says that there is no such topic, or another of its name.
func isTopicGone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

// commitError returns the error of one partition in resp: of one whose topic is there, if
// there is such.
func commitError(resp *kmsg.OffsetCommitResponse) error {
	var found error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil && (found == nil || isTopicGone(found)) {
				found = fmt.Errorf("topic %s partition %d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return found
}

// lost is called when others may have the partitions already.
func (c *Consumer) lost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.lose(parts, false)
}

// lose notes that this member has these partitions no more. If tell, the engine is told of
// what is done there, else it never is.
func (c *Consumer) lose(parts map[string][]int32, tell bool) {
	c.marking <- struct{}{}
	defer func() { <-c.marking }()
	c.cluster.client.MarkCommitOffsets(c.losing(parts, tell))
}

// losing is lose without the engine. It returns what that is to be told.
func (c *Consumer) losing(parts map[string][]int32, tell bool) (marks map[string]map[int32]kgo.EpochOffset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if tell {
		marks = c.positions.takeMarks()
	}
	c.positions.losses++
	for topic, ids := range parts {
		for _, id := range ids {
			part := c.positions.at(topic, id)
			part.owned, part.lostAt = false, c.positions.losses
			part.reset(noOffset)
			if part.held != nil {
				part.held = nil
				c.letGo(topic, id)
			}
		}
	}
	return marks
}
