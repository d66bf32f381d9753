package consume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/recordbatch"
)

// This file is about batches that cannot be read. kgo (v1.22.2) fetches such a batch again and
// again, and never goes on behind it. So
//  1. pauseAt pauses the partition in kgo, and starts retryBatch, a goroutine of this partition;
//  2. retryBatch fetches the batch by a request of its own (inspect), with growing pauses;
//  3. once the batch can be read, or is gone, retryBatch resumes the partition;
//  4. once it is certain that it never can, Poll tells a loss with a seek, and the next Poll makes
//     kgo go on behind the batch.

const (
	firstRetryPause   = 100 * time.Millisecond // then each pause is twice the last
	longestRetryPause = 30 * time.Second
	// inspectBytes is what inspect asks for. A broker returns the first batch also if it is larger.
	inspectBytes = 1 << 20
	// inspect may have to wait for the connection: until kgo's own Fetch on it is answered.
	inspectTimeout = 2 * cluster.RequestTimeout
	// What troubles know of a batch lasts until retryBatch ends it, however long inspect waits.
	staysHeld = time.Hour
	// A batch whose checksum is wrong may have been damaged on the way, or on one replica.
	damagedFor = time.Minute
)

// An unreadable is a batch that kgo cannot read, at which its partition is paused.
type unreadable struct {
	at      int64 // the offset that kgo fetched
	since   time.Time
	pause   time.Duration // before the next inspect
	retried bool          // retryBatch runs; guarded by consumer.mu
}

// A damage is what is wrong with a batch.
type damage struct {
	first, next int64 // offsets: its own, and the one behind it
	heals       bool  // it may be read another time: it may be damaged on the way, or on one replica
	why         error
}

// pauseAt pauses a partition at a batch that kgo cannot read, and starts retryBatch.
func (c *Consumer) pauseAt(topic string, part int32, at int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.positions.at(topic, part)
	if c.cluster.Life.IsClosing() || c.group != "" && !known.owned {
		return
	}
	u := known.held
	if u == nil || u.at != at {
		u = &unreadable{at: at, since: time.Now(), pause: firstRetryPause}
		known.held = u
	}
	if u.retried {
		return // from a Fetch that kgo had sent before the pause
	}
	u.retried = true
	c.cluster.KGO.PauseFetchPartitions(map[string][]int32{topic: {part}})
	go c.retryBatch(topic, part, u, err)
}

// suspect inspects what a partition has next. The budget calls it, in a goroutine of its own, when
// kgo has read several batches there and returned no message: kgo makes no error of a batch
// whose checksum is right and whose messages do not decode.
func (c *Consumer) suspect(topic string, part int32) {
	defer c.budget.endSilence(topic, part)
	c.mu.Lock()
	at := c.positions.at(topic, part).next
	c.mu.Unlock()
	if at == noOffset {
		return
	}
	if found, err := c.inspect(c.cluster.KGO.Context(), topic, part, at); err == nil && found != nil {
		c.pauseAt(topic, part, max(at, found.first), found.why)
	}
}

// resume lets kgo fetch a partition again. It is called with c.mu held.
func (c *Consumer) resume(topic string, part int32) {
	c.cluster.KGO.ResumeFetchPartitions(map[string][]int32{topic: {part}})
}

// resumeAll does so with all partitions of a topic that was made anew. It is called with c.mu held.
func (c *Consumer) resumeAll(topic string) {
	for id, part := range c.positions.topic(topic).partitions {
		if part.held != nil {
			part.held = nil
			c.resume(topic, id)
		}
	}
}

// lastsAt is the key of a partition in consumer.troubles.
func lastsAt(topic string, part int32) string { return fmt.Sprintf("batch of %s/%d:", topic, part) }

