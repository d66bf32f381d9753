package sender

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is what a partition makes of the ends of its tries.

// ended notes how a try of b went. It returns what became of its records, if it is
// acknowledged and the oldest.
func (s *partition) ended(b *batch, answer *kmsg.ProduceResponseTopicPartition, err error) []settlement {
	b.over, b.answer, b.err = true, answer, err
	if answer != nil {
		s.moved = s.hint(answer)
		if s.said = b.said(); isOfRecords(b.err) || IsTooLarge(b.err) {
			s.said = nil // that is about records of b, and their owners are told
		}
	}
	if refused, ok := errors.AsType[*noID](err); ok {
		s.said = refused
	}
	var out []settlement
	for len(s.inFlight) > 0 {
		oldest := s.inFlight[0]
		if !oldest.issued || !oldest.over {
			break
		}
		if oldest.isEmpty() && !oldest.sequenced { // all of it was withdrawn in time
			s.drop(oldest)
			continue
		}
		if judge(oldest.facts(false)) != inLog {
			s.recovering = true
			break
		}
		s.tries, s.said = 0, nil
		out = append(out, s.acknowledge(oldest)...)
	}
	return out
}

// failed reports whether a try in flight is over that recover has not judged.
func (s *partition) failed() bool {
	return slices.ContainsFunc(s.inFlight, func(b *batch) bool { return b.issued && b.over })
}

// ready reports whether all tries in flight are over, and nobody reads a record, so that
// recover may judge them.
func (s *partition) ready() bool {
	for _, b := range s.inFlight {
		if b.issued && !b.over || b.reading {
			return false
		}
	}
	return true
}

// draining reports whether s is of a topic that is gone, and may be judged for the last time.
func (s *partition) draining() bool { return s.gone && !s.drained && s.ready() }

// recover judges all in flight after the oldest has failed. It returns what became of
// records. What is neither in the log nor refused is to be tried again: as the same batches,
// or from the accumulator.
func (s *partition) recover(closing bool) []settlement {
	var out []settlement
	for _, b := range slices.Clone(s.inFlight) {
		b.tidy()
		switch {
		case len(b.records) == 0:
			s.drop(b)
		case b.issued && judge(b.facts(closing)) == inLog:
			out = append(out, s.acknowledge(b)...)
		}
	}
	if len(s.inFlight) == 0 {
		return out
	}
	s.tries++
	first := s.inFlight[0]
	v := resend
	if first.issued {
		v = judge(first.facts(closing))
	} else if closing {
		v = refused
	}
	for _, b := range s.inFlight {
		b.doubt = b.doubt || b.issued && b.facts(closing).mayBeInLog()
		if b.written && isAny(b.err, kerr.UnknownTopicOrPartition) {
			b.outlive()
		}
	}
	inDoubt := slices.ContainsFunc(s.inFlight, func(b *batch) bool { return b.doubt })
	switch {
	case v == again, v == resend && inDoubt && !closing && !s.gone:
		return append(out, s.goBack()...)
	case v == unknown, inDoubt:
		out = append(out, s.giveUpDoubt(closing)...)
		if v == unknown {
			v = resend
		}
	}
	if len(s.inFlight) > 0 && s.inFlight[0] == first {
		switch v {
		case split:
			s.split(first)
		case refused:
			if first.sequenced && first.epoch == s.epoch && first.producerID == s.producerID {
				s.bump() // its sequence is used up, and what follows would be out of order
			}
			out = append(out, s.refuse(first, closing)...)
		default:
		}
	}
	if closing {
		for _, b := range slices.Clone(s.inFlight) {
			out = append(out, s.close(b, Outcome{Result: NotInLog, Err: ErrClosed})...)
		}
	}
	return append(out, s.unseal()...)
}

// goBack makes all up to the last batch in doubt go again under their sequences (Go back N). What
// is behind has not been in the log, and begins anew.
func (s *partition) goBack() []settlement {
	n := len(s.inFlight)
	for n > 0 && !s.inFlight[n-1].doubt {
		n--
	}
	kept := slices.Clone(s.inFlight[:n])
	s.inFlight = s.inFlight[n:]
	out := s.unseal()
	s.inFlight = kept
	for _, b := range kept {
		b.issued, b.over = false, false
		// One between two in doubt has its place among them, even if it is certainly not in
		// the log: nothing may be taken out of it any more.
		b.doubt = true
	}
	return out
}

// giveUpDoubt ends the batches in doubt: nobody can tell any more what became of them. What is
// still on its way must not be taken for what follows, nor what follows for it.
func (s *partition) giveUpDoubt(closing bool) (out []settlement) {
	for _, b := range slices.Clone(s.inFlight) {
		if b.doubt {
			out = append(out, s.close(b, Outcome{Result: Unknown, Err: b.why(closing)})...)
		}
	}
	s.bump()
	return out
}

// outlive notes that the records may be in the log of a topic that is deleted: a leader says
// UNKNOWN_TOPIC_OR_PARTITION before it appends, but also where it has appended and the topic
// is deleted while it waits for its replicas. They are in no log that is there, and may go
// again. But that they were never in one can no more be said.
func (b *batch) outlive() {
	for _, r := range b.records {
		r.inOldLog = true
	}
}

