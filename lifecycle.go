package gracedb

import (
	"context"
	"sync/atomic"
)

// A lifecycle is how far the end of a Producer or a Consumer has come. Its steps are
//
//		open → begun → closing → done
//
//	 1. begin: the first Close has come. Calls go on; a Producer flushes, and a Consumer commits.
//	 2. stop: calls that wait return ErrClosed, and so do new ones. Goroutines end.
//	 3. finish: all is released. Whoever called Close another time returns.
//
// Between any of them abort makes kgo drop what it waits for.
type lifecycle struct {
	ctx     context.Context // of all that kgo does
	abort   context.CancelFunc
	begun   atomic.Bool
	closing chan struct{} // closed by stop
	done    chan struct{} // closed by finish
}

func newLifecycle() *lifecycle {
	ctx, abort := context.WithCancel(context.Background())
	return &lifecycle{ctx: ctx, abort: abort, closing: make(chan struct{}), done: make(chan struct{})}
}

// begin reports whether this is the first Close. The others are to wait for done.
func (l *lifecycle) begin() bool { return l.begun.CompareAndSwap(false, true) }

func (l *lifecycle) stop()   { close(l.closing) }
func (l *lifecycle) finish() { close(l.done) }

func (l *lifecycle) isClosing() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}
