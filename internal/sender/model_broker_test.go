package sender

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A wireBatch is a batch as it is on the wire.
type wireBatch struct {
	topic      int // the topic, counted: each that is made anew is another
	records    []int
	producerID int64
	epoch      int16
	sequence   int32
}

func (w wireBatch) last() int32 { return sequenceAfter(w.sequence, len(w.records)-1) }

// A modelBroker is the log of one partition, and what Kafka's ProducerStateManager keeps of
// its producers.
type modelBroker struct {
	ids       bool    // batches name their topic by its id
	late      bool    // a producer id is given up in this model: none fences what is still on its way from another
	logs      [][]int // of all topics of this name that there were; the last is there
	producers map[int64]*producerState
	nextID    int64
}

type producerState struct {
	epoch int16
	known []knownBatch // the last of its epoch, at most maxRemembered
}

type knownBatch struct {
	first, last int32
	offset      int64
}

func newModelBroker(ids bool) *modelBroker {
	return &modelBroker{ids: ids, logs: make([][]int, 1), producers: make(map[int64]*producerState)}
}

func (k *modelBroker) topic() int { return len(k.logs) - 1 }

// remake deletes the topic and makes it anew.
func (k *modelBroker) remake() {
	k.logs = append(k.logs, nil)
	k.producers = make(map[int64]*producerState)
}

// take appends w, if Kafka would, and returns the offset and error of its answer.
func (k *modelBroker) take(w wireBatch) (int64, *kerr.Error) {
	if k.ids && w.topic != k.topic() {
		return -1, kerr.UnknownTopicID
	}
	log := &k.logs[k.topic()]
	p := k.producers[w.producerID]
	if p == nil { // one that the broker does not know may begin anywhere
		p = &producerState{epoch: w.epoch}
		k.producers[w.producerID] = p
	} else {
		for _, b := range p.known {
			if w.epoch == p.epoch && b.first == w.sequence && b.last == w.last() {
				return b.offset, nil
			}
		}
		switch {
		case w.epoch < p.epoch:
			return -1, kerr.InvalidProducerEpoch
		case w.epoch > p.epoch:
			if w.sequence != 0 {
				return -1, kerr.OutOfOrderSequenceNumber
			}
			p.epoch, p.known = w.epoch, nil
		case w.sequence != sequenceAfter(p.known[len(p.known)-1].last, 1):
			return -1, kerr.OutOfOrderSequenceNumber
		}
	}
	offset := int64(len(*log))
	*log = append(*log, w.records...)
	p.known = append(p.known, knownBatch{w.sequence, w.last(), offset})
	p.known = p.known[max(0, len(p.known)-maxRemembered):]
	return offset, nil
}

// newProducer is InitProducerId. Ids count from 0, as Kafka's do.
func (k *modelBroker) newProducer() int64 {
	k.nextID++
	return k.nextID - 1
}

// judge returns what is wrong at the end of a history, when nothing is on its way any more.
func (k *modelBroker) judge(outcomes []*Outcome) error {
	where := make([][]int64, len(outcomes)) // the offsets of each record, in all logs
	for _, log := range k.logs {
		last := -1
		for offset, r := range log {
			isTwice := slices.Contains(log[:offset], r)
			// What was appended to a topic that was deleted, without an answer, may go to the next
			// one: without ids, nobody sees that it is another.
			isTwice = isTwice || k.ids && len(where[r]) > 0
			isLate := r < last
			where[r] = append(where[r], int64(offset))
			switch {
			case isTwice:
				return fmt.Errorf("record %d is in the log twice: %v", r, k.logs)
			case isLate && k.late && (len(where[r]) > 1 || outcomes[r] != nil && outcomes[r].Result == Unknown):
				continue
			case isLate:
				return fmt.Errorf("record %d is behind record %d: %v", r, last, k.logs)
			}
			last = r
		}
	}
	for i, o := range outcomes {
		switch {
		case o == nil:
			return fmt.Errorf("record %d is not settled, and nothing is left to happen", i)
		case o.Result == InLog && !slices.Contains(where[i], o.Offset):
			return fmt.Errorf("record %d was acknowledged at %d, and is at %v: %v", i, o.Offset, where[i], k.logs)
		case o.Result == NotInLog && len(where[i]) > 0:
			return fmt.Errorf("record %d was called not written (%w), and is in the log: %v", i, o.Err, k.logs)
		case o.Result != InLog && o.Err == nil:
			return fmt.Errorf("record %d is %v without a reason", i, o.Result)
		}
	}
	return nil
}
