package consume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// A pollResult is what one call of kgo's PollRecords has returned.
type pollResult struct {
	done chan struct{} // closed when the rest is set

	fetches kgo.Fetches
	losses  int // positions.losses by then
}

// poll runs in a goroutine of its own, which ends when PollRecords returns: when there is
// something, when ctx ends, or when the client is closed.
func (c *Consumer) poll(ctx context.Context, p *pollResult) {
	defer close(p.done)
	p.fetches = c.cluster.KGO.PollRecords(ctx, pollRecords)
	c.mu.Lock()
	defer c.mu.Unlock()
	p.losses = c.positions.losses
}

// fetch waits until there is something for Poll to do. It returns within VerdictTime of the end
// of ctx, also if PollRecords does not:
//  1. kgo moves a partition from one broker to another, and waits for a connection to the first;
//  2. PollRecords returns when that connection is made or given up, whatever its ctx;
//  3. meanwhile fetch has returned, and the next fetch takes the result from c.polling.
func (c *Consumer) fetch(ctx context.Context) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.polling == nil {
		c.polling = &pollResult{done: make(chan struct{})}
		go c.poll(inner, c.polling)
	}
	got := c.polling
	end, _ := c.cluster.Auth.Wait(ctx, sasl.Waiting{Done: got.done, Closed: c.cluster.Life.Closing, News: c.wake, Stop: sasl.StopPastGrace, Told: c.outage})
	if end != sasl.Done {
		cancel()
		select {
		case <-got.done:
		case <-time.After(cluster.VerdictTime):
			return
		}
	}
	c.polling = nil
	fetches := got.fetches
	// Reports come before what was fetched: that a topic was made anew is told before its
	// messages are returned.
	c.mu.Lock()
	c.buffer = append(c.buffer, c.reports...)
	c.reports = nil
	c.mu.Unlock()
	// kgo puts an ErrDataLoss behind the messages that it has read again because of it. Poll is to
	// tell the loss first: so the partitions with such an error are gone through first.
	troubled := false
	each := func(losses bool) {
		c.eachPartition(fetches, func(p kgo.FetchTopicPartition, topicID [16]byte) {
			if _, lost := errors.AsType[*kgo.ErrDataLoss](p.Err); lost != losses {
				return
			}
			c.bufferRecords(p, topicID, got.losses)
			if p.Err != nil && !isPieceOfRepeatedError(p) {
				troubled = true
				if b := c.partitionError(p); b.err != nil {
					if b.seek != nil {
						b.seek.topicID = topicID
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
	// kgo may return the same error from each PollRecords at once.
	select {
	case <-time.After(troublePause):
	case <-inner.Done():
	}
}

// eachPartition calls f for each partition, except those of a topic that has been deleted and
// made anew since they were fetched.
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

// isPieceOfRepeatedError reports whether p's error will come again, without messages. kgo
// (v1.22.2)
//  1. fetches messages of a partition, and an error that ended them;
//  2. splits them over several PollRecords, and puts the error on each piece;
//  3. fetches again from behind the last message, and meets the error alone.
//
// So the error is told at its place, when it comes alone. A batch of a format that kgo does not
// know is passed over in step 3: its error is told with the messages.
func isPieceOfRepeatedError(p kgo.FetchTopicPartition) bool {
	return len(p.Records) > 0 && !strings.HasPrefix(p.Err.Error(), cluster.KGOUnknownMagic)
}

// troublePause spaces fetches that brought nothing but trouble.
const troublePause = 100 * time.Millisecond

// bufferRecords puts the messages of one partition into the buffer, and before them an error if
// the broker has lost messages between the last ones and these.
func (c *Consumer) bufferRecords(p kgo.FetchTopicPartition, topicID [16]byte, losses int) {
	if len(p.Records) == 0 {
		return
	}
	c.budget.release(p.Records)
	first, last := p.Records[0].Offset, p.Records[len(p.Records)-1].Offset
	c.mu.Lock()
	part := c.positions.at(p.Topic, p.Partition)
	resumedAt := part.resumedAt // noOffset is before all
	if first < resumedAt {
		part.rewind(first)
		if c.group != "" {
			last = first - 1 // kgo fetches it again after the seek below
		}
	}
	expected := part.next
	part.next = last + 1
	c.mu.Unlock()
	switch {
	case first < resumedAt:
		// kgo was told to begin behind the end of the log, from which it has read nothing yet: then
		// it goes to the start of the log, and makes no error of it.
		b := batch{err: errs.New([]error{errs.Consumer}, "kafka: topic %s partition %d: messages before %d are lost: the broker's log ended before it; continuing at %d",
			p.Topic, p.Partition, resumedAt, first)}
		if c.group != "" {
			// kgo ignores marks before the group's position. A seek moves that position.
			b.seek = &seek{topic: p.Topic, topicID: topicID, partition: p.Partition, offset: first}
			p.Records = nil
		}
		c.buffer = append(c.buffer, b)
	case expected != noOffset && first > expected && p.LogStartOffset > expected:
		// A gap alone is no loss: compaction and transactions leave gaps, too. What lies before the
		// start of the log is lost.
		c.buffer = append(c.buffer, batch{err: errs.New([]error{errs.Consumer},
			"kafka: topic %s partition %d: messages %d to %d are lost: the broker's log begins at %d; continuing there",
			p.Topic, p.Partition, expected, min(first, p.LogStartOffset)-1, p.LogStartOffset)})
	}
	c.mu.Lock()
	c.positions.topic(p.Topic).works()
	c.positions.topic("").works() // no error that names no topic lasts
	messages := slices.DeleteFunc(p.Records, func(r *kgo.Record) bool { return r.Attrs.IsControl() })
	if len(messages) > 0 {
		c.buffer = append(c.buffer, batch{records: messages, topicID: topicID, losses: losses, end: last + 1})
	} else if len(p.Records) > 0 {
		c.passOver(p.Topic, p.Partition, last+1)
	}
	c.mu.Unlock()
}

// passOver notes that there is no message before end that is not buffered: there are only control
// records. It is called with c.mu held.
func (c *Consumer) passOver(topic string, id int32, end int64) {
	for i := range slices.Backward(c.buffer) {
		if b := &c.buffer[i]; len(b.records) > 0 && b.records[0].Topic == topic && b.records[0].Partition == id {
			b.end = end
			return
		}
	}
	c.positions.at(topic, id).returned = end
}

// partitionError returns what Poll is to tell of an error that kgo met in a partition, if
// anything, and where kgo is to go on if it does not go on by itself.
func (c *Consumer) partitionError(p kgo.FetchTopicPartition) batch {
	err := p.Err
	if isToldElsewhere(err) {
		return batch{}
	}
	if told, is := c.lossError(p); is {
		return told
	}
	denied := errors.Is(err, kerr.TopicAuthorizationFailed)
	c.mu.Lock()
	in := c.positions.topic(p.Topic)
	at := in.at(p.Partition).next
	what := fmt.Sprintf("%d/%d/%s", p.Partition, at, err)
	if p.Topic == "" {
		what = "frame" // the text has its length, which may be another each time
	}
	fresh, ahead := false, ""
	if p.Topic == "" || p.Partition < 0 || denied {
		fresh = in.isNews(what)
	}
	if fresh && p.Topic == "" {
		ahead = c.positions.ahead()
	}
	c.mu.Unlock()
	is := append(cluster.EngineKinds(err), errs.Consumer, err)
	switch {
	case fresh && denied:
		return batch{err: errs.New(is, "kafka: topic %q: %s may not read it, or it does not exist", p.Topic, c.cluster.Principal())}
	case kerr.IsRetriable(err), kgo.IsRetryableBrokerErr(err), cluster.IsConnectionError(err):
		return batch{} // kgo tries again; an answer that is too large is none of these
	case fresh && p.Topic == "":
		return batch{err: errs.New(is, "kafka: fetching from %s: %s%s", strings.Join(c.cluster.Brokers, ", "), errs.Reason(err), ahead)}
	case fresh:
		return batch{err: errs.New(is, "kafka: topic %s: %s", p.Topic, errs.Reason(err))}
	case p.Topic != "" && p.Partition >= 0 && !denied:
		if at < 0 {
			at = p.LogStartOffset
		}
		c.pauseAt(p.Topic, p.Partition, at, err)
	}
	return batch{}
}

// isToldElsewhere reports whether Poll has nothing to tell of an error that kgo met.
func isToldElsewhere(err error) bool {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrClientClosed):
		return true // this package has ended a ctx, or the client
	case errors.Is(err, errs.Authentication), sasl.IsRefusal(err):
		return true // nextReport tells it, past the grace
	case errors.Is(err, errOverBudget):
		return true // kgo fetches the batch again, and by now there is room
	}
	_, ofGroup := errors.AsType[*kgo.ErrGroupSession](err)
	return ofGroup // groupWatch tells it
}

// lossError returns what Poll is to tell of messages that are lost, or that cannot be held, if that
// is what kgo met.
func (c *Consumer) lossError(p kgo.FetchTopicPartition) (told batch, is bool) {
	err := p.Err
	if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		c.mu.Lock()
		part := c.positions.at(p.Topic, p.Partition)
		if part.resolvesEnd(loss) {
			c.mu.Unlock()
			return batch{}, true // nothing is lost
		}
		part.rewind(loss.ResetTo)
		c.mu.Unlock()
		return batch{err: errs.New([]error{errs.Consumer, err}, "kafka: topic %s partition %d: the broker has lost messages between %d and %d; continuing at %d",
			p.Topic, p.Partition, loss.ResetTo, loss.ConsumedTo, loss.ResetTo)}, true
	}
	if bomb, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		err := errs.New([]error{errs.Consumer, err},
			"kafka: topic %s partition %d offset %d: a batch inflates to more than %d bytes, or %d with what its messages take once decoded; continuing behind it",
			p.Topic, p.Partition, bomb.Offset, cluster.MaxBatchBytes, heaviestBatch)
		return batch{err: err, seek: &seek{topic: p.Topic, partition: p.Partition, offset: bomb.NextOffset}}, true
	}
	return batch{}, false
}

// A seek is where kgo is to go on, behind messages that are lost or cannot be read.
type seek struct {
	topic     string
	topicID   [16]byte
	partition int32
	offset    int64
}

// seekOn makes kgo go on where the error that Poll returned last says.
//  1. Poll returns the error, with a seek; the partition stays where it is.
//  2. The caller calls Poll again: it has seen the error.
//  3. SetOffsets makes kgo go on, and commit the offset for the group. kgo drops marks that come
//     later and are before it; so all marks are handed over first.
//
// A caller that ends after step 1 is told the error again when it starts anew.
func (c *Consumer) seekOn() {
	s := c.seeking
	if c.seeking = nil; s == nil {
		return
	}
	c.mu.Lock()
	in := c.positions.topic(s.topic)
	part := in.at(s.partition)
	ours := (c.group == "" || part.owned) && !in.isFormer(s.topicID)
	if ours {
		part.reset(s.offset)
		part.held = nil
	}
	c.mu.Unlock()
	if !ours {
		return // another member meets it, or nobody
	}
	c.setOffsets(offsetMap{s.topic: {s.partition: {Epoch: -1, Offset: s.offset}}})
}
