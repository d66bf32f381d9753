package gracedb

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file hands what is done to the engine, which stores it as the group's position. The
// engine may hold the lock that this takes while it waits for a broker, and Poll must not:
// so Poll only notes what is done, and the engine is told soon after, of all at once.

// What is done is stored within a second: the engine is told after markEvery, and stores
// what it was told every autoCommitEvery.
const (
	markEvery       = 100 * time.Millisecond
	autoCommitEvery = 800 * time.Millisecond
)

// mark notes that a message is done, if there is one, and its topic is.
func (c *Consumer) mark(t taken) {
	r := t.Record
	if c.group == "" || r == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.positions.topic(r.Topic)
	if in.isOld(t.topicID) {
		return
	}
	part := in.at(r.Partition)
	part.done, part.unmarked = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}, true
	if !c.handing {
		c.handing = true
		time.AfterFunc(markEvery, c.marksAreDue)
	}
}

// marksAreDue hands over what is marked, and looks again if something was marked meanwhile:
// so no more than one of these waits for the engine.
func (c *Consumer) marksAreDue() {
	c.handMarks()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handing = c.positions.areUnmarked(); c.handing {
		time.AfterFunc(markEvery, c.marksAreDue)
	}
}

// handMarks tells the engine what is done and what it has not been told. It may take as long
// as a broker does.
func (c *Consumer) handMarks() {
	c.marking <- struct{}{}
	defer func() { <-c.marking }()
	c.mu.Lock()
	marks := c.positions.takeMarks()
	c.mu.Unlock()
	c.cluster.client.MarkCommitOffsets(marks)
}

// takeMarks returns what is done in partitions of this member and is still to be told, which
// it is taken for from then on. Whoever calls it tells the engine before somebody else has
// the partitions: else the group's position would go back to where this member was.
func (p *positions) takeMarks() map[string]map[int32]kgo.EpochOffset {
	marks := make(map[string]map[int32]kgo.EpochOffset)
	for topic, t := range p.topics {
		for id, part := range t.partitions {
			if part.unmarked && part.owned && part.done.Offset != noOffset {
				set(marks, topic, id, part.done)
			}
			part.unmarked = false
		}
	}
	return marks
}

// areUnmarked reports whether there is something that the engine has not been told.
func (p *positions) areUnmarked() bool {
	for _, t := range p.topics {
		for _, part := range t.partitions {
			if part.unmarked {
				return true
			}
		}
	}
	return false
}

// Commit stores the position after the last message returned, if there is a
// group. Without it, a message is marked done when the next is asked for, and
// marks are stored within a second, at a rebalance and by Close.
func (c *Consumer) Commit(ctx context.Context) error {
	if err := c.made(); err != nil {
		return err
	}
	if c.cluster.isClosed() {
		return c.cluster.errClosed()
	}
	if c.group == "" {
		return nil
	}
	current := c.current
	return c.cluster.await(ctx, running, "committing", func(ctx context.Context) error {
		c.mark(current)
		c.handMarks()
		err := c.cluster.client.CommitMarkedOffsets(ctx)
		if errors.Is(err, kerr.UnknownTopicID) {
			return errs.New([]error{err}, "kafka: the position of group %s is not stored in a topic that was deleted, or made anew: there is none in it any more; Poll tells what is lost", errs.Clean(c.group))
		}
		return err
	})
}
