package kafkatest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// This file is what Kafka's brokers remember of idempotent producers: which ids are
// given away, and of each partition what each producer has written last (there,
// ProducerStateManager, ProducerStateEntry and ProducerAppendInfo).

// A log is one partition of one topic. A topic that is deleted and made anew has
// another id, and no producer has written to it.
type log struct {
	topic     [16]byte
	partition int32
}

// A writer is a producer in one partition.
type writer struct {
	log
	id int64
}

// producers is guarded by appends.
type producers struct {
	next   int64 // the id that is given away next
	states map[writer]*producerState
	start  time.Time // of the cluster
}

// A producerState is what a partition remembers of a producer.
type producerState struct {
	Epoch   int16
	Batches []appended // the last ones under Epoch, oldest first
	Expires time.Time
}

// An appended batch is what is answered if it is sent again.
type appended struct {
	First, Last int32 // sequence numbers
	Offset      int64 // of the first record
	Timestamp   int64 // the largest
}

// keptBatches is ProducerStateEntry.NUM_BATCHES_TO_RETAIN.
const keptBatches = 5

// producer.id.expiration.ms, and how often it is looked at.
const (
	producerExpiration = 24 * time.Hour
	expirationInterval = 10 * time.Minute
)

// state returns what is known of a producer, or nil.
func (p *producers) state(w writer) *producerState {
	s := p.states[w]
	if s != nil && !time.Now().Before(s.Expires) {
		delete(p.states, w)
		return nil
	}
	return s
}

// duplicate returns the batch that b is again, or nil: one of the last five with
// just its epoch and sequence numbers.
func (s *producerState) duplicate(b *batch) *appended {
	if s == nil || s.Epoch != b.epoch {
		return nil
	}
	i := slices.IndexFunc(s.Batches, func(a appended) bool { return a.First == b.sequence && a.Last == b.lastSequence() })
	if i < 0 {
		return nil
	}
	return &s.Batches[i]
}

// check returns why b, which is no duplicate, cannot be appended, or nil. A producer
// of which nothing is known may begin with any sequence number, a new epoch only with 0.
func (s *producerState) check(b *batch) *kerr.Error {
	switch {
	case s == nil:
		return nil
	case b.epoch < s.Epoch:
		return kerr.InvalidProducerEpoch
	case b.epoch > s.Epoch:
		if b.sequence != 0 {
			return kerr.OutOfOrderSequenceNumber
		}
	case b.sequence != addSequence(s.Batches[len(s.Batches)-1].Last, 1):
		return kerr.OutOfOrderSequenceNumber
	}
	return nil
}

// append remembers that b is at offset. Kafka forgets a producer a day after the time
// in its latest batch, which is the client's word, when it next looks for such.
func (p *producers) append(w writer, b *batch, offset int64) {
	s := p.state(w)
	if s == nil {
		s = &producerState{Epoch: b.epoch}
		p.states[w] = s
	}
	if s.Epoch != b.epoch {
		s.Epoch, s.Batches = b.epoch, nil
	}
	if len(s.Batches) == keptBatches {
		s.Batches = slices.Delete(s.Batches, 0, 1)
	}
	s.Batches = append(s.Batches, appended{b.sequence, b.lastSequence(), offset, b.maxTimestamp})
	due := time.UnixMilli(b.maxTimestamp).Add(producerExpiration)
	if now := time.Now(); due.Before(now) {
		due = now
	}
	s.Expires = p.start.Add(due.Sub(p.start).Truncate(expirationInterval) + expirationInterval)
}

// addSequence returns the sequence number n after s: 0 follows math.MaxInt32.
func addSequence(s, n int32) int32 {
	if s > math.MaxInt32-n {
		return n - (math.MaxInt32 - s) - 1
	}
	return s + n
}

// A savedProducer is a line of the file in DataDir.
type savedProducer struct {
	Topic     [16]byte
	Partition int32
	ID        int64
	State     *producerState
}

type savedProducers struct {
	Next      int64
	Producers []savedProducer
}

func producersFile(dir string) string { return filepath.Join(dir, "kafkatest-producers.json") }

// save writes what is remembered next to the log.
func (p *producers) save(dir string) error {
	out := savedProducers{Next: p.next}
	for w, s := range p.states {
		out.Producers = append(out.Producers, savedProducer{w.topic, w.partition, w.id, s})
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return os.WriteFile(producersFile(dir), b, 0o600)
}

// load reads what save has written, if there is anything.
func (p *producers) load(dir string) error {
	b, err := os.ReadFile(producersFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var in savedProducers
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	p.next = in.Next
	for _, s := range in.Producers {
		p.states[writer{log{s.Topic, s.Partition}, s.ID}] = s.State
	}
	return nil
}