// retryBatch inspects a batch until it can be read, is gone, or certainly cannot be read. It ends
// without a word when the partition is lost or made to go on elsewhere, and with the client.
func (c *Consumer) retryBatch(topic string, part int32, u *unreadable, err error) {
	again := u.pause > firstRetryPause // kgo cannot read what inspect found nothing wrong with
	for {
		if again {
			e := errs.New(append(cluster.EngineKinds(err), errs.Consumer, err), "kafka: topic %s partition %d, at offset %d: %s; trying again", topic, part, u.at, errs.Reason(err))
			if c.troubles.met(lastsAt(topic, part), e, staysHeld) {
				c.addReport(batch{err: e})
			}
			select {
			case <-time.After(u.pause):
			case <-c.cluster.Life.Closing:
				return
			}
			u.pause = min(2*u.pause, longestRetryPause)
		}
		again = true
		if !c.isHeld(topic, part, u) {
			c.troubles.over(lastsAt(topic, part))
			return
		}
		found, inspectErr := c.inspect(c.cluster.KGO.Context(), topic, part, u.at)
		switch {
		case found != nil && (!found.heals || time.Since(u.since) >= damagedFor):
			c.reportLostBatch(topic, part, u, found)
			return
		case found != nil:
			err = found.why
		case inspectErr == nil, errors.Is(inspectErr, kerr.OffsetOutOfRange), isTopicGone(inspectErr):
			c.mu.Lock()
			u.retried, u.pause = false, min(2*u.pause, longestRetryPause)
			c.resume(topic, part)
			c.mu.Unlock()
			c.troubles.over(lastsAt(topic, part))
			return
		case isAnswer(inspectErr):
			err = inspectErr
		}
	}
}

func (c *Consumer) isHeld(topic string, part int32, u *unreadable) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.positions.at(topic, part).held == u
}

func isAnswer(err error) bool {
	_, ok := errors.AsType[*kerr.Error](err)
	return ok && !kerr.IsRetriable(err)
}

// reportLostBatch has Poll tell that a batch is lost. The partition stays paused until seekOn.
func (c *Consumer) reportLostBatch(topic string, part int32, u *unreadable, found *damage) {
	c.troubles.over(lastsAt(topic, part))
	c.mu.Lock()
	in := c.positions.topic(topic)
	id, mine := in.state.ID, in.at(part).held == u
	c.mu.Unlock()
	if !mine {
		return
	}
	from := max(found.first, u.at)
	err := errs.New([]error{errs.Consumer, found.why},
		"kafka: topic %s partition %d: messages %d to %d are lost, at offset %d: a batch cannot be read: %s; continuing at %d",
		topic, part, from, found.next-1, from, errs.Reason(found.why), found.next)
	c.addReport(batch{err: err, seek: &seek{topic: topic, topicID: id, partition: part, offset: found.next}})
}

// inspect fetches what is at an offset by a request of its own, and returns what is wrong with the
// first batch from there that cannot be read. It returns nil if there is none near, or if there
// is a message before it: a seek behind the batch would skip that message, too.
//
// One inspect fetches at a time, since it has a batch in memory that may be large.
func (c *Consumer) inspect(ctx context.Context, topic string, part int32, at int64) (*damage, error) {
	select {
	case c.inspecting <- struct{}{}:
		defer func() { <-c.inspecting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	const most = 8
	for range most {
		batches, aborts, end, err := c.fetchAt(ctx, topic, part, at)
		if err != nil || len(batches) == 0 {
			return nil, err
		}
		for rest := batches; len(rest) > 0; {
			d, length := c.inspectBatch(rest)
			if d == nil && length == 0 {
				break // brokers cut the answer anywhere in its last batch
			}
			if d != nil && d.next > at {
				if rest = rest[length:]; len(rest) >= 8 {
					// The head of a damaged batch may be wrong: where the next batch begins counts.
					if next := int64(binary.BigEndian.Uint64(rest)); next > d.first {
						d.next = next
					}
				} else if d.next > end {
					d.next = end
				}
				d.next = max(d.next, at+1)
				return d, nil
			}
			if next := recordbatch.Batch(rest[:length]).NextOffset(); next > at {
				if aborts.handsOut(rest[:length]) {
					return nil, nil // kgo returns this message before it meets what is behind it
				}
				at = next
			}
			rest = rest[length:]
		}
	}
	return nil, nil
}

// fetchAt asks a partition's leader for what is at an offset, and where its log ends.
func (c *Consumer) fetchAt(ctx context.Context, topic string, part int32, at int64) (batches []byte, aborts aborts, end int64, err error) {
	states, err := c.cluster.Topics(ctx, topic)
	if err != nil {
		return nil, nil, 0, err
	}
	state := states[topic]
	if int(part) >= len(state.Partitions) {
		return nil, nil, 0, kerr.UnknownTopicOrPartition
	}
	leader := state.Partitions[part].Leader
	if leader < 0 {
		return nil, nil, 0, kerr.LeaderNotAvailable
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MinBytes = inspectBytes, 1
	if c.cluster.KGO.OptValue(kgo.FetchIsolationLevel) == int8(1) {
		req.IsolationLevel = 1
	}
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, state.ID
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = part, at, inspectBytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	c.budget.addOwn(1)
	defer c.budget.addOwn(-1)
	resp, err := c.cluster.KGO.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return nil, nil, 0, err
	}
	answer := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return nil, nil, 0, err
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if p.Partition == part {
				return p.RecordBatches, abortsOf(p.AbortedTransactions), p.HighWatermark, kerr.ErrorForCode(p.ErrorCode)
			}
		}
	}
	return nil, nil, 0, nil
}

