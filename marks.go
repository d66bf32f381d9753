package gracedb

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
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
	if c.places.isOld(r.Topic, t.topicID) {
		return
	}
	set(c.places.done, r.Topic, r.Partition, kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1})
	c.markLater(r.Topic, r.Partition)
}

// markLater makes the engine be told of what is done in a partition. It is called with c.mu
// held.
func (c *Consumer) markLater(topic string, partition int32) {
	set(c.places.marked, topic, partition, true)
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
	if c.handing = len(c.places.marked) > 0; c.handing {
		time.AfterFunc(markEvery, c.marksAreDue)
	}
}

// handMarks tells the engine what is done and what it has not been told. It may take as long
// as a broker does.
func (c *Consumer) handMarks() {
	c.marking <- struct{}{}
	defer func() { <-c.marking }()
	c.mu.Lock()
	marks := c.places.takeMarks()
	c.mu.Unlock()
	c.cluster.client.MarkCommitOffsets(marks)
}

// takeMarks returns what is done in partitions of this member and is still to be told, which
// it is taken for from then on. Whoever calls it tells the engine before somebody else has
// the partitions: else the group's position would go back to where this member was.
func (p *places) takeMarks() map[string]map[int32]kgo.EpochOffset {
	marks := make(map[string]map[int32]kgo.EpochOffset)
	for topic, parts := range p.marked {
		for part := range parts {
			if done, ok := p.done[topic][part]; ok && p.owns(topic, part) {
				set(marks, topic, part, done)
			}
		}
	}
	clear(p.marked)
	return marks
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
			return fail([]error{err}, "kafka: the position of group %s is not stored in a topic that was deleted, or made anew: there is none in it any more; Poll tells what is lost", cleanText(c.group))
		}
		return err
	})
}
