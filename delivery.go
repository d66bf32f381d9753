package gracedb

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A delivery is a message on its way. It stays in the queue from its acceptance
// until its outcome is known.
//
// It is also the context of its record in the engine, which fails a record whose
// context is done and which it takes for unwritten; and with it, for the sake of
// their order, all that is queued for the same partition.
type delivery struct {
	p       *Producer
	msg     Message
	record  kgo.Record
	ctx     context.Context // withdraws it while it has not been sent
	givenUp chan struct{}   // closed to withdraw it; or nil
	ordered bool            // whether the next of its key may be queued already
	done    func(Message, error)
	settled chan struct{} // closed with err set; nil if done is called instead

	mu        sync.Mutex
	withdrawn chan struct{} // what the engine waits for; nil until it asks
	unwatch   func() bool   // of withdrawn; or nil
	over      bool          // withdrawn is not closed any more

	err    error
	handed moment // when it was given to the engine
	tries  int    // refusals for its size

	line    *line
	wire    int64         // the most that it adds to a batch
	entered bool          // whether line counts it as in the engine
	place   *list.Element // while it waits in line
	unguard func() bool   // while it waits in line; or nil

	cost       int64
	seq        uint64
	in         bool
	prev, next *delivery
}

// A moment is a time by the clock of answers. The engine may still look at the context
// of a record that it has given back, and that is handed to it anew.
type moment struct{ at atomic.Int64 }

func (m *moment) set(at time.Duration) { m.at.Store(int64(at)) }
func (m *moment) get() time.Duration   { return time.Duration(m.at.Load()) }

// Done makes the engine fail the record. A record that may have been written is
// not withdrawn: nobody could tell what became of it. Nor is one that would take
// others along that are then sent again, perhaps behind the next of their key.
func (d *delivery) Done() <-chan struct{} {
	if d.Err() == nil {
		// Whether it may be withdrawn is decided when it is given up.
		if c := d.withdrawal(); d.Err() == nil {
			return c
		}
	}
	if d.mayWithdraw() {
		return closed
	}
	return nil
}

// closed is a channel that is.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (d *delivery) mayWithdraw() bool {
	return !d.p.answers.doubtSince(d.handed.get()) && !d.p.queue.orderedLive(d.msg.Topic)
}

// withdrawal returns the channel that withdraw closes.
func (d *delivery) withdrawal() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.withdrawn == nil && !d.over {
		d.withdrawn = make(chan struct{})
		if d.givenUp == nil {
			d.unwatch = context.AfterFunc(d.ctx, d.withdraw)
		}
	}
	return d.withdrawn
}

// withdraw tells the engine that d has been given up, if it has asked.
func (d *delivery) withdraw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.withdrawn != nil && !d.over && d.mayWithdraw() {
		close(d.withdrawn)
	}
	d.over = true
}

// unwatched ends what watches d, which is settled.
func (d *delivery) unwatched() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.unwatch != nil {
		d.unwatch()
	}
}

// Err returns why the record is withdrawn.
func (d *delivery) Err() error {
	if d.abandoned() {
		return context.Canceled
	}
	return d.ctx.Err()
}

// abandoned reports whether the caller has been told that it will not hear what
// becomes of d.
func (d *delivery) abandoned() bool {
	select {
	case <-d.givenUp:
		return true
	default:
		return false
	}
}

// Deadline returns none: what matters is that the caller is gone.
func (d *delivery) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value returns nothing.
func (d *delivery) Value(any) any { return nil }

// hand gives d to the engine, which calls back when it is settled.
func (p *Producer) hand(d *delivery) {
	d.handed.set(p.answers.now())
	d.record = kgo.Record{
		Topic: d.msg.Topic, Key: d.msg.Key, Value: d.msg.Value, Timestamp: d.msg.Time,
		Context: p.life,
	}
	if len(d.msg.Headers) > 0 {
		d.record.Headers = make([]kgo.RecordHeader, len(d.msg.Headers))
		for i, h := range d.msg.Headers {
			d.record.Headers[i] = kgo.RecordHeader(h)
		}
	}
	p.client.Produce(d, &d.record, d.promise)
}

// promise is called by the engine with what became of d's record.
func (d *delivery) promise(r *kgo.Record, err error) { d.told(r, err, d.p.answers.now()) }

// told handles what the engine has said of d at a time.
func (d *delivery) told(r *kgo.Record, err error, at time.Duration) {
	p := d.p
	open := false
	if isAbandoned(err) {
		p.answers.forget(d.isTopic)
	}
	if mayBeOnItsWay(err) {
		var wait func()
		if p.life.Err() == nil {
			d.line.hold()
			wait = func() {
				d.told(r, err, at)
				d.line.release()
			}
		}
		open = p.answers.unanswered(d.isTopic, d.record.Partition, d.handed.get(), at, wait)
		switch {
		case wait == nil:
		case open:
			return
		default:
			d.line.release()
		}
	}
	if err != nil && p.again(d, err) {
		return
	}
	if err == nil {
		d.msg.Partition, d.msg.Offset, d.msg.Time = r.Partition, r.Offset, r.Timestamp
	} else {
		d.err = p.outcome(d, err, open)
	}
	d.line.settles(d.err)
	d.line.leave(d)
	d.unwatched()
	p.queue.release(d)
	if d.done != nil {
		tellDone(d)
	}
	p.queue.settle(d)
	if d.settled != nil {
		close(d.settled)
	}
	if d.err != nil {
		p.missed(d)
	}
}