// An aborts is the first offsets of aborted transactions, by producer id and in order.
type aborts map[int64][]int64

func abortsOf(told []kmsg.FetchResponseTopicPartitionAbortedTransaction) aborts {
	a := make(aborts)
	for _, t := range told {
		a[t.ProducerID] = append(a[t.ProducerID], t.FirstOffset)
	}
	for _, first := range a {
		slices.Sort(first)
	}
	return a
}

// handsOut reports whether kgo returns messages of a batch. It must be called with each batch in
// turn: an abort marker among them ends a transaction.
func (a aborts) handsOut(b recordbatch.Batch) bool {
	if !b.IsCurrent() {
		return true
	}
	first := a[b.ProducerID()]
	aborted := b.IsTransactional() && len(first) > 0 && b.FirstOffset() >= first[0]
	if aborted && b.IsControl() {
		a[b.ProducerID()] = first[1:]
	}
	return !aborted && !b.IsControl() && b.Count() != 0
}

// inspectBatch returns what is wrong with the first of batches, and its length, which is 0 if the
// batch is cut.
func (c *Consumer) inspectBatch(batches []byte) (d *damage, length int) {
	b, ok := recordbatch.Cut(batches)
	if !ok {
		return nil, 0
	}
	d = &damage{first: b.FirstOffset(), next: b.NextOffset()}
	switch {
	case b.Magic() > recordbatch.Magic:
		d.why = fmt.Errorf("it is of a format, %d, that is not known", b.Magic())
	case !b.IsIntact():
		d.heals, d.why = true, errChecksum
	case b.Magic() < recordbatch.Magic:
		return nil, len(b)
	default:
		if d.why = c.decodeError(b); d.why == nil {
			return nil, len(b)
		}
	}
	return d, len(b)
}

var errChecksum = errors.New("its checksum is wrong")

// decodeError returns why a batch, whose checksum is right, cannot be read. One that is only too
// large is not among these: kgo makes an error of it, see partitionError.
func (c *Consumer) decodeError(b recordbatch.Batch) error {
	c.budget.inflating.Lock()
	defer c.budget.inflating.Unlock()
	out, err := c.budget.inflater.inflate(b.Records(), codecOf(b), cluster.MaxBatchBytes)
	if errors.Is(err, errTooLarge) {
		return nil
	}
	if err != nil {
		return err
	}
	_, n, err := weigh(out, heaviestBatch)
	if errors.Is(err, errTooLarge) {
		return nil
	}
	if err == nil && (b.Count() < 0 || int(b.Count()) > n) {
		err = fmt.Errorf("it claims more messages than the %d that it holds", n)
	}
	return err
}
