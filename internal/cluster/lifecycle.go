package cluster

import (
	"context"
	"sync/atomic"
)

// A Lifecycle is how far the end of a Producer or a Consumer has come. Its steps are
//
//		open → begun → closing → done
//
//	 1. begin: the first Close has come. Calls go on; a Producer flushes, and a Consumer commits.
//	 2. stop: calls that wait return ErrClosed, and so do new ones. Goroutines end.
//	 3. finish: all is released. Whoever called Close another time returns.
//
// Between any of them abort makes kgo drop what it waits for.
type Lifecycle struct {
	ctx     context.Context // of all that kgo does
	Abort   context.CancelFunc
	begun   atomic.Bool
	Closing chan struct{} // closed by stop
	Done    chan struct{} // closed by finish
}

// NewLifecycle returns one that is open.
func NewLifecycle() *Lifecycle {
	ctx, abort := context.WithCancel(context.Background())
	return &Lifecycle{ctx: ctx, Abort: abort, Closing: make(chan struct{}), Done: make(chan struct{})}
}

// Begin reports whether this is the first Close. The others are to wait for done.
func (l *Lifecycle) Begin() bool { return l.begun.CompareAndSwap(false, true) }

func (l *Lifecycle) stop() { close(l.Closing) }

// Finish lets all who wait in Close return.
func (l *Lifecycle) Finish() { close(l.Done) }

// IsClosing reports whether stop was called.
func (l *Lifecycle) IsClosing() bool {
	select {
	case <-l.Closing:
		return true
	default:
		return false
	}
}
