package sender

import (
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A partition holds the records of one partition until their outcome is known: first in its
// accumulator, then in batches in flight. Its methods are the state machine that the package
// comment draws. They wait for nothing and talk to nobody: run.go does that between them,
// and the model check instead of it. All are called with topic.mu held, but for wrote.
type partition struct {
	topic   *topic
	topicID [16]byte
	id      int32
	gone    bool // the topic was deleted, and perhaps made anew: what is in flight is judged, and no more is sent
	drained bool // that was done

	leader      int32 // or -1
	leaderEpoch int32

	waiting []*Record // the accumulator, oldest first; settled ones are passed over
	bytes   int64     // of those that are not settled
	passed  int       // how many settled ones are in it
	idle    int64     // bytes of those

	inFlight []*batch // oldest first
	// recovering is set from the first try that fails until all in flight are judged, and
	// whatever the next try needs is there. Nothing is issued meanwhile.
	recovering bool
	comingBack bool  // a goroutine sees to the next try
	tries      int   // that have failed in a row
	said       error // what the broker has answered last that keeps all records waiting; or nil
	moved      bool  // the last answer has named another leader

	// The idempotent producer (KIP-98, KIP-360) of this partition. Sequences count its
	// records from 0 in each epoch.
	producerID int64 // -1: none yet
	spentID    int64 // another than this one is wanted; or -1
	epoch      int16
	sequence   int32 // of the next record
	knownID    int64 // of the batch that was acknowledged last; or -1
	known      instant
}

const (
	// maxRemembered is how many batches of one producer a broker remembers, to recognise
	// those that come again.
	maxRemembered = 5
	// rememberedFor is safely less than the day for which a broker remembers a producer that
	// sends nothing (producer.id.expiration.ms).
	rememberedFor = 12 * time.Hour
	// knownFor is how long a partition's leader is taken to know a producer after it has
	// acknowledged a batch: less than rememberedFor, since brokers may be set otherwise.
	knownFor = 10 * time.Minute
	// maxRecords is how many records a batch has at most: what is done to all of them under
	// topic.mu is done soon.
	maxRecords = 10_000
)

// A settlement is what became of one record.
type settlement struct {
	record  *Record
	outcome Outcome
}

// works reports whether what is put into s is sent soon.
func (s *partition) works() bool { return s.leader >= 0 && !s.recovering && !s.gone }

// add puts r, which is not settled, into the accumulator.
func (s *partition) add(r *Record) {
	r.state, r.part, r.batch = waiting, s, nil
	s.waiting = append(s.waiting, r)
	s.bytes += r.size
}

// seal makes a batch of what waits, if there is a use for one.
func (s *partition) seal() *batch {
	t := s.topic
	if s.recovering || s.gone || s.bytes == 0 && s.passed == len(s.waiting) {
		return nil
	}
	if n := len(s.inFlight); n > 0 {
		last := s.inFlight[n-1]
		// Near the broker, what waits goes together as soon as the batch before it is
		// answered. A batch of a new epoch is not sent before those of the old one are judged:
		// a broker that has seen it takes nothing of the old one any more. And a broker that
		// knows nothing of a producer takes its second batch though it has refused the first.
		if n >= maxInFlight || !s.isKnown() || !t.far() && s.bytes < t.batchLimit() || last.sequenced && (last.epoch != s.epoch || last.producerID != s.producerID) {
			return nil
		}
	}
	b := &batch{part: s}
	took := 0
	for _, r := range s.waiting {
		if r.state == settled {
			s.passed--
			s.idle -= r.size
			took++
			continue
		}
		if len(b.records) == maxRecords || len(b.records) > 0 && (b.size+r.size > t.batchLimit() || r.alone || b.records[0].alone) {
			break
		}
		b.records = append(b.records, r)
		b.size += r.size
		r.state, r.batch = sealed, b
		took++
	}
	clear(s.waiting[:took])
	s.waiting = s.waiting[took:]
	if len(s.waiting) == 0 {
		s.waiting = nil
	}
	if len(b.records) == 0 {
		return nil
	}
	s.bytes -= b.size
	if t.sticky == s {
		t.sticky = nil
	}
	s.inFlight = append(s.inFlight, b)
	return b
}

// isKnown reports whether the leader knows s's producer: it has acknowledged a batch of it
// not long ago.
func (s *partition) isKnown() bool {
	return s.producerID >= 0 && s.producerID == s.knownID && s.known.age() < knownFor
}

// next returns the batch that may be issued now, or nil. Batches are written in their order:
// one is issued when all before it are written.
func (s *partition) next() *batch {
	if s.recovering || s.gone {
		return nil
	}
	for _, b := range s.inFlight {
		if !b.issued {
			if !b.prepared {
				return nil
			}
			return b
		}
		if !b.written || b.over {
			return nil // one that is over has failed: recovery is next
		}
	}
	return nil
}

// issue notes that a try of b begins.
func (s *partition) issue(b *batch) {
	b.issued, b.written, b.over = true, false, false
	b.answer, b.err, b.began = nil, nil, time.Now()
}

// wrote is called when kgo asks for the bytes of b. It gives b its sequence, if this is the
// first time, and reports whether b is to be sent, and how long its records are if they go
// uncompressed. It is called without the lock.
func (s *partition) wrote(b *batch) (wanted bool, plain int) {
	s.topic.mu.Lock()
	if b.isEmpty() || !b.prepared || s.producerID < 0 && !b.sequenced || b.isForgotten() {
		// It, or some of it, was withdrawn just now; or it has waited for its connection, or this
		// machine was suspended, for so long that brokers might append it twice.
		s.topic.mu.Unlock()
		return false, 0
	}
	if !b.sequenced {
		b.tidy()
		b.sequenced, b.since = true, thisInstant()
		b.producerID, b.epoch, b.sequence = s.producerID, s.epoch, s.sequence
		s.sequence = sequenceAfter(s.sequence, len(b.records))
	}
	if b.payload == nil {
		plain = b.plainLen()
		b.sentSize = batchHeader + plain
	} else {
		b.sentSize = batchHeader + len(*b.payload)
	}
	first := !b.written
	b.written = true
	s.topic.mu.Unlock()
	if first {
		s.topic.sender.advance(s) // the next batch may follow
	}
	return true, plain
}

// sequenceAfter returns what follows n records from sequence on: brokers count from 0 again
// after the largest int32.
func sequenceAfter(sequence int32, n int) int32 {
	return int32((int64(sequence) + int64(n)) & math.MaxInt32)
}

// withdraw settles r as not written, if that is certain now and for ever; cause is why its
// owner does not want it any more. If it is not certain yet, cause is kept for the case that
// a broker's answer makes it so.
func (s *partition) withdraw(r *Record, cause error) []settlement {
	r.lost = cause
	b := r.batch
	switch {
	case r.state == waiting:
		s.bytes -= r.size
		s.passed++
		s.idle += r.size
		out := []settlement{s.settle(r, Outcome{Result: NotInLog, Err: cause})}
		s.compact()
		return out
	case r.state == settled, b.sequenced, b.doubt:
		return nil
	case b.reading: // who reads its value settles it then
		b.leaving = append(b.leaving, r)
		return nil
	}
	b.remove(r)
	out := []settlement{s.settle(r, Outcome{Result: NotInLog, Err: cause})}
	if b.isEmpty() && !b.issued {
		s.drop(b)
	}
	return out
}

// compact forgets settled records in the accumulator before they are most of it, or large.
func (s *partition) compact() {
	if s.passed > 64 && s.passed > len(s.waiting)/2 || s.idle > 1<<20 && s.idle > s.bytes {
		s.waiting = slices.DeleteFunc(s.waiting, func(r *Record) bool { return r.state == settled })
		s.passed, s.idle = 0, 0
	}
}

// hint takes over what a broker that leads the partition no more says about who does
// (KIP-951).
func (s *partition) hint(answer *kmsg.ProduceResponseTopicPartition) (moved bool) {
	if answer == nil || !isAny(kerr.ErrorForCode(answer.ErrorCode), kerr.NotLeaderForPartition, kerr.FencedLeaderEpoch) {
		return false
	}
	now := answer.CurrentLeader
	if now.LeaderID < 0 || now.LeaderEpoch <= s.leaderEpoch {
		return false
	}
	moved = now.LeaderID != s.leader
	s.leader, s.leaderEpoch = now.LeaderID, now.LeaderEpoch
	return moved
}
