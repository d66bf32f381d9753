package gracedbapi

import (
	"context"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/clock"
)

// A pacer makes the callers of a Client take turns while the server throttles.
// Without it, a hundred callers who were told to come back in a second would all
// come back in a second, and all but a few would be refused until they give up.
// With it one after the other sends its request, as fast as the answers come, and all
// wait when one of them is throttled. It does nothing until a server throttles, and
// nothing once nobody waits any more.
type pacer struct {
	// current holds one element while a caller has the turn. Go's channels hand it to
	// the callers in the order in which they came.
	current chan struct{}

	mu     sync.Mutex
	queued int       // callers that have the turn or wait for it; guarded by mu
	until  time.Time // no request is sent before it; guarded by mu
}

// A turn is what the pacer knows of one caller. The zero turn is that of a caller who
// does not wait.
type turn struct {
	held bool
	// passes hands the turn to the next caller, when it fires. A caller that stops it
	// before then has the turn still.
	passes *time.Timer
}

// handOver is how long a caller has the turn after its request was sent, unless the answer
// comes before: a refusal mostly does, while a creation may take seconds.
const handOver = 20 * time.Millisecond

// throttle lets nobody send a request for d.
func (p *pacer) throttle(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := time.Now().Add(d); at.After(p.until) {
		p.until = at
	}
}

// enter waits until the caller may send a request. Its error is that of ctx.
func (p *pacer) enter(ctx context.Context, t *turn) error {
	t.keep()
	if !t.held {
		p.mu.Lock()
		if p.queued == 0 && !time.Now().Before(p.until) {
			p.mu.Unlock()
			return ctx.Err()
		}
		p.queued++
		p.mu.Unlock()
		select {
		case p.current <- struct{}{}:
			t.held = true
		case <-ctx.Done():
			p.mu.Lock()
			p.queued--
			p.mu.Unlock()
			return ctx.Err()
		}
	}
	for {
		p.mu.Lock()
		d := time.Until(p.until)
		p.mu.Unlock()
		if d <= 0 {
			break
		}
		if err := clock.Sleep(ctx, d); err != nil {
			return err
		}
	}
	t.passes = time.AfterFunc(handOver, p.pass)
	return ctx.Err()
}

// leave hands the turn on, if the caller has it.
func (p *pacer) leave(t *turn) {
	t.keep()
	if t.held {
		t.held = false
		p.pass()
	}
}

// keep keeps the turn for the caller, if it was not handed on yet.
func (t *turn) keep() {
	if t.passes != nil {
		t.held = t.passes.Stop()
		t.passes = nil
	}
}

// pass hands the turn to the next caller.
func (p *pacer) pass() {
	p.mu.Lock()
	p.queued--
	p.mu.Unlock()
	<-p.current
}