// isTopic reports whether d's topic may be what a request calls key.
func (d *delivery) isTopic(key string) bool { return d.p.mayBe(d.msg.Topic, key) }

// mayBeOnItsWay reports whether the engine fails with this error messages that are on
// their way still: because a broker has refused another, another's context has ended, or
// all of the topic is dropped. The answer to the message itself is waited for then.
func mayBeOnItsWay(err error) bool {
	_, answered := errors.AsType[*kerr.Error](err)
	return err != nil && !isRefusal(err) && (answered && notWritten(err) || !answered && (isContextError(err) || isDropped(err) || isBadAnswer(err)))
}

// again gives d back to the engine if it was not written, and failed for what is
// not its own fault.
func (p *Producer) again(d *delivery, err error) bool {
	if p.life.Err() != nil || d.Err() != nil || p.answers.doubtSince(d.handed.get()) {
		return false
	}
	switch {
	case isRefusal(err), errors.Is(err, ErrAuthentication):
		// A bare code 58 makes the engine fail all that is buffered, and forget
		// what is on its way elsewhere.
		if p.answers.maybeWritten(d.handed.get()) {
			return false
		}
		d.line.pause(d)
		return true
	case isContextError(err):
		// Another message's context. The engine looks at that of the first in line
		// for a partition, and only while that was never sent or, as Done sees to it,
		// is known not to be written.
		d.line.retake(d)
		return true
	case isTooLarge(err):
		return p.againAlone(d)
	case isDropped(err), isBadAnswer(err):
		d.line.pause(d)
		return true
	default:
		return false
	}
}

// againAlone handles a broker's refusal of a batch for its size, which fails all
// that is queued behind it too. To find out which message is to blame, each is
// sent again alone; one that is refused alone is tried once more, compressed.
func (p *Producer) againAlone(d *delivery) bool {
	if !d.line.isSingle(d) {
		d.line.single(d)
		return true
	}
	d.tries++
	// The limit is less than the least that the batch can have had.
	least := contentSize(d.msg) + leastHeader*len(d.msg.Headers)
	p.codec.learn(min(p.codec.limit.Load(), int64(least)))
	d.line.shrink(d)
	if d.tries >= maxSizeTries {
		return false
	}
	p.hand(d)
	return true
}

// maxSizeTries is how often a message that is sent alone may be refused for its
// size: at first it may not have been compressed.
const maxSizeTries = 2

// outcome turns the engine's error into what became of d, which may be open still.
func (p *Producer) outcome(d *delivery, err error, open bool) error {
	topic := d.msg.Topic
	what := p.naming(topic)
	_, answered := errors.AsType[*kerr.Error](err)
	// An earlier try may have been written, or it is on its way.
	open = open || p.answers.doubtSince(d.handed.get())
	if isAbandoned(err) || errors.Is(err, kgo.ErrClientClosed) {
		// An answer may have come just before, and the engine did not look at it.
		open = open || p.answers.takenSince(d.isTopic, d.record.Partition, d.handed.get())
	}
	if open || answered && !notWritten(err) || !answered && !isContextError(err) && p.answers.maybeWritten(d.handed.get()) {
		return fail(append(unsureKinds(err), ErrOutcomeUnknown, err), "kafka: %s: %s; it may have been written", what, reason(err))
	}
	if isTooLarge(err) && d.tries < maxSizeTries { // it was to be sent again
		err = cmp.Or(d.Err(), context.Canceled)
	}
	switch {
	case isTooLarge(err):
		return p.tooLarge(topic, messageSize(d.msg), fmt.Sprintf("the broker refuses it even compressed (its limit is %s)", p.codec.limitText()), err)
	case errors.Is(err, kgo.ErrClientClosed), isContextError(err):
		is, why := p.watch.trouble()
		if why != "" {
			why = ": " + why
		}
		if p.life.Err() != nil {
			return fail(append(is, ErrDelivery, ErrClosed, err), "kafka: %s: closed before it was sent%s", what, why)
		}
		return fail(append(is, ErrDelivery, err), "kafka: %s: %s before it was sent%s", what, err, why)
	}
	is := engineKinds(err)
	if slices.Contains(is, ErrTopic) {
		p.forget(topic)
		if errors.Is(err, kerr.UnknownTopicID) {
			go p.renew(topic)
		}
		return fail(append(is, ErrDelivery, err), "kafka: topic %q on %s: %s", topic, p.brokers[0], p.topicReason(err))
	}
	return fail(append(is, ErrDelivery, err), "kafka: %s: %s", what, reason(err))
}

// topicReason says what a broker's code for a topic means to a user.
func (p *Producer) topicReason(err error) string {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return p.principal() + " may not write to it, or it does not exist (brokers with access rules do not say which)"
	}
	return fmt.Sprintf("it does not exist, or %s may not see it", p.principal())
}
