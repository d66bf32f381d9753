package gracedb

import (
	"context"
	"sync"
	"time"
)

// A pacer makes the callers of a Client take turns while the server throttles.
// Without it, a hundred callers who were told to come back in a second would all
// come back in a second, and all but a few would be refused until they give up.
// With it one after the other asks, as fast as the answers come, and all wait
// when one of them is refused. It does nothing until a server throttles and
// nothing once nobody waits any more.
type pacer struct {
	turn chan struct{} // holds one while somebody has the turn; first come, first served

	mu     sync.Mutex
	inLine int       // who has the turn or waits for it; guarded by mu
	until  time.Time // nothing is sent before; guarded by mu
}

// A place is a caller's place in the line.
type place struct {
	hasTurn bool
	passed  *time.Timer // passes the turn on; stopped before it fires, the turn is still ours
}

// patience is how long the next in line waits for the answer to the one before: a
// refusal mostly comes sooner, while a creation may take seconds.
const patience = 20 * time.Millisecond

// throttle keeps everybody waiting for d.
func (p *pacer) throttle(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := time.Now().Add(d); at.After(p.until) {
		p.until = at
	}
}

// enter waits until a request may be sent. Its error is that of ctx.
func (p *pacer) enter(ctx context.Context, pl *place) error {
	if pl.passed != nil {
		pl.hasTurn = pl.passed.Stop()
		pl.passed = nil
	}
	if !pl.hasTurn {
		p.mu.Lock()
		if p.inLine == 0 && !time.Now().Before(p.until) {
			p.mu.Unlock()
			return ctx.Err()
		}
		p.inLine++
		p.mu.Unlock()
		select {
		case p.turn <- struct{}{}:
			pl.hasTurn = true
		case <-ctx.Done():
			p.mu.Lock()
			p.inLine--
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
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
	pl.passed = time.AfterFunc(patience, p.pass)
	return ctx.Err()
}

// leave gives up the place, and the turn if the caller has it.
func (p *pacer) leave(pl *place) {
	if pl.passed != nil {
		pl.hasTurn = pl.passed.Stop()
		pl.passed = nil
	}
	if pl.hasTurn {
		pl.hasTurn = false
		p.pass()
	}
}

func (p *pacer) pass() {
	p.mu.Lock()
	p.inLine--
	p.mu.Unlock()
	<-p.turn
}
