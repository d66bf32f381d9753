package sender

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file does for the model check what run.go does for brokers: each function here names
// the one there that it stands for.

var (
	closedLife, endClosedLife = context.WithCancel(context.Background())
	errWithdrawn              = errors.New("withdrawn")
)

func init() { endClosedLife() }

// add is Send, without what follows from it.
func (p *play) add() *partition {
	r := &Record{Owner: len(p.records), topic: p.topic, size: 1}
	p.records = append(p.records, r)
	p.topic.live++
	return p.topic.place(r)
}

func (p *play) send() {
	if s := p.add(); s != nil {
		p.advance(s)
	}
}

func (p *play) withdraw(r *Record) {
	withdraw := func() []settlement { return p.topic.withdraw(r, errWithdrawn) }
	if p.wrong.withdraw != nil {
		p.settle(p.wrong.withdraw(r, withdraw))
		return
	}
	p.settle(withdraw())
}

// advance is Sender.advanceLocked.
func (p *play) advance(s *partition) {
	if p.closed {
		return
	}
	if p.wrong.advance != nil {
		p.wrong.advance(s)
	}
	for b := s.seal(); b != nil; b = s.seal() {
		p.prepare(b)
	}
	for _, b := range s.inFlight {
		if !b.issued && !b.prepared && !b.encoding && !b.isEmpty() {
			p.prepare(b)
		}
	}
	b := s.next()
	switch {
	case b == nil:
	case s.leader < 0:
		s.recovering, s.comingBack = true, true
		s.tries++
	default:
		s.issue(b)
		p.tries = append(p.tries, &modelTry{b: b})
		if p.wrong.eager {
			b.written = true
			p.advance(s)
		}
	}
}

// prepare is Sender.prepare.
func (p *play) prepare(b *batch) {
	if !p.zip {
		b.prepared = true
		return
	}
	b.encoding, b.reading = true, true
	p.encodes = append(p.encodes, b)
}

// encode is one half of Sender.encode: up to when the records were read, or all behind that.
func (p *play) encode(b *batch) {
	s := b.part
	if b.reading {
		b.reading = false
		for _, r := range b.leaving {
			if r.state != settled {
				p.settle([]settlement{s.settle(r, Outcome{Result: NotInLog, Err: r.lost})})
				b.remove(r)
			}
		}
		b.leaving = nil
		p.judge(s)
		return
	}
	p.encodes = slices.DeleteFunc(p.encodes, func(o *batch) bool { return o == b })
	b.encoding, b.prepared, b.stale = false, !b.stale && !b.isEmpty(), false
	if b.prepared {
		b.payload = getBuffer()
	}
	if b.isEmpty() && !b.issued && !b.sequenced {
		s.drop(b)
	}
	p.advance(s)
}

// write is Sender.identify, kgo's call of AppendTo, and the write, if there is one: without
// a connection, kgo tells that nothing was written.
func (p *play) write(try *modelTry, connected bool) {
	s, sender := try.b.part, p.topic.sender
	if s.producerID < 0 {
		if sender.id < 0 || sender.id == s.spentID {
			sender.id, sender.epoch = p.broker.newProducer(), 0
		}
		s.producerID, s.epoch, s.sequence = sender.id, sender.epoch, 0
	}
	life := sender.life
	sender.life = closedLife // keeps wrote from advancing
	wrote := func() bool { wanted, _ := s.wrote(try.b); return wanted }
	var wanted bool
	if p.wrong.write != nil {
		wanted = p.wrong.write(try.b, wrote)
	} else {
		wanted = wrote()
	}
	sender.life = life
	if !wanted { // the request is without it
		try.written, try.taken, try.err = true, true, errNoAnswer
	} else {
		b := try.b
		try.written = true
		if !connected {
			try.taken, try.err = true, errNotWritten
		}
		for _, r := range b.records {
			p.written[r.Owner.(int)] = p.written[r.Owner.(int)] || connected
		}
		try.wire = wireBatch{int(s.topicID[0]) - 1, ids(b.records), b.producerID, b.epoch, b.sequence}
	}
	p.advance(s)
}

// take is the broker's. It appends nothing if it is to say before, and says after if it
// would say that it has.
func (p *play) take(try *modelTry, before, after *kerr.Error) {
	offset, err := int64(-1), before
	if before == nil {
		if offset, err = p.broker.take(try.wire); err == nil {
			err = after
		}
	}
	answer := kmsg.NewProduceResponseTopicPartition()
	answer.BaseOffset, answer.LogAppendTime = offset, -1
	if err != nil {
		answer.ErrorCode, answer.BaseOffset = err.Code, -1
		try.err = err
	}
	try.taken, try.answer = true, &answer
}

// lose loses the connection. The broker takes later what it has read of it. The answers that
// kgo has not read are lost.
func (p *play) lose(read []*modelTry, answers bool) {
	p.zombies = append(p.zombies, read...)
	for _, try := range p.tries {
		if try.written && (!try.taken || answers && try.answer != nil) {
			try.taken, try.answer, try.err = true, nil, errLost
		}
	}
}

// end is the second half of Sender.try.
func (p *play) end(try *modelTry, answer *kmsg.ProduceResponseTopicPartition, err error) {
	p.tries = slices.DeleteFunc(p.tries, func(o *modelTry) bool { return o == try })
	s := try.b.part
	if try.answer, try.err = answer, err; p.wrong.end != nil {
		p.wrong.end(try)
	}
	if errors.Is(try.err, errNotWritten) {
		try.b.written = false
	}
	p.settle(s.ended(try.b, try.answer, try.err))
	p.judge(s)
	p.advance(s)
}

// judge is Sender.judgeLocked.
func (p *play) judge(s *partition) {
	if s.gone && s.draining() {
		p.settle(p.topic.drained(s))
		p.beginAnew()
		return
	}
	if !s.recovering || s.comingBack || !s.ready() {
		return
	}
	then := func() []settlement { return s.recover(p.closed) }
	if p.wrong.recover != nil {
		p.settle(p.wrong.recover(s, then))
	} else {
		p.settle(then())
	}
	s.moved = false
	if p.closed || len(s.inFlight) == 0 && s.passed == len(s.waiting) {
		s.recovering = false
		return
	}
	s.comingBack = true // after a pause, or at once
}

func (p *play) comeBack(s *partition) {
	if s.leader < 0 {
		s.leader = 0
	}
	if p.learned < p.broker.topic() {
		p.learn()
	}
	s.comingBack, s.recovering = false, s.failed() && !p.wrong.blind
	p.judge(s)
	p.advance(s)
}

// learn is topic.update, of a topic that was made anew.
func (p *play) learn() {
	p.learned = p.broker.topic()
	p.settle(p.topic.leave())
	p.beginAnew()
}

func (p *play) beginAnew() {
	t := p.topic
	if len(t.old) > 0 || p.closed {
		return
	}
	pending := t.pending
	t.pending = nil
	t.begin(State{ID: [16]byte{byte(p.learned + 1)}, Partitions: []Leader{{0, 0}}})
	for _, r := range pending {
		if r.state != settled {
			t.place(r)
		}
	}
	for _, s := range t.parts {
		p.advance(s)
	}
}

// close is Sender.Close. All tries end with their context.
func (p *play) close(read []*modelTry) {
	p.closed = true
	p.topic.sender.life = closedLife
	p.outcomes = p.outcomes[:len(p.records)]
	p.lose(read, false)
	for _, try := range p.tries {
		if !try.written {
			try.taken, try.err = true, errNotWritten
		}
	}
	p.settle(p.topic.refuse(ErrClosed))
}
