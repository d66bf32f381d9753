package gracedb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file is about batches that cannot be read. kgo fetches such a batch whole, again
// and again, and it has no way past it. So the partition is paused, and the batch is
// looked at from time to time until it can be read, or until it is sure that it never
// will. Then it is told like a loss, and passed over.

const (
	firstLook = 100 * time.Millisecond // then each pause is twice the last
	lastLook  = 30 * time.Second
	// lookBytes is what a look asks for. A broker returns the first batch also if it is larger.
	lookBytes = 1 << 20
	// A look may have to wait for the connection, on which kgo waits for new messages.
	lookTimeout = 2 * requestTimeout
	// What troubles know of a batch lasts until mend ends, however long a look waits.
	staysHeld = time.Hour
	// A batch whose checksum is wrong may have been damaged on the way, or on one replica.
	damagedFor = time.Minute
)

// An unreadable is where a partition is held up.
type unreadable struct {
	at    int64
	since time.Time
	pause time.Duration // before the next look
	looks bool          // at it, in mend
}

// A damage is what is wrong with a batch.
type damage struct {
	first, next int64 // offsets: its own, and the one behind it
	heals       bool  // it may
	why         error
}

// holdUp pauses a partition at a batch that kgo cannot read, and has it looked at.
func (c *Consumer) holdUp(topic string, part int32, at int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.positions.at(topic, part)
	if c.cluster.isClosed() || c.group != "" && !known.owned {
		return
	}
	u := known.held
	if u == nil || u.at != at {
		u = &unreadable{at: at, since: time.Now(), pause: firstLook}
		known.held = u
	}
	if u.looks {
		return // kgo had asked for it before it was paused
	}
	u.looks = true
	c.cluster.client.PauseFetchPartitions(map[string][]int32{topic: {part}})
	go c.mend(topic, part, u, err)
}

// suspect looks at what a partition has next, of which kgo has read several batches and
// handed out no message: it says nothing of a batch whose checksum is right and whose
// messages do not decode.
func (c *Consumer) suspect(topic string, part int32) {
	defer c.budget.speaks(topic, part)
	c.mu.Lock()
	at := c.positions.at(topic, part).next
	c.mu.Unlock()
	if at == noOffset {
		return
	}
	if found, err := c.look(c.cluster.client.Context(), topic, part, at); err == nil && found != nil {
		c.holdUp(topic, part, max(at, found.first), found.why)
	}
}

// letGo lets kgo fetch a partition again. It is called with c.mu held.
func (c *Consumer) letGo(topic string, part int32) {
	c.cluster.client.ResumeFetchPartitions(map[string][]int32{topic: {part}})
}

// letAllGo does so with all partitions of a topic that is another.
func (c *Consumer) letAllGo(topic string) {
	for id, part := range c.positions.topic(topic).partitions {
		if part.held != nil {
			part.held = nil
			c.letGo(topic, id)
		}
	}
}

// lastsAt is what troubles knows of a partition.
func lastsAt(topic string, part int32) string { return fmt.Sprintf("batch of %s/%d:", topic, part) }

