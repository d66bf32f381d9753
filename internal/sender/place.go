package sender

import (
	"hash/crc32"
	"math/rand/v2"
	"slices"
)

// This file is which partition a record goes to.

// place puts r where it waits for its turn, and returns the partition that has something
// new to do, if any.
func (t *topic) place(r *Record) *partition {
	if len(t.parts) == 0 {
		r.state, r.part, r.batch = waiting, nil, nil
		t.pending = append(t.pending, r)
		if len(t.old) == 0 {
			t.load()
		}
		return nil
	}
	s := t.sticky
	switch {
	case len(r.Key) > 0:
		// Where librdkafka's default partitioner, consistent_random, places it, so that an
		// event keeps its partition whichever client sends it.
		s = t.parts[crc32.ChecksumIEEE(r.Key)%uint32(len(t.parts))]
	case s == nil || !s.works():
		s = t.anyPartition()
		t.sticky = s
	}
	s.add(r)
	return s
}

// anyPartition returns one that works, if any does.
func (t *topic) anyPartition() *partition {
	var good []*partition
	for _, s := range t.parts {
		if s.works() {
			good = append(good, s)
		}
	}
	if good == nil {
		good = t.parts
	}
	return good[rand.IntN(len(good))] //nolint:gosec // no secret
}

// evade moves records without a key that wait in s, which does not work, to partitions that do,
// and returns these:
//
//  1. a partition loses its leader while a batch of it is in flight;
//  2. a record without a key is put behind that batch;
//  3. the batch fails. What has a key waits for a leader, and nothing else needs to.
func (t *topic) evade(s *partition) (to []*partition) {
	isFree := func(r *Record) bool { return r.state == waiting && len(r.Key) == 0 }
	if s.gone || !slices.ContainsFunc(t.parts, (*partition).works) || !slices.ContainsFunc(s.waiting, isFree) {
		return nil
	}
	was := s.waiting
	s.waiting = nil
	for _, r := range was {
		if !isFree(r) {
			s.waiting = append(s.waiting, r)
			continue
		}
		s.bytes -= r.size
		if p := t.place(r); !slices.Contains(to, p) {
			to = append(to, p)
		}
	}
	return to
}
