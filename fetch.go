package gracedb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// A polled is one call of kgo's PollRecords, and what that returned.
type polled struct {
	done chan struct{} // closed when the rest is set

	fetches kgo.Fetches
	losses  int // of partitions, until then
}

func (c *Consumer) poll(ctx context.Context, p *polled) {
	defer close(p.done)
	p.fetches = c.cluster.client.PollRecords(ctx, pollRecords)
	c.mu.Lock()
	defer c.mu.Unlock()
	p.losses = c.positions.losses
}

// fetch waits until there is something for Poll to do.
func (c *Consumer) fetch(ctx context.Context) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.polling == nil {
		c.polling = &polled{done: make(chan struct{})}
		go c.poll(inner, c.polling)
	}
	got := c.polling
	end, _ := c.cluster.auth.wait(ctx, waiting{done: got.done, closed: c.cluster.closed, news: c.wake, stop: stopPastGrace, told: c.outage})
	if end != isDone {
		cancel()
		// kgo returns at once, unless it is moving a partition from one broker to another: then
		// as soon as a connection to the first is made or given up.
		select {
		case <-got.done:
		case <-time.After(verdictTime):
			return
		}
	}
	c.polling = nil
	fetches := got.fetches
	// What was to be said by now comes before what was fetched: a topic that was made anew is
	// read only after that was said.
	c.mu.Lock()
	c.buffer = append(c.buffer, c.report...)
	c.report = nil
	c.mu.Unlock()
	// The engine puts a loss of data behind what it has read again because of it.
	troubled := false
	each := func(losses bool) {
		c.eachPartition(fetches, func(p kgo.FetchTopicPartition, topicID [16]byte) {
			if _, lost := errors.AsType[*kgo.ErrDataLoss](p.Err); lost != losses {
				return
			}
			c.take(p, topicID, got.losses)
			if p.Err != nil && !comesAgain(p) {
				troubled = true
				if b := c.trouble(p); b.err != nil {
					if b.past != nil {
						b.past.topicID = topicID
					}
					c.buffer = append(c.buffer, b)
				}
			}
		})
	}
	each(true)
	each(false)
	if !troubled || len(c.buffer) > 0 {
		return
	}
	// The engine may repeat an error as fast as it is asked.
	select {
	case <-time.After(troublePause):
	case <-inner.Done():
	}
}

// eachPartition calls f for each partition, but for those of a topic that was made anew
// since it was fetched.
func (c *Consumer) eachPartition(fetches kgo.Fetches, f func(kgo.FetchTopicPartition, [16]byte)) {
	for _, fetch := range fetches {
		for _, t := range fetch.Topics {
			if c.isFormer(t.Topic, t.TopicID) {
				continue
			}
			for _, p := range t.Partitions {
				f(kgo.FetchTopicPartition{Topic: t.Topic, FetchPartition: p}, t.TopicID)
			}
		}
	}
}

// comesAgain reports whether the engine will meet an error again, alone and then at its
// place: it cuts what it has fetched of a partition into pieces, and puts the error that
// ended it on each. Only batches of a form that it does not know it passes over.
func comesAgain(p kgo.FetchTopicPartition) bool {
	return len(p.Records) > 0 && !strings.HasPrefix(p.Err.Error(), "unknown magic")
}

// troublePause spaces fetches that brought nothing but trouble.
const troublePause = 100 * time.Millisecond

// take puts fetched messages into the buffer, and sees whether the broker has lost
// some before them.
func (c *Consumer) take(p kgo.FetchTopicPartition, topicID [16]byte, losses int) {
	if len(p.Records) == 0 {
		return
	}
	c.budget.polled(p.Records)
	first, last := p.Records[0].Offset, p.Records[len(p.Records)-1].Offset
	c.mu.Lock()
	part := c.positions.at(p.Topic, p.Partition)
	resumedAt := part.resumedAt // noOffset is before all
	if first < resumedAt {
		part.rewind(first)
		if c.group != "" {
			last = first - 1 // it is fetched again
		}
	}
	expected := part.next
	part.next = last + 1
	c.mu.Unlock()
	switch {
	case first < resumedAt:
		// Where nothing was read yet the engine goes to the log's start in silence.
		b := batch{err: errs.New([]error{errs.Consumer}, "kafka: topic %s partition %d: messages before %d are lost: the broker's log ended before it; continuing at %d",
			p.Topic, p.Partition, resumedAt, first)}
		if c.group != "" {
			// kgo takes no mark before the group's position until it is told to go on there.
			b.past = &skip{topic: p.Topic, topicID: topicID, partition: p.Partition, offset: first}
			p.Records = nil
		}
		c.buffer = append(c.buffer, b)
	case expected != noOffset && first > expected && p.LogStartOffset > expected:
		// Offsets have holes (compaction, transactions); what lies before the log's
		// start is lost.
		c.buffer = append(c.buffer, batch{err: errs.New([]error{errs.Consumer}, "kafka: topic %s partition %d: messages %d to %d are lost: the broker's log begins at %d; continuing there",
			p.Topic, p.Partition, expected, min(first, p.LogStartOffset)-1, p.LogStartOffset)})
	}
	c.mu.Lock()
	c.positions.topic(p.Topic).works()
	c.positions.topic("").works() // fetching as such
	messages := slices.DeleteFunc(p.Records, func(r *kgo.Record) bool { return r.Attrs.IsControl() })
	if len(messages) > 0 {
		c.buffer = append(c.buffer, batch{records: messages, topicID: topicID, losses: losses})
	}
	c.mu.Unlock()
}

