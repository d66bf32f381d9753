package consume

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file is what a Consumer does with the committed offsets of its group, and what it does
// when kgo tells it that the group's coordinator has assigned or taken away partitions. kgo makes
// those calls, the functions on…, from goroutines of its own that manage the group; it joins no
// generation, and fetches nothing of a partition, before they return.

// commitStart commits starts where the group has committed nothing, so that a later member
// begins there, too.
//  1. A group without members takes the commit of a stranger: all is done.
//  2. A group with members refuses it: onOffsetsFetched commits when a partition is assigned.
//
// Where the group has committed offsets in other partitions of the topic, a partition without
// one is newer than the group and is read from its first message: its start is dropped.
func (c *Consumer) commitStart(ctx context.Context, states map[string]cluster.Topic, topics []string, starts offsetMap) error {
	committed, err := c.fetchCommitted(ctx, states, topics)
	if err != nil {
		return err
	}
	// That a partition without a leader is read from the end of an epoch is committed by the first
	// member, and holds for members that start when the partition has a leader again.
	for topic, parts := range committed {
		for part, stored := range parts {
			if stored.Offset < 0 {
				set(starts, topic, part, stored)
			}
		}
	}
	missing := make(offsetMap)
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
	err = c.commitOffsets(ctx, "", -1, states, missing)
	if err != nil {
		c.cluster.Log.Debug("gracedb: kafka: the group is alive; its position is stored with the assignment", "group", c.group, "err", errs.Reason(err))
		return nil
	}
	c.logStarts(missing)
	return nil
}

// offsetFetch returns the request for what the group has committed in these topics, and their names
// by their ids.
func (c *Consumer) offsetFetch(states map[string]cluster.Topic, topics []string) (*kmsg.OffsetFetchRequest, map[[16]byte]string) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = c.group, true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = c.group
	names := make(map[[16]byte]string)
	for _, topic := range topics {
		t := kmsg.NewOffsetFetchRequestTopic()
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		// From version 10 on the request has ids instead of names; kgo writes what the version has.
		t.Topic, gt.Topic, gt.TopicID = topic, topic, states[topic].ID
		names[states[topic].ID] = topic
		for _, part := range states[topic].Partitions {
			t.Partitions = append(t.Partitions, part.ID)
			gt.Partitions = append(gt.Partitions, part.ID)
		}
		req.Topics = append(req.Topics, t)
		g.Topics = append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	return req, names
}