// mend looks at a batch until it can be read, or never will.
func (c *Consumer) mend(topic string, part int32, u *unreadable, err error) {
	again := u.pause > firstLook // kgo meets what was not seen here
	for {
		if again {
			e := errs.New(append(engineKinds(err), errs.Consumer, err), "kafka: topic %s partition %d, at offset %d: %s; trying again", topic, part, u.at, errs.Reason(err))
			if c.troubles.met(lastsAt(topic, part), e, staysHeld) {
				c.tell(batch{err: e})
			}
			select {
			case <-time.After(u.pause):
			case <-c.cluster.closed:
				return
			}
			u.pause = min(2*u.pause, lastLook)
		}
		again = true
		if !c.isHeld(topic, part, u) {
			c.troubles.over(lastsAt(topic, part))
			return
		}
		found, lookErr := c.look(c.cluster.client.Context(), topic, part, u.at)
		switch {
		case found != nil && (!found.heals || time.Since(u.since) >= damagedFor):
			c.giveUp(topic, part, u, found)
			return
		case found != nil:
			err = found.why
		case lookErr == nil, errors.Is(lookErr, kerr.OffsetOutOfRange), errors.Is(lookErr, kerr.UnknownTopicOrPartition), errors.Is(lookErr, kerr.UnknownTopicID):
			c.mu.Lock()
			u.looks, u.pause = false, min(2*u.pause, lastLook)
			c.letGo(topic, part)
			c.mu.Unlock()
			c.troubles.over(lastsAt(topic, part))
			return
		case isAnswer(lookErr):
			err = lookErr
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

// giveUp has Poll tell that a batch is lost. The partition stays paused until Poll is
// called again, which passes over the batch.
func (c *Consumer) giveUp(topic string, part int32, u *unreadable, found *damage) {
	c.troubles.over(lastsAt(topic, part))
	c.mu.Lock()
	in := c.positions.topic(topic)
	id, mine := in.state.id, in.at(part).held == u
	c.mu.Unlock()
	if !mine {
		return
	}
	from := max(found.first, u.at)
	err := errs.New([]error{errs.Consumer, found.why}, "kafka: topic %s partition %d: messages %d to %d are lost, at offset %d: a batch cannot be read: %s; continuing at %d",
		topic, part, from, found.next-1, from, errs.Reason(found.why), found.next)
	c.tell(batch{err: err, past: &skip{topic: topic, topicID: id, partition: part, offset: found.next}})
}

// look fetches what is at an offset, past kgo's own fetches, and returns the first batch
// from there that cannot be read, if there is one near and no message before it that Poll
// is still to return: whoever passes over the batch passes over all that is before it.
//
// There is one look at a time, since it holds a batch that may be large.
func (c *Consumer) look(ctx context.Context, topic string, part int32, at int64) (*damage, error) {
	select {
	case c.looking <- struct{}{}:
		defer func() { <-c.looking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	const most = 8
	for range most {
		batches, aborts, end, err := c.fetchAt(ctx, topic, part, at)
		if err != nil || len(batches) == 0 {
			return nil, err
		}
		for rest := batches; len(rest) > 0; {
			d, length := c.judge(rest)
			if d == nil && length == 0 {
				break // the last one is never whole
			}
			if d != nil && d.next > at {
				if rest = rest[length:]; len(rest) >= 8 {
					// Where the next one begins is worth more than what a damaged one says.
					if next := int64(binary.BigEndian.Uint64(rest)); next > d.first {
						d.next = next
					}
				} else if d.next > end {
					d.next = end
				}
				d.next = max(d.next, at+1)
				return d, nil
			}
			if next := nextOffset(rest[:length]); next > at {
				if aborts.handsOut(rest[:length]) {
					return nil, nil // kgo has it to hand out, or fetches it, before it meets what is behind it
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
	states, err := c.cluster.topics(ctx, topic)
	if err != nil {
		return nil, nil, 0, err
	}
	state := states[topic]
	if int(part) >= len(state.partitions) {
		return nil, nil, 0, kerr.UnknownTopicOrPartition
	}
	leader := state.partitions[part].leader
	if leader < 0 {
		return nil, nil, 0, kerr.LeaderNotAvailable
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MinBytes = lookBytes, 1
	if c.cluster.client.OptValue(kgo.FetchIsolationLevel) == int8(1) {
		req.IsolationLevel = 1
	}
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, state.id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = part, at, lookBytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	c.budget.owns(1)
	defer c.budget.owns(-1)
	resp, err := c.cluster.client.Broker(int(leader)).Request(ctx, req)
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

// An aborts is where transactions begin that are aborted, by producer and in order.
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

// handsOut reports whether kgo hands out messages of a batch. It is asked of each batch in
// turn: a marker ends a transaction.
func (a aborts) handsOut(b []byte) bool {
	if b[16] < 2 || len(b) < batchHead {
		return true
	}
	const transactional, control = 1 << 4, 1 << 5
	attributes := binary.BigEndian.Uint16(b[21:])
	producer := int64(binary.BigEndian.Uint64(b[43:]))
	first := a[producer]
	aborted := attributes&transactional != 0 && len(first) > 0 && int64(binary.BigEndian.Uint64(b)) >= first[0]
	if aborted && attributes&control != 0 {
		a[producer] = first[1:]
	}
	return !aborted && attributes&control == 0 && binary.BigEndian.Uint32(b[57:]) != 0
}

const (
	batchHead = 61 // of a batch in the format that there is since Kafka 0.11
	oldHead   = 17 // of all formats, up to the number of the format
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// nextOffset returns the offset behind a batch.
func nextOffset(b []byte) int64 {
	next := int64(binary.BigEndian.Uint64(b)) + 1
	if b[16] == 2 && len(b) >= batchHead {
		next += int64(int32(binary.BigEndian.Uint32(b[23:])))
	}
	return next
}

// judge returns what is wrong with the first batch, and its length, which is 0 if it is
// not whole.
func (c *Consumer) judge(b []byte) (d *damage, length int) {
	if len(b) < oldHead {
		return nil, 0
	}
	size := uint64(binary.BigEndian.Uint32(b[8:])) + 12
	if size > uint64(len(b)) || size < oldHead {
		return nil, 0
	}
	b = b[:size]
	d = &damage{first: int64(binary.BigEndian.Uint64(b)), next: nextOffset(b)}
	switch magic := b[16]; {
	case magic > 2:
		d.why = fmt.Errorf("it is of a format, %d, that is not known", magic)
	case magic < 2:
		if crc32.ChecksumIEEE(b[16:]) == binary.BigEndian.Uint32(b[12:]) {
			return nil, len(b)
		}
		d.heals, d.why = true, errChecksum
	case len(b) < batchHead, !isIntact(b):
		d.heals, d.why = true, errChecksum
	default:
		if d.why = c.decodes(b); d.why == nil {
			return nil, len(b)
		}
	}
	return d, len(b)
}

var errChecksum = errors.New("its checksum is wrong")

// decodes returns why a batch, whose checksum is right, cannot be read. One that is only
// too large kgo passes over.
func (c *Consumer) decodes(b []byte) error {
	c.budget.turn.Lock()
	defer c.budget.turn.Unlock()
	out, err := c.budget.inflater.inflate(b[batchHead:], codecOf(b), maxBatchBytes)
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
	if err == nil && (claim(b) < 0 || int(claim(b)) > n) {
		err = fmt.Errorf("it claims more messages than the %d that it holds", n)
	}
	return err
}