// why returns what is told of a batch that is in doubt for good.
func (b *batch) why(closing bool) error {
	said := cmp.Or(b.said(), errNoAnswer)
	if closing {
		return errors.Join(ErrClosed, said)
	}
	return said
}

// said returns what the broker or kgo has said to the last try.
func (b *batch) said() error {
	if b.answer == nil || b.err == nil {
		return b.err
	}
	if b.answer.ErrorMessage != nil && *b.answer.ErrorMessage != "" {
		return &Refusal{b.err, *b.answer.ErrorMessage}
	}
	return b.err
}

// acknowledge settles the records of b, which is in the log.
func (s *partition) acknowledge(b *batch) []settlement {
	s.knownID, s.known = b.producerID, thisInstant()
	if t := s.topic; 2*b.size > t.largest { // a full one: perhaps a larger one passes, too
		t.largest = min(2*t.largest, t.usualBatch())
	}
	o := Outcome{Result: InLog, Partition: s.id, Offset: b.answer.BaseOffset}
	// A broker that recognises a batch answers with that batch's own largest timestamp,
	// also on topics with CreateTime.
	if at := b.answer.LogAppendTime; at >= 0 && !(b.doubt && at == b.lastTime()) {
		o.Time = time.UnixMilli(at)
	}
	out := s.close(b, o)
	for i := range out {
		if o.Offset >= 0 {
			out[i].outcome.Offset = o.Offset + int64(i)
		}
	}
	return out
}

// refuse settles the records of b that the broker names, or all.
func (s *partition) refuse(b *batch, closing bool) []settlement {
	if closing {
		return s.close(b, Outcome{Result: NotInLog, Err: errors.Join(ErrClosed, b.said())})
	}
	o := Outcome{Result: NotInLog, Err: b.said()}
	if IsTooLarge(b.err) {
		o.Sent, o.Compressed = b.sentSize, b.payload != nil
	}
	named := b.named()
	if len(named) == 0 || len(b.records) == 1 {
		return s.close(b, o)
	}
	var out []settlement
	kept := make([]*Record, 0, len(b.records))
	for at, r := range b.records {
		says, isNamed := named[at]
		if !isNamed {
			kept = append(kept, r)
			continue
		}
		o.Err = b.said()
		if says != "" {
			o.Err = &Refusal{b.err, says}
		}
		b.size -= r.size
		out = append(out, s.settle(r, o))
	}
	b.records = kept
	return out
}

// split makes the records of b go in smaller batches, or compressed.
func (s *partition) split(b *batch) {
	t := s.topic
	switch {
	case !IsTooLarge(b.err):
		for _, r := range b.records {
			r.alone = true
		}
	case len(b.records) > 1:
		t.largest = min(t.largest, max(b.size/2, 1))
	default:
		b.records[0].compress = true
		t.limit = min(t.limit, int64(b.sentSize)-1)
	}
}

// close ends b, whose records have this outcome.
func (s *partition) close(b *batch, o Outcome) []settlement {
	out := make([]settlement, 0, len(b.records))
	for _, r := range b.records {
		out = append(out, s.settle(r, o))
	}
	s.drop(b)
	return out
}

func (s *partition) settle(r *Record, o Outcome) settlement { return s.topic.settle(r, o) }

// drop takes b out of those in flight.
func (s *partition) drop(b *batch) {
	b.records, b.withdrawn = nil, 0
	b.free()
	s.inFlight = slices.DeleteFunc(s.inFlight, func(o *batch) bool { return o == b })
	if len(s.inFlight) == 0 {
		s.inFlight = nil
	}
}

// unseal puts the records of all batches in flight, none of which is in the log, back in
// front of those that wait; but not those that nobody wants any more. They may go in other
// company: should a broker have one of the batches all the same, it must not take the next
// for it, so these begin a new epoch.
func (s *partition) unseal() []settlement {
	var back []*Record
	var out []settlement
	sequenced := false
	for _, b := range s.inFlight {
		sequenced = sequenced || b.sequenced && b.epoch == s.epoch && b.producerID == s.producerID
		for _, r := range b.records {
			if r.lost != nil {
				out = append(out, s.settle(r, Outcome{Result: NotInLog, Err: r.lost}))
				continue
			}
			r.state, r.batch = waiting, nil
			s.bytes += r.size
			back = append(back, r)
		}
		b.records = nil
		b.free()
	}
	s.inFlight = nil
	s.waiting = slices.Concat(back, s.waiting)
	if sequenced {
		s.bump()
	}
	return out
}

// bump begins a new epoch. Brokers refuse what is still on its way from the old one as soon
// as they have appended a batch of the new one. A producer without transactions may count
// its own epoch up (KIP-360).
func (s *partition) bump() {
	s.sequence = 0
	if s.epoch == math.MaxInt16 {
		s.spentID, s.producerID = s.producerID, -1
		return
	}
	s.epoch++
}
