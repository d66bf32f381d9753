package consume

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file brings what the caller is done with to kgo, which commits it for the group:
//  1. Poll returns a message; the next Poll notes it as done, in positions, under mu alone;
//  2. at most markEvery later a timer hands all that is unmarked to kgo by MarkCommitOffsets;
//  3. kgo commits its marks every autoCommitEvery, and when partitions are revoked.
// Step 2 is not done by Poll since MarkCommitOffsets takes kgo's lock of the group, which kgo
// (v1.22.2) may hold while it waits for a broker: Poll is to return when its ctx ends.

// What is done is committed within a second: markEvery and autoCommitEvery together.
const (
	markEvery       = 100 * time.Millisecond
	autoCommitEvery = 800 * time.Millisecond
)

// noteDone notes that the caller is done with a message. It does nothing without a message or a
// group, or if the message's topic was deleted.
func (c *Consumer) noteDone(t fetched) {
	r := t.Record
	if c.group == "" || r == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.positions.topic(r.Topic)
	if in.isFormer(t.topicID) {
		return
	}
	part := in.at(r.Partition)
	part.done, part.unmarked = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}, true
	if !c.markDue {
		c.markDue = true
		time.AfterFunc(markEvery, c.markWhenDue)
	}
}

// markWhenDue is called by a timer, of which there is one at a time: so no more than one
// goroutine waits for kgo. It starts the timer again if more was done meanwhile.
func (c *Consumer) markWhenDue() {
	c.markInKgo()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.markDue = c.positions.areUnmarked(); c.markDue {
		time.AfterFunc(markEvery, c.markWhenDue)
	}
}

// markInKgo hands what is done and unmarked to kgo. It may take as long as a broker does.
func (c *Consumer) markInKgo() {
	c.marking <- struct{}{}
	defer func() { <-c.marking }()
	c.mu.Lock()
	marks := c.positions.takeMarks()
	c.mu.Unlock()
	c.cluster.KGO.MarkCommitOffsets(marks)
}

// takeMarks returns what is done in partitions of this member and unmarked, and notes that it is
// marked. The caller holds consumer.marking, and hands the marks to kgo before it releases that.
// Otherwise, if another member gets a partition in between and commits there, the late mark of
// this one would move the group's offset back.
func (p *positions) takeMarks() offsetMap {
	marks := make(offsetMap)
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

// areUnmarked reports whether something is done of which kgo has not been told.
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

// Commit commits the offset behind the message that Poll returned last, if there is a group.
func (c *Consumer) Commit(ctx context.Context) error {
	if c.cluster.Life.IsClosing() {
		return c.cluster.ErrClosed()
	}
	if c.group == "" {
		return nil
	}
	current := c.current
	return c.cluster.Await(ctx, cluster.Running, "committing", func(ctx context.Context) error {
		c.noteDone(current)
		c.markInKgo()
		err := c.cluster.KGO.CommitMarkedOffsets(ctx)
		if errors.Is(err, kerr.UnknownTopicID) {
			return errs.New([]error{err},
				"kafka: the position of group %s is not stored in a topic that was deleted, or made anew: there is none in it any more; Poll tells what is lost",
				errs.Clean(c.group))
		}
		return err
	})
}
