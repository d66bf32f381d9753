package gracedb

import (
	"cmp"
	"container/list"
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The lines of a Producer are one for each topic.
type lines struct {
	mu sync.RWMutex
	of map[string]*line
}

// A line is what of one topic waits outside of the engine, and why: since a broker
// has refused to authenticate, until there is a use in asking again; since it has
// refused a batch for its size, until the engine has given back all that it takes for
// refused with it, and then until the message before is settled; and because the
// engine might make a batch that is too large of it and what it has.
type line struct {
	mu      sync.Mutex
	back    list.List    // what the engine has given back; it goes first
	waiting list.List    // what it has not had
	limit   int64        // the largest batch that brokers take, as far as known
	inside  int64        // bytes in the engine
	handing atomic.Int32 // messages that somebody is giving to the engine
	paused  bool
	held    int       // messages that were given back, and may be on their way
	refused bool      // a batch is too large; the engine is about to give messages back
	alone   bool      // one message at a time, until none waits that was given back
	sent    *delivery // that message, while it is in the engine
	moving  bool      // somebody gives the engine what waits
	used    bool      // a message was written, or may have been
	gone    bool      // it is none of the lines any more
}

// never is when a message that waits in line was given to the engine.
const never = time.Duration(math.MaxInt64)

func (l *lines) get(topic string) *line {
	l.mu.RLock()
	at := l.of[topic]
	l.mu.RUnlock()
	if at != nil {
		return at
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[string]*line)
	}
	if l.of[topic] == nil {
		l.of[topic] = &line{limit: unknownLimit}
	}
	return l.of[topic]
}

// send gives d to the engine, if need be when its turn has come.
func (p *Producer) send(d *delivery) {
	l := p.lines.get(d.msg.Topic)
	l.mu.Lock()
	for l.gone {
		l.mu.Unlock()
		l = p.lines.get(d.msg.Topic)
		l.mu.Lock()
	}
	d.line = l
	if l.next() != nil || l.moving || !l.lets(d) {
		l.keep(d, l.waiting.PushBack(d))
		l.mu.Unlock()
		return
	}
	l.enters(d)
	l.mu.Unlock()
	p.hand(d)
	l.handing.Add(-1)
}

// pause takes back d, which failed because a broker refused to authenticate, and
// keeps the line waiting. A refusal that is no answer to a login comes at once, and
// whoever asks again at once would do nothing else.
func (l *line) pause(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeBack(d)
	if !l.paused {
		l.paused = true
		time.AfterFunc(refusedPause, l.resume)
	}
}

func (l *line) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = false
	l.advance()
}

// refuse lets nothing of a topic pass what the engine is about to give back. What is
// being given to the engine gets there first, and comes back with the rest.
func (p *Producer) refuse(topicKey string) {
	var refused []*line
	p.lines.mu.RLock()
	for topic, l := range p.lines.of {
		if p.mayBe(topic, topicKey) {
			refused = append(refused, l)
		}
	}
	p.lines.mu.RUnlock()
	for _, l := range refused {
		l.mu.Lock()
		l.refused = l.inside > 0
		l.mu.Unlock()
	}
	for range handingPauses {
		if !slices.ContainsFunc(refused, func(l *line) bool { return l.handing.Load() > 0 }) {
			break
		}
		time.Sleep(handingPause)
	}
}

// How often and for how long refuse waits for what takes microseconds, mostly. It keeps
// a broker's other answers waiting.
const (
	handingPauses = 100
	handingPause  = 100 * time.Microsecond
)

// hold lets nothing go until release is called as often.
func (l *line) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held++
}

func (l *line) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held--
	l.advance()
}

// single takes back d, and sends what was given back one at a time.
func (l *line) single(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeBack(d)
	l.alone, l.refused = true, false
	l.advance()
}

// retake takes back d, which goes again when its turn has come.
func (l *line) retake(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeBack(d)
	l.advance()
}

// isSingle reports whether d was sent alone.
func (l *line) isSingle(d *delivery) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent == d
}

// learn notes the largest batch that brokers take.
func (l *line) learn(limit int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit == unknownLimit { // a refusal may have told more
		limit = min(limit, l.limit)
	}
	l.limit = limit
	l.advance()
}

