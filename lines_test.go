package gracedb

import (
	"context"
	"errors"
	"testing"
)

// While the engine is about to give back what was refused for its size, nothing passes,
// although one of those refused is settled meanwhile.
func TestLineStaysShut(t *testing.T) {
	p := &Producer{answers: newAnswers(nil, nil)}
	l := p.lines.get("topic")
	d := func(wire int64) *delivery { return &delivery{p: p, line: l, wire: wire, ctx: context.Background()} }
	first, second := d(100), d(100)
	l.enters(first)
	l.enters(second)
	l.refused = true
	first.err = errors.New("given up")
	l.leave(first)
	if l.lets(d(10)) {
		t.Error("another passes")
	}
	l.leave(second)
	if !l.lets(d(10)) {
		t.Error("nothing passes any more")
	}
}