// trouble returns what to say of an error that the engine met, if anything, and where to
// go on if it will not by itself.
func (c *Consumer) trouble(p kgo.FetchTopicPartition) batch {
	err := p.Err
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrClientClosed):
		return batch{} // ours
	case errors.Is(err, errs.Authentication), isRefusal(err):
		return batch{} // authState tells it, past the grace
	}
	if _, ofGroup := errors.AsType[*kgo.ErrGroupSession](err); ofGroup {
		return batch{} // groupWatch tells it
	}
	if errors.Is(err, errOverBudget) {
		return batch{} // kgo asks for it again, and there is room now
	}
	if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		c.mu.Lock()
		part := c.positions.at(p.Topic, p.Partition)
		if part.foundEnd(loss) {
			c.mu.Unlock()
			return batch{} // nothing is lost
		}
		part.rewind(loss.ResetTo)
		c.mu.Unlock()
		return batch{err: errs.New([]error{errs.Consumer, err}, "kafka: topic %s partition %d: the broker has lost messages between %d and %d; continuing at %d",
			p.Topic, p.Partition, loss.ResetTo, loss.ConsumedTo, loss.ResetTo)}
	}
	if bomb, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		err := errs.New([]error{errs.Consumer, err}, "kafka: topic %s partition %d offset %d: a batch inflates to more than %d bytes, or %d with what its messages take once decoded; continuing behind it",
			p.Topic, p.Partition, bomb.Offset, maxBatchBytes, heaviestBatch)
		return batch{err: err, past: &skip{topic: p.Topic, partition: p.Partition, offset: bomb.NextOffset}}
	}
	denied := errors.Is(err, kerr.TopicAuthorizationFailed)
	c.mu.Lock()
	in := c.positions.topic(p.Topic)
	at := in.at(p.Partition).next
	what := fmt.Sprintf("%d/%d/%s", p.Partition, at, err)
	if p.Topic == "" {
		what = "frame" // whose length, which the error tells, may be another each time
	}
	fresh, ahead := false, ""
	if p.Topic == "" || p.Partition < 0 || denied {
		fresh = in.isNews(what)
	}
	if fresh && p.Topic == "" {
		ahead = c.positions.ahead()
	}
	c.mu.Unlock()
	is := append(engineKinds(err), errs.Consumer, err)
	switch {
	case fresh && denied:
		return batch{err: errs.New(is, "kafka: topic %q: %s may not read it, or it does not exist", p.Topic, c.cluster.principal())}
	case kerr.IsRetriable(err), kgo.IsRetryableBrokerErr(err), isConnectionError(err):
		return batch{} // heals by itself; a frame that is too large is none of these
	case fresh && p.Topic == "":
		return batch{err: errs.New(is, "kafka: fetching from %s: %s%s", strings.Join(c.cluster.brokers, ", "), errs.Reason(err), ahead)}
	case fresh:
		return batch{err: errs.New(is, "kafka: topic %s: %s", p.Topic, errs.Reason(err))}
	case p.Topic != "" && p.Partition >= 0 && !denied:
		if at < 0 {
			at = p.LogStartOffset
		}
		c.holdUp(p.Topic, p.Partition, at, err)
	}
	return batch{}
}

// A skip is a place to go on at behind messages that cannot be read.
type skip struct {
	topic     string
	topicID   [16]byte
	partition int32
	offset    int64
}

// pass makes kgo go on behind what Poll has told of last. That waits for the next Poll,
// as marks do: kgo stores for the group where it is made to go on, and whoever ends with
// the error is told of it again. It may take as long as poll, past ctx.
func (c *Consumer) pass(ctx context.Context) {
	s := c.passing
	if c.passing = nil; s == nil {
		return
	}
	c.mu.Lock()
	in := c.positions.topic(s.topic)
	part := in.at(s.partition)
	ours := (c.group == "" || part.owned) && !in.isOld(s.topicID)
	if ours {
		part.reset(s.offset)
		part.held = nil
	}
	c.mu.Unlock()
	if !ours {
		return // another member meets it, or nobody
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.handMarks() // those are before it
		c.cluster.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{s.topic: {s.partition: {Epoch: -1, Offset: s.offset}}})
		c.letGo(s.topic, s.partition)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
