package sender

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is all that waits, asks, or starts a goroutine. Each goroutine ends with what it
// waits for: a request (which kgo bounds), a pause, or Close.

// advanceLocked does what partition p lets be done now. It is called with topic.mu held.
func (s *Sender) advanceLocked(p *partition) {
	if s.isClosing() {
		return
	}
	if p.leader < 0 {
		s.evade(p)
	}
	for b := p.seal(); b != nil; b = p.seal() {
		s.prepare(b)
	}
	for _, b := range p.inFlight {
		if !b.issued && !b.prepared && !b.encoding && !b.isEmpty() {
			s.prepare(b) // something was withdrawn
		}
	}
	b := p.next()
	switch {
	case b == nil:
	case p.leader < 0:
		p.recovering, p.comingBack = true, true
		p.tries++
		go s.comeBack(p, time.Now(), true)
	default:
		p.issue(b)
		go s.try(b, p.leader, newProduceRequest(b))
	}
}

func (s *Sender) advance(p *partition) {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	s.advanceLocked(p)
}

// prepare decides whether b goes compressed, and has it compressed.
func (s *Sender) prepare(b *batch) {
	b.tidy()
	n := b.plainLen()
	must := int64(n+batchHeader) > b.part.topic.limit
	for _, r := range b.records {
		must = must || r.compress
	}
	if !must && !s.cfg.Compresses(n) {
		b.prepared = true
		return
	}
	b.encoding, b.reading = true, true
	go s.encode(b, n)
}

// encode compresses b, without the lock but where it says so.
func (s *Sender) encode(b *batch, n int) {
	p, t := b.part, b.part.topic
	plain, payload := getBuffer(), getBuffer()
	if cap(*plain) < n {
		*plain = make([]byte, 0, n)
	}
	*plain = appendPlain((*plain)[:0], b.records)

	t.mu.Lock()
	b.reading = false
	var out []settlement
	for _, r := range b.leaving {
		if r.state != settled {
			out = append(out, p.settle(r, Outcome{Result: NotInLog, Err: r.lost}))
			b.remove(r)
		}
	}
	b.leaving = nil
	stale := b.stale || b.isEmpty()
	out = append(out, s.judgeLocked(p)...)
	s.unlock(t, out)

	shrunk := false
	if !stale {
		if zipped := s.cfg.Compress((*payload)[:0], *plain); zipped != nil {
			*payload, shrunk = zipped, true
		}
	}
	putBuffer(plain)

	t.mu.Lock()
	b.encoding = false
	stale = stale || b.stale || b.isEmpty()
	b.stale = false
	if shrunk && !stale {
		b.payload = payload
	} else {
		putBuffer(payload)
	}
	b.prepared = !stale
	if b.isEmpty() && !b.issued && !b.sequenced {
		p.drop(b)
	}
	s.advanceLocked(p)
	t.mu.Unlock()
}

// try sends b once, and sees to what follows from how that went.
func (s *Sender) try(b *batch, leader int32, req *produceRequest) {
	answer, err := s.ask(b, leader, req)
	p, t := b.part, b.part.topic
	t.mu.Lock()
	if answer == nil && s.cfg.NoConnection(err) {
		// kgo may have asked for the bytes, and written none of them, since its connection was
		// gone: only then does it make another for the same request.
		b.written = false
	}
	out := p.ended(b, answer, err)
	out = append(out, s.judgeLocked(p)...)
	s.advanceLocked(p)
	s.unlock(t, out)
}

// ask returns the leader's answer to b; or why there is none. An answer's error stands in
// err too.
func (s *Sender) ask(b *batch, leader int32, req *produceRequest) (*kmsg.ProduceResponseTopicPartition, error) {
	p := b.part
	if err := s.identify(p); err != nil {
		return nil, err
	}
	resp, err := s.cfg.Client.Broker(int(leader)).Request(s.life, req)
	if err != nil {
		return nil, err
	}
	for _, t := range resp.(*kmsg.ProduceResponse).Topics {
		for i := range t.Partitions {
			if answer := &t.Partitions[i]; answer.Partition == p.id {
				return answer, kerr.ErrorForCode(answer.ErrorCode)
			}
		}
	}
	return nil, errNoAnswer
}

var errNoAnswer = errors.New("the broker's answer does not name the partition")

// A noID is a broker's refusal to give a producer id, which it does not take back by itself.
type noID struct{ code *kerr.Error }

func (e *noID) Error() string { return e.code.Error() }
func (e *noID) Unwrap() error { return e.code }