// shrink notes that d, alone, was refused for its size, and stays in the engine.
func (l *line) shrink(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = false
	if l.inside == d.wire {
		l.limit = min(l.limit, d.wire)
	}
}

// leave lets go of d, which is settled.
func (l *line) leave(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaves(d)
	l.advance()
}

// drop settles d as withdrawn, if it waits. The engine cannot withdraw what it does
// not have.
func (l *line) drop(d *delivery) {
	l.mu.Lock()
	waited := l.remove(d)
	l.mu.Unlock()
	if waited {
		d.promise(&d.record, cmp.Or(d.Err(), context.Canceled))
	}
}

// dropLines settles all that waits in line.
func (p *Producer) dropLines() {
	p.lines.mu.RLock()
	var waiting []*delivery
	for _, l := range p.lines.of {
		l.mu.Lock()
		for _, some := range []*list.List{&l.back, &l.waiting} {
			for e := some.Front(); e != nil; e = e.Next() {
				waiting = append(waiting, e.Value.(*delivery))
			}
		}
		l.mu.Unlock()
	}
	p.lines.mu.RUnlock()
	for _, d := range waiting {
		d.line.drop(d)
	}
}

// The rest is called with the lock held.

// next returns who waits longest.
func (l *line) next() *delivery {
	if e := cmp.Or(l.back.Front(), l.waiting.Front()); e != nil {
		return e.Value.(*delivery)
	}
	return nil
}

// lets reports whether d, if it is the next, may go to the engine.
func (l *line) lets(d *delivery) bool {
	switch {
	case l.paused || l.held > 0:
		return false
	case l.alone:
		return l.sent == nil
	default:
		return l.inside == 0 || !l.refused && l.inside+d.wire <= l.limit-batchHeader
	}
}

const (
	// batchHeader is what brokers count beside a batch's messages.
	batchHeader = 61
	// recordOverhead and headerOverhead are the most that the wire adds to what a
	// message, and each of its headers, holds. A header has at least leastHeader.
	recordOverhead = 36
	headerOverhead = 10
	leastHeader    = 2
)

// advance sends whose turn it is, one after the other and without the lock.
func (l *line) advance() {
	if l.moving {
		return // who does it sees to it
	}
	l.moving = true
	for {
		if l.back.Len() == 0 && l.sent == nil {
			l.alone = false
		}
		d := l.next()
		if d == nil || !l.lets(d) {
			break
		}
		l.remove(d)
		l.enters(d)
		l.mu.Unlock()
		d.p.hand(d)
		l.handing.Add(-1)
		l.mu.Lock()
	}
	l.moving = false
}

func (l *line) enters(d *delivery) {
	l.inside += d.wire
	l.handing.Add(1)
	d.entered = true
	if l.alone {
		l.sent = d
	}
}

func (l *line) leaves(d *delivery) {
	if d.entered {
		l.inside -= d.wire
		d.entered = false
		l.refused = l.refused && l.inside > 0
	}
	if l.sent == d {
		l.sent = nil
	}
}

// takeBack puts d, which the engine has given back, before those that were accepted
// after it.
func (l *line) takeBack(d *delivery) {
	l.leaves(d)
	after := l.back.Back()
	for after != nil && after.Value.(*delivery).seq > d.seq {
		after = after.Prev()
	}
	if after == nil {
		l.keep(d, l.back.PushFront(d))
	} else {
		l.keep(d, l.back.InsertAfter(d, after))
	}
}

// keep notes that d waits.
func (l *line) keep(d *delivery, place *list.Element) {
	d.place = place
	d.handed.set(never)
	switch {
	case d.givenUp == nil:
		d.unguard = context.AfterFunc(d.ctx, func() { l.drop(d) })
	case d.abandoned(): // else who gives up drops it
		go l.drop(d)
	}
}

// remove takes d out, and reports whether it waited.
func (l *line) remove(d *delivery) bool {
	if d.place == nil {
		return false
	}
	l.back.Remove(d.place)
	l.waiting.Remove(d.place) // one of them has it
	d.place = nil
	if d.unguard != nil {
		d.unguard()
		d.unguard = nil
	}
	return true
}
