package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
)

// A mistake is one that a small can make.
type mistake int

const (
	none mistake = iota
	// windowLoss sends again, behind a batch in doubt, one that never had a number: as
	// producer 0, epoch 0, sequence 0.
	windowLoss
	// falseProof takes NOT_ENOUGH_REPLICAS for a proof that an earlier try has appended
	// nothing either, and gives the numbers to other records.
	falseProof
	// deposedProof takes NOT_LEADER_OR_FOLLOWER for a proof that nothing was appended.
	deposedProof
	// oldBatch sends what was numbered for a topic to another of the same name.
	oldBatch
	// sameEpoch gives the numbers of a batch that was given up to the next, in its epoch.
	sameEpoch
	// overtaken lets what was sent in vain wait behind what came later.
	overtaken
	// falseFailure calls a message failed that may have been written.
	falseFailure
	// doubling numbers a batch in doubt anew.
	doubling
	// eagerStart has several batches in flight before the first of an epoch is
	// acknowledged.
	eagerStart
)

// judge decides what becomes of all that is in flight, whose tries are over. It reports
// whether the next round may begin at once.
func (p *smallPart) judge() bool {
	p.mu.Lock()
	var tell []func()
	again := p.decide(&tell)
	p.mu.Unlock()
	for _, f := range tell {
		f()
	}
	return again
}

func (p *smallPart) decide(tell *[]func()) (again bool) {
	doubt, wanted := false, false
	for _, b := range slices.Clone(p.flight) {
		if b.answered && (b.err == nil || errors.Is(b.err, kerr.DuplicateSequenceNumber)) {
			p.begun = true
			p.end1(b, nil, tell)
			continue
		}
		b.doubt = b.doubt || b.written && !(b.answered && p.proves(b.err))
		if p.wrong == falseProof && errors.Is(b.err, kerr.NotEnoughReplicas) {
			b.doubt = false
		}
		doubt = doubt || b.doubt
		wanted = wanted || b.doubt && slices.ContainsFunc(b.records, func(r *smallRecord) bool { return r.ctx.Err() == nil })
	}
	if len(p.flight) == 0 {
		return true
	}
	first := p.flight[0]
	moved := p.topicID != p.small.topicID
	if moved && p.wrong == oldBatch {
		p.topicID, p.sequence = p.small.topicID, 0
		return false
	}
	switch {
	case doubt && (moved || !wanted || first.answered && !kerr.IsRetriable(first.err) || first.answered && outOfPlace(first.err)):
		for _, b := range slices.Clone(p.flight) {
			if b.doubt {
				p.end1(b, fmt.Errorf("%w: %w", gracedb.ErrOutcomeUnknown, cmpErr(first.err, context.Canceled)), tell)
			}
		}
		p.unseal()
		if p.bump(); p.wrong == sameEpoch {
			p.epoch--
			p.recount(first)
		}
	case doubt && p.wrong == doubling:
		p.unseal()
		p.bump()
	case doubt: // the same again, of those that have a number
		keep := len(p.flight)
		for ; p.wrong != windowLoss && !p.flight[keep-1].doubt && !p.flight[keep-1].written; keep-- {
		}
		kept := p.flight[:keep]
		p.flight = p.flight[keep:]
		if len(p.flight) > 0 {
			p.recount(p.flight[0])
		}
		p.unseal()
		p.flight = slices.Clone(kept)
		for _, b := range kept {
			b.doubt = true
		}
	case first.answered && !kerr.IsRetriable(first.err) && !outOfPlace(first.err):
		// It fails whole, unless the broker names the records that are to blame.
		for _, r := range first.refused {
			p.end1(&smallBatch{records: first.records[r.RelativeOffset : r.RelativeOffset+1]}, fmt.Errorf("%w: %w", gracedb.ErrDelivery, first.err), tell)
		}
		if first.refused == nil {
			p.end1(first, fmt.Errorf("%w: %w", gracedb.ErrDelivery, first.err), tell)
		}
		p.unseal()
		p.bump()
		return true
	case (p.wrong == falseProof || p.wrong == deposedProof) && !outOfPlace(first.err):
		p.unseal()
		p.recount(first)
	default:
		written := slices.ContainsFunc(p.flight, func(b *smallBatch) bool { return b.written })
		p.unseal()
		p.recount(first)
		if written {
			p.bump()
		}
	}
	if moved {
		p.topicID = p.small.topicID
		p.bump()
	}
	return false
}

// proves reports whether a broker that answers err has not appended this time.
func (p *smallPart) proves(err error) bool {
	for _, e := range []error{
		kerr.NotEnoughReplicas, kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.UnknownProducerID, kerr.UnknownTopicID,
		kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.TopicAuthorizationFailed,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return p.wrong == deposedProof && errors.Is(err, kerr.NotLeaderForPartition)
}

// outOfPlace reports whether a broker has looked at a batch's number and refuses it.
func outOfPlace(err error) bool {
	return errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.UnknownProducerID)
}

// end1 takes b out of flight. Its records have an outcome.
func (p *smallPart) end1(b *smallBatch, err error, tell *[]func()) {
	p.flight = slices.DeleteFunc(p.flight, func(o *smallBatch) bool { return o == b })
	for i, r := range b.records {
		if r.over {
			continue
		}
		r.over = true
		at := gracedb.Message{Partition: p.part, Offset: b.offset + int64(i)}
		*tell = append(*tell, func() { p.settle(r, at, err) })
	}
}

// unseal lets what is in flight wait again, before all else. It is in no doubt.
func (p *smallPart) unseal() {
	var back []*smallRecord
	for _, b := range p.flight {
		back = append(back, b.records...)
	}
	p.flight = nil
	back = slices.DeleteFunc(back, func(r *smallRecord) bool { return r.over })
	if p.waiting = slices.Concat(back, p.waiting); p.wrong == overtaken {
		p.waiting = append(p.waiting[len(back):], back...)
	}
	for _, r := range back {
		if r.ctx.Err() != nil { // its ctx has ended while it was sealed
			go p.withdraw(p, r)
		}
	}
}

// recount gives the number of b, which brokers have not seen, to the next batch.
func (p *smallPart) recount(b *smallBatch) {
	if b.sequenced {
		p.sequence = b.sequence
	}
}

// bump makes brokers refuse what is still on its way, and count anew.
func (p *smallPart) bump() {
	p.epoch++
	p.sequence, p.begun = 0, p.wrong == eagerStart
}

// abandon gives all that is left an outcome.
func (p *smallPart) abandon() {
	p.mu.Lock()
	var tell []func()
	for _, b := range slices.Clone(p.flight) {
		err := gracedb.ErrDelivery
		if b.doubt || b.written {
			err = gracedb.ErrOutcomeUnknown
		}
		p.end1(b, fmt.Errorf("%w: %w", err, gracedb.ErrClosed), &tell)
	}
	p.flight = []*smallBatch{{records: p.waiting}}
	p.end1(p.flight[0], fmt.Errorf("%w: %w", gracedb.ErrDelivery, gracedb.ErrClosed), &tell)
	p.waiting = nil
	p.mu.Unlock()
	for _, f := range tell {
		f()
	}
}
