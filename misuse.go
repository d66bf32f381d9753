package gracedb

import (
	"reflect"
	"runtime"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file makes errors of mistakes that would end the program, or wait for ever.

// made returns an error for a Producer that no constructor made, or nil.
func (p *Producer) made() error {
	if p == nil || p.cluster == nil {
		return errs.New([]error{errs.Config, errs.Delivery}, "kafka: this Producer was not made by NewProducer")
	}
	return nil
}

// made returns an error for a Consumer that no constructor made, or nil.
func (c *Consumer) made() error {
	if c == nil || c.core == nil {
		return errs.New([]error{errs.Config, errs.Consumer}, "kafka: this Consumer was not made by NewConsumer")
	}
	return nil
}

// made returns an error for a Client that no constructor made, or nil.
func (c *Client) made() error {
	if c == nil || c.api == nil {
		return errs.New([]error{errs.Config}, "this Client was not made by NewClient")
	}
	return nil
}

// tellDone calls the done of d's message. It is not inlined, so that inDone finds it.
//
//go:noinline
func tellDone(d *delivery) { d.done(d.msg, d.err) }

var tellDoneEntry = reflect.ValueOf(tellDone).Pointer()

// inDone returns an error if the calling goroutine runs the done of a message, of
// whatever Producer: a message is settled only when its done has returned, and those of
// the same batch wait for it. Go does not say which goroutine this is, but
// which functions it is in; and asking here costs nothing where messages are sent.
func inDone(what string) error {
	pcs := make([]uintptr, 64)
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			if f, more = frames.Next(); f.Entry == tellDoneEntry {
				return errs.New([]error{errs.Producer}, "kafka: %s was called by the done of a message, and would wait for that done to return: start a goroutine for it", what)
			}
		}
		if n < len(pcs) {
			return nil
		}
	}
}
