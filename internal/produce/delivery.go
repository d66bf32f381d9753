package produce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sender"
)

// A delivery is a message on its way. It stays in the queue from its acceptance until its
// outcome is known.
type delivery struct {
	p         *Producer
	record    sender.Record // the message
	partition int32         // as the caller has set them, and once it is acknowledged, where it is
	offset    int64
	timed     bool          // the caller has set the time of the record
	owner     any           // what Config.Tell is called with; or nil
	settled   chan struct{} // closed when the outcome is known and told; nil if from Produce
	givenUp   atomic.Bool   // the caller has been told that it will not hear what becomes of it
	err       error         // read after settled is closed, or by Config.Tell

	// Guarded by queue.mu.
	cost       int64
	seq        uint64
	in         bool
	prev, next *delivery
}

// hold makes r the message of d.
func (d *delivery) hold(r kgo.Record) {
	d.partition, d.offset, d.timed = r.Partition, r.Offset, !r.Timestamp.IsZero()
	s := &d.record
	s.Topic, s.Key, s.Value, s.Headers, s.Time, s.Owner = r.Topic, r.Key, r.Value, r.Headers, r.Timestamp, d
}

// message returns the message of d, which is settled.
func (d *delivery) message() kgo.Record {
	r := &d.record
	return kgo.Record{
		Topic: r.Topic, Partition: d.partition, Offset: d.offset,
		Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Time,
	}
}

// settle is called by the sender with what became of a record, and tells whoever waits.
func settle(r *sender.Record, o sender.Outcome) {
	d := r.Owner.(*delivery)
	p := d.p
	d.err = p.outcome(d, o)
	if d.err == nil {
		d.partition, d.offset = o.Partition, o.Offset
		if !o.Time.IsZero() {
			r.Time = o.Time
		}
	}
	p.queue.release(d)
	if d.owner != nil {
		tellDone(d)
	}
	p.queue.settle(d)
	if d.settled != nil {
		close(d.settled)
	}
}

// abandoned reports whether the caller has been told that it will not hear what becomes
// of d.
func (d *delivery) abandoned() bool { return d.givenUp.Load() }

// outcome returns what d's caller is told: nil if it is acknowledged.
func (p *Producer) outcome(d *delivery, o sender.Outcome) error {
	if o.Result == sender.InLog {
		return nil
	}
	topic, err := d.record.Topic, o.Err
	what := p.naming(topic)
	switch {
	case o.Result == sender.Unknown:
		return errs.New(append(unsureKinds(err), errs.OutcomeUnknown, err), "kafka: %s: %s; it may have been written", what, errs.Reason(err))
	case errors.Is(err, sender.ErrClosed), errs.IsContext(err):
		is, why := p.cluster.Health.Trouble()
		if why != "" {
			why = ": " + why
		}
		if errors.Is(err, sender.ErrClosed) {
			return errs.New(append(is, errs.Delivery, errs.Closed, context.Canceled, err), "kafka: %s: closed before it was sent%s", what, why)
		}
		return errs.New(append(is, errs.Delivery, err), "kafka: %s: %s before it was sent%s", what, err, why)
	case sender.IsTooLarge(err):
		return p.tooLarge(topic, messageSize(&d.record), p.sizeReason(topic, o), err)
	}
	is := cluster.EngineKinds(err)
	if slices.Contains(is, errs.Topic) {
		p.forget(topic)
		return errs.New(append(is, errs.Delivery, err), "kafka: topic %q on %s: %s", topic, p.cluster.Brokers[0], p.topicReason(err))
	}
	return errs.New(append(is, errs.Delivery, err), "kafka: %s: %s%s", what, said(err), d.refusalAdvice(err))
}

// unsureKinds is what err stands for, without the kinds that promise that nothing was written.
func unsureKinds(err error) []error {
	is := slices.DeleteFunc(cluster.EngineKinds(err), func(k error) bool { return errors.Is(k, errs.Delivery) })
	if errors.Is(err, sender.ErrClosed) {
		is = append(is, errs.Closed)
	}
	return is
}

// topicReason says what a broker's code for a topic means to a user.
func (p *Producer) topicReason(err error) string {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return p.cluster.Principal() + " may not write to it, or it does not exist (brokers with access rules do not say which)"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		// A producer id is for whoever may write to any topic (KIP-679).
		return p.cluster.Principal() + " may not write to it, nor to any other topic"
	}
	return fmt.Sprintf("it does not exist, or %s may not see it", p.cluster.Principal())
}

// said is reason for what a broker has answered to a batch: its own words, if it has any.
func said(err error) string {
	r, ok := errors.AsType[*sender.Refusal](err)
	if !ok {
		return strings.TrimSuffix(errs.Reason(err), ".")
	}
	words := strings.TrimSuffix(errs.Clean(r.Says), ".")
	if code, ok := errors.AsType[*kerr.Error](err); ok {
		return code.Message + ": the broker says: " + words
	}
	return words
}

// sizeReason says what a broker has refused for its size, and what its limit is.
func (p *Producer) sizeReason(topic string, o sender.Outcome) string {
	known := p.state(topic).limit
	limit := known.bytes
	text := fmt.Sprintf("the broker refuses it as a batch of %d bytes, and compressed it is no smaller", o.Sent)
	if o.Compressed {
		text = fmt.Sprintf("the broker refuses it although it is compressed, to a batch of %d bytes", o.Sent)
	}
	switch {
	case known.hidden:
		text += "; the topic's max.message.bytes is not known, since this client may not read it"
	case known.isOpen():
		text += "; the topic's max.message.bytes is not known, since no broker has told it so far"
	default:
		text += fmt.Sprintf("; the topic's max.message.bytes is %d", limit)
	}
	switch {
	case o.Compressed && (limit == 0 || int64(o.Sent) <= limit):
		text += ", and counts it uncompressed if the topic has compression.type=uncompressed"
	case limit > 0 && int64(o.Sent) <= limit:
		text += ", so that another limit is meant, such as its segment.bytes"
	}
	if _, ok := errors.AsType[*sender.Refusal](o.Err); ok {
		text += "; " + said(o.Err)
	}
	return text
}

// refusalAdvice says what to do about a broker's refusal of d's record for what it is;
// nothing if it was refused for anything else.
func (d *delivery) refusalAdvice(err error) string {
	switch {
	case errors.Is(err, kerr.InvalidRecord):
		const inflated = "the topic's max.decompressed.message.bytes bounds what a batch may inflate to (Kafka 4.4)"
		if d.record.Key == nil {
			return "; a topic with cleanup.policy=compact takes only messages with a key: set Message.Key; " + inflated
		}
		return "; " + inflated
	case errors.Is(err, kerr.InvalidTimestamp):
		const form = "2006-01-02T15:04:05.000Z07:00"
		const allowed = "the topic's message.timestamp.after.max.ms (an hour by default) and message.timestamp.before.max.ms bound how far it may be from the broker's clock"
		if !d.timed {
			return fmt.Sprintf("; its time is %s by this machine's clock, which should be set right; %s", d.record.Time.UTC().Format(form), allowed)
		}
		return fmt.Sprintf("; its Message.Time is %s, and this machine's clock says %s; %s",
			d.record.Time.UTC().Format(form), time.Now().UTC().Format(form), allowed)
	}
	return ""
}
