package gracedb

import (
	"errors"
	"maps"
	"slices"
	"sync"
)

// This file is about topics that no message was written to, since they do not exist or are
// not for this client. The engine would keep each until Close, and ask brokers for all of
// them whenever it asks for any: so they are forgotten when nothing waits for them.

// An absentees is which topics are to be forgotten.
type absentees struct {
	mu      sync.Mutex
	topics  map[string]bool
	running bool
}

// missed notes that d, which is settled, was not written. Several topics are forgotten at a
// time: for each call the engine copies what it has of all.
func (p *Producer) missed(d *delivery) {
	if p.knows(d.msg.Topic) || p.life.Err() != nil || !d.line.isAbsent() {
		return
	}
	a := &p.absent
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.topics == nil {
		a.topics = make(map[string]bool)
	}
	a.topics[d.msg.Topic] = true
	if !a.running {
		a.running = true
		go p.forgetAbsent()
	}
}

func (p *Producer) forgetAbsent() {
	for {
		p.absent.mu.Lock()
		topics := slices.Collect(maps.Keys(p.absent.topics))
		p.absent.topics = nil
		p.absent.running = len(topics) > 0
		p.absent.mu.Unlock()
		if len(topics) == 0 {
			return
		}
		topics = slices.DeleteFunc(topics, func(topic string) bool { return !p.lines.get(topic).holdAbsent() })
		p.client.PurgeTopicsFromProducing(topics...)
		for _, topic := range topics {
			p.lines.end(topic)
		}
	}
}

// isAbsent reports whether nothing was written by way of l, and nothing waits or is on its
// way: whatever the engine has of the topic is not needed.
func (l *line) isAbsent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.absent()
}

// holdAbsent lets nothing go to the engine until end is called, if l is absent.
func (l *line) holdAbsent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.absent() || l.gone {
		return false
	}
	l.held++
	return true
}

// absent is called with the lock held.
func (l *line) absent() bool {
	return !l.used && l.inside == 0 && l.handing.Load() == 0 && l.next() == nil && !l.moving && !l.paused && l.held == 0
}

// end lets a line go on that holdAbsent has stopped, or removes it if nobody uses it.
func (l *lines) end(topic string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.of[topic]
	at.mu.Lock()
	defer at.mu.Unlock()
	at.held--
	if at.absent() {
		at.gone = true
		delete(l.of, topic)
		return
	}
	at.advance()
}

// settles notes what became of a message of l. One that may be written shows that there is
// such a topic, of which the engine has to keep count.
func (l *line) settles(err error) {
	if err == nil || errors.Is(err, ErrOutcomeUnknown) {
		l.mu.Lock()
		l.used = true
		l.mu.Unlock()
	}
}
