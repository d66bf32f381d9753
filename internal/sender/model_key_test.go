package sender

import (
	"encoding/binary"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// key tells states apart.
func (p *play) key() string {
	k := key{make([]byte, 0, 512)}
	t := p.topic
	k.add(p.faults, p.learned, len(p.records), int(t.sender.id), int(t.largest), int(t.limit), len(t.old), int(p.broker.nextID))
	k.yes(p.closed, p.passing)
	for i, r := range p.records {
		k.yes(p.written[i], r.lost != nil, r.alone, r.compress, p.outcomes[i] != nil)
		if o := p.outcomes[i]; o != nil {
			k.add(int(o.Result), int(o.Offset))
		}
	}
	k.records(t.pending)
	k.records(t.carried)
	places := make(map[*batch]int)
	for _, s := range p.partitions() {
		k.add(int(s.topicID[0]), int(s.leader), s.tries, s.passed, int(s.producerID), int(s.spentID), int(s.epoch), int(s.sequence), int(s.knownID))
		k.yes(s.gone, s.drained, s.recovering, s.comingBack, s.isKnown())
		k.records(s.waiting)
		for _, b := range s.inFlight {
			places[b] = len(places) + 1
			k.records(b.records)
			k.add(int(b.producerID), int(b.epoch), int(b.sequence), b.sentSize, b.withdrawn)
			k.yes(b.sequenced, b.issued, b.written, b.over, b.doubt, b.prepared, b.payload != nil)
			k.answer(b.answer, b.err)
		}
	}
	for _, try := range p.tries {
		k.add(places[try.b])
		k.yes(try.written, try.taken)
		k.wire(try.wire)
		k.answer(try.answer, try.err)
	}
	for _, b := range p.encodes {
		k.add(places[b])
		k.yes(b.reading, b.stale)
		k.records(b.leaving)
	}
	for _, z := range p.zombies {
		k.wire(z.wire)
	}
	for _, log := range p.broker.logs {
		k.add(log...)
		k.add(-1)
	}
	for id := range p.broker.nextID {
		if s := p.broker.producers[id]; s != nil {
			k.add(int(id), int(s.epoch), len(s.known))
			for _, b := range s.known {
				k.add(int(b.first), int(b.last), int(b.offset))
			}
		}
	}
	return string(k.text)
}

type key struct{ text []byte }

func (k *key) add(all ...int) {
	for _, n := range all {
		k.text = binary.AppendVarint(k.text, int64(n))
	}
}

func (k *key) yes(all ...bool) {
	for _, is := range all {
		if is {
			k.text = append(k.text, 1)
		} else {
			k.text = append(k.text, 0)
		}
	}
}

func (k *key) records(records []*Record) {
	k.add(len(records))
	for _, r := range records {
		k.add(r.Owner.(int), int(r.state))
	}
}

func (k *key) wire(w wireBatch) {
	k.add(w.topic, len(w.records), int(w.producerID), int(w.epoch), int(w.sequence))
	k.add(w.records...)
}

func (k *key) answer(answer *kmsg.ProduceResponseTopicPartition, err error) {
	k.yes(answer != nil, errors.Is(err, errLost), errors.Is(err, errNotWritten), err == nil)
	if answer != nil {
		k.add(int(answer.ErrorCode), len(answer.ErrorRecords), int(answer.BaseOffset))
	}
}
