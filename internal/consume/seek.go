package consume

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
)

// soughtFor is how long after a Seek kgo may still come with an offset of the group that it asked for
// before that of the Seek was committed.
const soughtFor = 2 * cluster.RequestTimeout

// Seek moves all partitions to the first message that is not before t, or to the oldest if t is zero.
//  1. Brokers are asked for the offsets. If that fails, nothing has changed.
//  2. What was fetched is dropped, and kgo goes on at the offsets.
//  3. In a group they are committed, in partitions of other members, too.
func (c *Consumer) Seek(ctx context.Context, t time.Time) error {
	if c.cluster.Life.IsClosing() {
		return c.cluster.ErrClosed()
	}
	from := int64(earliest)
	if !t.IsZero() {
		from = millis(t)
	}
	var states map[string]cluster.Topic
	var to offsetMap
	err := c.cluster.Await(ctx, cluster.Starting, "seeking", func(ctx context.Context) (err error) {
		states, to, err = c.findOffsets(ctx, from)
		return err
	})
	if err != nil {
		return err
	}
	if err := c.awaitFetch(ctx); err != nil {
		return err
	}
	c.noteSeek(to)
	c.dropFetched()
	c.setOffsets(to)
	if err := c.awaitMove(ctx); err != nil || c.group == "" {
		return err
	}
	return c.cluster.Await(ctx, cluster.Running, "storing the position", func(ctx context.Context) error {
		return c.commitSought(ctx, states, to)
	})
}

// findOffsets puts what a lazy Consumer has not put into position yet into it, and returns the offsets
// of step 1 of Seek.
func (c *Consumer) findOffsets(ctx context.Context, from int64) (map[string]cluster.Topic, offsetMap, error) {
	if !c.beginRound(ctx) {
		return nil, nil, ctx.Err()
	}
	defer c.endRound()
	c.mu.Lock()
	pending := slices.Clone(c.positions.pending)
	c.mu.Unlock()
	if len(pending) > 0 {
		if err := c.position(ctx, pending); err != nil {
			return nil, nil, err
		}
		c.mu.Lock()
		c.positions.pending = slices.DeleteFunc(c.positions.pending, func(t string) bool { return slices.Contains(pending, t) })
		c.mu.Unlock()
	}
	c.mu.Lock()
	topics := c.positions.consumed()
	c.mu.Unlock()
	if len(topics) == 0 {
		return nil, nil, nil
	}
	states, err := c.cluster.FindTopics(ctx, kmsg.ACLOperationRead, topics...)
	if err != nil {
		return nil, nil, err
	}
	if err := cluster.CheckLeaders(states, topics...); err != nil {
		return nil, nil, err
	}
	to, err := c.offsetsFrom(ctx, states, topics, from)
	return states, to, err
}

// awaitFetch waits for a PollRecords whose ctx has ended and that still waits for a broker (see fetch),
// and drops what it returns.
func (c *Consumer) awaitFetch(ctx context.Context) error {
	if err := c.awaitMove(ctx); err != nil {
		return err
	}
	if c.polling != nil {
		select {
		case <-c.polling.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.cluster.Life.Closing:
			return c.cluster.ErrClosed()
		}
		c.polling.fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				c.budget.release(p.Records)
			}
		})
		c.polling = nil
	}
	return nil
}

// dropFetched drops what was fetched and Poll has not returned, but for errors that Poll is still to
// tell and that move nothing. The message at hand is of no concern any more.
func (c *Consumer) dropFetched() {
	c.current, c.seeking = fetched{}, nil
	moves := func(b batch) bool { return b.err == nil || b.seek != nil }
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buffer = slices.DeleteFunc(c.buffer, moves)
	c.reports = slices.DeleteFunc(c.reports, moves)
}

// noteSeek notes where partitions are moved to. What was done before is forgotten: a mark of it would
// move the group on.
func (c *Consumer) noteSeek(to offsetMap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, parts := range to {
		c.resumeAll(topic)
		for id, at := range parts {
			part := c.positions.at(topic, id)
			part.forget()
			part.unmarked, part.remadeAt = false, time.Time{}
			part.start, part.sought, part.soughtAt = &at, &at, time.Now()
			if c.group == "" || part.owned {
				part.reset(at.Offset)
			}
		}
	}
}

// takeSought returns, once, where Seek has moved a partition of which no message was returned since.
func (part *partition) takeSought() *kgo.EpochOffset {
	sought := part.sought
	if part.sought = nil; time.Since(part.soughtAt) > soughtFor {
		return nil
	}
	return sought
}

// setOffsets makes kgo go on at these offsets, in partitions that are not paused any more. It may take
// as long as PollRecords (see fetch), so awaitMove waits for it.
func (c *Consumer) setOffsets(to offsetMap) {
	done := make(chan struct{})
	c.moving = done
	go func() {
		defer close(done)
		c.markInKgo() // it waits for a goroutine that is about to add marks
		c.cluster.KGO.SetOffsets(to)
		parts := make(map[string][]int32)
		for topic, offsets := range to {
			for id := range offsets {
				parts[topic] = append(parts[topic], id)
			}
		}
		c.cluster.KGO.ResumeFetchPartitions(parts)
	}()
}

// awaitMove waits until kgo has taken the offsets of setOffsets: what it returns before then is of
// where it was.
func (c *Consumer) awaitMove(ctx context.Context) error {
	if c.moving == nil {
		return nil
	}
	select {
	case <-c.moving:
		c.moving = nil
		return nil
	case <-c.cluster.Life.Closing:
		return c.cluster.ErrClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rejoinPause is how long commitSought waits for the group.
const rejoinPause = 100 * time.Millisecond

// commitSought commits the offsets of a Seek.
//  1. kgo commits what SetOffsets gave it, once a commit of its own that was on its way is over;
//  2. all offsets are committed, also in partitions that this member does not have. While this member
//     joins the group, the coordinator refuses that, and it is tried again.
func (c *Consumer) commitSought(ctx context.Context, states map[string]cluster.Topic, to offsetMap) error {
	if len(to) == 0 {
		return nil
	}
	for {
		if err := c.cluster.KGO.CommitMarkedOffsets(ctx); err != nil && !isRejoining(err) {
			return c.groupError(err)
		}
		member, generation := c.cluster.KGO.GroupMetadata()
		err := c.commitOffsets(ctx, member, generation, states, to)
		if !isRejoining(err) {
			return c.groupError(err)
		}
		select {
		case <-time.After(rejoinPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isRejoining reports whether err says that this member is not in the group's generation yet, or any more.
func isRejoining(err error) bool {
	return errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.RebalanceInProgress)
}