// fetchCommitted returns the offsets that the group has committed: an offset, or -1 with the
// epoch at whose end the group begins.
func (c *Consumer) fetchCommitted(ctx context.Context, states map[string]cluster.Topic, topics []string) (offsetMap, error) {
	req, names := c.offsetFetch(states, topics)
	resp, err := req.RequestWith(ctx, c.cluster.KGO)
	if err != nil {
		return nil, c.groupError(err) // GROUP_AUTHORIZATION_FAILED comes from FindCoordinator already
	}
	committed := make(offsetMap)
	// An error, such as that a transaction has not ended yet, does not mean that there is no offset.
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

// commitOffsets commits offsets as the given member of a generation, or, with member "" and
// generation -1, as a stranger to a group without members.
func (c *Consumer) commitOffsets(ctx context.Context, member string, generation int32, states map[string]cluster.Topic, at offsetMap) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = c.group, member, generation
	for topic, parts := range at {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.TopicID = topic, states[topic].ID
		for part, end := range parts {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch = part, end.Offset, end.Epoch
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, c.cluster.KGO)
	if err != nil {
		return err
	}
	return commitError(resp)
}

// onOffsetsFetched is called by kgo when partitions are assigned and their committed offsets are
// fetched, and returns where kgo is to begin. The first row that holds for a partition decides:
//
//	its topic was made anew                  offset 0, whatever is committed of the old topic
//	Seek has moved it just now               where to: kgo may have asked before that was committed
//	this member's done is behind committed   done: its session ended before that was committed
//	… but committed has a later epoch        committed: done was lost with the old leader's data
//	nothing is committed                     the snapshot, if it has the partition
//	nothing, and no leader with Since        the first message since then, when it has a leader
//	nothing, and not in the snapshot         the first message, which is kgo's default
//	all else                                 committed
//
// What differs from committed is committed at once: otherwise the member that has the partition
// next would not know it.
func (c *Consumer) onOffsetsFetched(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	moved := make(offsetMap)
	first := make(offsetMap) // where the group had no position
	c.mu.Lock()
	for topic, parts := range offsets {
		for part, offset := range parts {
			at := offset.EpochOffset()
			told := at.Offset
			known := c.positions.at(topic, part)
			if to, ok := known.takePlace(); ok {
				if parts[part] = kgoOffset(to); to.Offset != told {
					set(moved, topic, part, to)
				}
				known.reset(to.Offset)
				continue
			}
			if known.start != nil && told < 0 {
				at = *known.start
			}
			if done := known.done; done.Offset > max(at.Offset, 0) && (told < 0 || at.Epoch <= done.Epoch) {
				at = done
			}
			if told < 0 {
				set(first, topic, part, at)
			}
			switch {
			case at.Offset < 0 && known.late:
				parts[part] = kgo.NewOffset().AfterMilli(c.from)
				continue
			case at.Offset < 0 && known.start == nil:
				continue // from its first message
			case at.Offset < 0:
				parts[part] = kgoOffset(at)
				if at.Epoch >= 0 {
					set(moved, topic, part, at)
				}
				continue
			case at.Offset != told:
				parts[part] = kgoOffset(at)
				set(moved, topic, part, at)
			}
			known.reset(at.Offset)
		}
	}
	states := c.positions.states()
	c.mu.Unlock()
	c.logStarts(first)
	if len(moved) > 0 {
		member, generation := c.cluster.KGO.GroupMetadata()
		ctx, cancel := context.WithTimeout(ctx, cluster.RequestTimeout)
		defer cancel()
		if err := c.commitOffsets(ctx, member, generation, states, moved); err != nil {
			c.cluster.Log.Warn("gracedb: kafka: the group's first position could not be stored yet", "group", c.group, "err", errs.Reason(err))
		}
	}
	return offsets, nil
}

// takePlace returns, once, where a partition goes on whatever its group has stored: at the beginning of
// a topic that was made anew, or where Seek has moved it.
func (part *partition) takePlace() (at kgo.EpochOffset, ok bool) {
	if part.takeRemade() {
		return kgo.EpochOffset{Epoch: -1, Offset: 0}, true
	}
	if sought := part.takeSought(); sought != nil {
		return *sought, true
	}
	return kgo.EpochOffset{}, false
}

// onAssigned is called by kgo after each rebalance that this member took part in, with the
// partitions that are new to it.
func (c *Consumer) onAssigned(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.endGroupTrouble()
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, ids := range parts {
		for _, id := range ids {
			c.positions.at(topic, id).owned = true
		}
	}
}

// onRevoked is called by kgo before other members get these partitions, and commits what is done
// there.
func (c *Consumer) onRevoked(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	c.losePartitions(parts, true)
	ctx, cancel := context.WithTimeout(ctx, cluster.RequestTimeout)
	defer cancel()
	c.logNotStored(cl.CommitMarkedOffsets(ctx), "messages will come again")
}

// onAutoCommit is called by kgo with the outcome of each commit that it makes by itself, every
// autoCommitEvery. The next one tries again what could not be committed.
func (c *Consumer) onAutoCommit(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
	if err == nil {
		err = commitError(resp)
	}
	if err != nil && !errs.IsContext(err) && !c.cluster.Health.Said.Already("not stored: "+err.Error()) {
		c.logNotStored(err, "it will be tried again")
	}
}

// logNotStored logs that offsets could not be committed, and what happens then. Offsets of a
// topic that was deleted are worth nothing: Poll tells that it was.
func (c *Consumer) logNotStored(err error, then string) {
	if err != nil && !isTopicGone(err) {
		c.cluster.Log.Warn("gracedb: kafka: the position of the group could not be stored; "+then, "group", c.group, "err", errs.Reason(err))
	}
}

// isTopicGone reports whether err says that there is no such topic, or another of its name.
func isTopicGone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

// commitError returns the error of one partition in resp, preferably one of a topic that exists.
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

// onLost is called by kgo when this member's session has ended: other members may have these
// partitions already.
func (c *Consumer) onLost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	c.losePartitions(parts, false)
}

// losePartitions notes that this member has these partitions no more. With commit, kgo gets the
// marks of what is done there, else nobody does.
func (c *Consumer) losePartitions(parts map[string][]int32, commit bool) {
	c.marking <- struct{}{}
	defer func() { <-c.marking }()
	c.cluster.KGO.MarkCommitOffsets(c.noteLoss(parts, commit))
}

// noteLoss is losePartitions without kgo. It returns the marks that kgo is to get.
func (c *Consumer) noteLoss(parts map[string][]int32, commit bool) (marks offsetMap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if commit {
		marks = c.positions.takeMarks()
	}
	c.positions.losses++
	for topic, ids := range parts {
		for _, id := range ids {
			part := c.positions.at(topic, id)
			if part.owned {
				part.sought = nil // what is committed is as new
			}
			part.owned, part.lostAt = false, c.positions.losses
			part.reset(noOffset)
			if part.held != nil {
				part.held = nil
				c.resume(topic, id)
			}
		}
	}
	return marks
}