// identify gives p a producer id, if it has none.
func (s *Sender) identify(p *partition) error {
	t := p.topic
	t.mu.Lock()
	has, spent := p.producerID >= 0, p.spentID
	t.mu.Unlock()
	if has {
		return nil
	}
	id, epoch, err := s.producerID(s.life, spent)
	if code, answered := errors.AsType[*kerr.Error](err); answered && !kerr.IsRetriable(code) && !isLogin(code) {
		return &noID{code}
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.producerID < 0 {
		p.producerID, p.epoch, p.sequence = id, epoch, 0
	}
	return nil
}

// judgeLocked judges what p has in flight, if something has failed and all tries are over,
// and sees to the next try. It is called with topic.mu held.
func (s *Sender) judgeLocked(p *partition) (out []settlement) {
	if p.gone && p.draining() {
		return p.topic.drained(p)
	}
	if !p.recovering || p.comingBack || !p.ready() {
		return nil
	}
	var began time.Time
	soon, answered := false, false // soon is whether a pause or a look at who leads is of no use
	if len(p.inFlight) > 0 {
		first := p.inFlight[0]
		began, answered = first.began, first.answer != nil
		if IsTooLarge(first.err) || isOfRecords(first.err) {
			p.tries = 0 // it has settled some, or makes smaller batches of them: that ends
		}
		soon = p.tries == 0 && (p.moved || isOutOfPlace(first.err) || IsTooLarge(first.err) || isOfRecords(first.err))
	}
	out = p.recover(s.isClosing())
	p.moved = false
	if s.isClosing() || len(p.inFlight) == 0 && p.passed == len(p.waiting) {
		p.recovering = false
		return out
	}
	if soon {
		p.recovering = false
		return out
	}
	p.comingBack = true
	go s.comeBack(p, began, answered)
	s.evade(p)
	return out
}

// evade has what needs not wait for p sent elsewhere. It is called with topic.mu held.
func (s *Sender) evade(p *partition) {
	for _, other := range p.topic.evade(p) {
		s.advanceLocked(other)
	}
}

// comeBack lets p try again when brokers were asked who leads it, and after a pause that
// grows with its tries. Brokers that do not answer are not waited for longer than that.
// The first try after one that has got no answer follows at once, if brokers answer.
func (s *Sender) comeBack(p *partition, failed time.Time, answered bool) {
	t := p.topic
	t.mu.Lock()
	leader, tries, said := p.leader, p.tries, p.said
	told := t.ask(failed)
	t.mu.Unlock()
	if said != nil && tries >= lasting {
		s.cfg.Waits(t.name, p.id, said)
	}

	pause := time.NewTimer(backoff(tries))
	defer pause.Stop()
	select {
	case <-told:
		t.mu.Lock()
		moved := p.leader != leader && p.leader >= 0
		t.mu.Unlock()
		if tries > 1 || answered && !moved {
			select {
			case <-pause.C:
			case <-s.life.Done():
			}
		}
	case <-pause.C:
	case <-s.life.Done():
	}

	t.mu.Lock()
	p.comingBack, p.recovering = false, p.failed()
	out := s.judgeLocked(p)
	s.advanceLocked(p)
	s.unlock(t, out)
}

// lasting is how many tries in a row fail within a second or so. A leader that moves is found
// sooner.
const lasting = 6

// backoff is the pause before a try, of which so many have failed in a row: short at first,
// for a leader that has just moved, and never so long that the first record after an outage
// waits for it.
func backoff(tries int) time.Duration {
	return min(50*time.Millisecond<<min(max(tries-1, 0), 5), 250*time.Millisecond)
}

// ask asks brokers about the topic, unless that has begun after since, and returns a channel
// that is closed when they have answered, or cannot. It is called with mu held.
func (t *topic) ask(since time.Time) <-chan struct{} {
	if t.asking != nil {
		return t.asking // began later than since, or its answer is as good
	}
	told := make(chan struct{})
	if t.asked.After(since) {
		close(told)
		return told
	}
	t.asking = told
	go func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.sender.life, t.sender.cfg.AskTimeout)
		defer cancel()
		now, err := t.sender.cfg.Describe(ctx, t.name)
		t.mu.Lock()
		var out []settlement
		if !t.sender.isClosing() {
			out = t.judgeState(now, err)
		}
		if _, answered := errors.AsType[*kerr.Error](err); answered || err == nil {
			t.asked = began
		}
		t.asking = nil
		close(told)
		t.sender.unlockRefused(t, out)
	}()
	return told
}

// load asks about the topic until its partitions are known, or nothing waits for them. It is
// called with mu held.
func (t *topic) load() {
	if t.loading || t.sender.isClosing() {
		return
	}
	t.loading = true
	go func() {
		for tries := 1; ; tries++ {
			t.mu.Lock()
			waits := len(t.pending) > t.passed
			if !waits || len(t.parts) > 0 || len(t.old) > 0 || t.sender.isClosing() {
				t.loading = false
				t.sender.unlock(t, nil)
				return
			}
			told := t.ask(time.Now())
			t.mu.Unlock()
			select {
			case <-told:
			case <-t.sender.life.Done():
			}
			t.mu.Lock()
			known := len(t.parts) > 0
			t.mu.Unlock()
			if !known {
				select {
				case <-time.After(backoff(tries)):
				case <-t.sender.life.Done():
				}
			}
		}
	}()
}
