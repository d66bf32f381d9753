package token

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// Reload returns a source that reuses the token of src until buffer before the time in its
// exp claim, as ReloadToken of package gracedb says.
func Reload(src Source, buffer time.Duration) Source {
	return (&reloader{src: src, buffer: max(buffer, 0)}).token
}

const (
	reloadEvery  = 5 * time.Second        // between questions while the token is still valid
	reloadWait   = 250 * time.Millisecond // for an answer while the token is still valid
	reloadNoExp  = time.Minute            // until a token that does not say is asked for again
	reloadFlight = 30 * time.Second       // ends a question that nobody waits for
)

// A reloader is what Reload returns a method of. The token in use is read
// without a lock; mu guards the rest.
type reloader struct {
	src    Source
	buffer time.Duration
	held   atomic.Pointer[heldToken]

	mu     sync.Mutex
	flight *flight // the question under way, or nil
	warned string  // the token whose renewal is known to fail
}

// A heldToken never changes. Its times are wall-clock times, as exp is one: a
// clock that was set, or a machine that slept, needs no care.
type heldToken struct {
	raw    string
	claims Claims    // zero if raw is of a kind that only its source knows
	taken  time.Time // when src last confirmed it, or failed to
	fresh  time.Time // until when src need not be asked
}

func (h *heldToken) valid(now time.Time) bool {
	return h.claims.Expires.IsZero() || now.Before(h.claims.Expires)
}

// A flight is one question to src.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int // callers, and one more for a question that goes on without; guarded by reloader.mu

	// Set before done is closed.
	held *heldToken
	err  error
	cut  bool // its ctx had ended: the error may be no answer of src's
}

func (r *reloader) token(ctx context.Context) (string, error) {
	refused := hintsFrom(ctx).refused
	h, now := r.held.Load(), time.Now()
	switch {
	case h == nil || h.raw == refused || !h.valid(now):
		return r.demand(ctx, refused)
	case now.Before(h.fresh) && !now.Before(h.taken): // before taken, the clock was set back: ask
		return h.raw, nil
	}
	return r.renew(ctx, h), nil
}

// renew asks for a successor of h, which is still valid and stays in use until
// there is one.
func (r *reloader) renew(ctx context.Context, h *heldToken) string {
	r.mu.Lock()
	if r.flight != nil || r.held.Load() != h {
		r.mu.Unlock()
		return h.raw
	}
	background, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadFlight)
	f := r.ask(background, cancel)
	r.mu.Unlock()

	timer := time.NewTimer(reloadWait)
	defer timer.Stop()
	select {
	case <-f.done:
		if f.err == nil {
			return f.held.raw
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return h.raw
}

// demand returns what src says now, since there is nothing good to return.
func (r *reloader) demand(ctx context.Context, refused string) (string, error) {
	again := true
	for ctx.Err() == nil {
		r.mu.Lock()
		f := r.flight
		joined := f != nil
		if joined {
			f.waiting++
		} else {
			if h := r.held.Load(); h != nil && h.raw != refused && time.Now().Before(h.fresh) {
				r.mu.Unlock()
				return h.raw, nil // the answer to others, who were faster
			}
			background, cancel := context.WithCancel(context.WithoutCancel(ctx))
			f = r.ask(background, cancel)
		}
		r.mu.Unlock()

		select {
		case <-f.done:
		case <-ctx.Done():
			r.leave(f)
			continue
		}
		switch {
		case joined && f.err != nil && f.cut:
			continue // those who asked had given up
		case joined && f.err == nil && f.held.raw == refused && again:
			again = false // asked before the token was refused: src may have another by now
			continue
		case f.err != nil:
			return "", f.err
		}
		return f.held.raw, nil
	}
	return "", errs.New([]error{errs.Token, ctx.Err()}, "no usable token: no answer from the token source: %v", ctx.Err())
}

// leave takes back one caller's wish for an answer.
func (r *reloader) leave(f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
	}
}

// ask starts a flight with one waiting. r.mu is held.
func (r *reloader) ask(ctx context.Context, cancel context.CancelFunc) *flight {
	f := &flight{done: make(chan struct{}), cancel: cancel, waiting: 1}
	r.flight = f
	go func() {
		raw, err := "", errEndedGoroutine
		// Deferred, so that even a source that ends its goroutine leaves nobody waiting.
		defer func() { r.land(ctx, f, raw, err) }()
		raw, err = r.src.ask(ctx, r.heldRaw())
	}()
	return f
}

func (r *reloader) heldRaw() string {
	if h := r.held.Load(); h != nil {
		return h.raw
	}
	return ""
}

// land ends a flight: it decides which token is held from now on.
func (r *reloader) land(ctx context.Context, f *flight, raw string, err error) {
	defer close(f.done)
	hints, now := hintsFrom(ctx), time.Now()
	r.mu.Lock()
	r.flight, f.cut = nil, ctx.Err() != nil
	old := r.held.Load()
	usable := old != nil && old.raw != hints.refused && old.valid(now)
	next, err := r.check(raw, err, now, usable)
	warn := false
	switch {
	case err == nil:
		if usable && (next.raw == hints.refused || older(next, old)) {
			next = old
		}
		f.held = r.hold(next, now, false)
	case usable:
		r.hold(old, now, true)
		if warn = hints.log != nil && r.warned != old.raw; warn {
			r.warned = old.raw
		}
	}
	f.err = err
	r.mu.Unlock()
	f.cancel()

	// Without the lock: a handler may send its records with this very token.
	switch {
	case warn:
		hints.log.WarnContext(ctx, "gracedb: token not renewed yet; the one in use stays until it expires",
			"expires", old.claims.Expires, "error", errs.Reason(err))
	case err != nil || hints.log == nil || old == nil || old.raw == next.raw:
	case !sameOwner(next, old):
		hints.log.WarnContext(ctx, "gracedb: token renewed, for another user or issuer",
			"subject", errs.Clean(next.claims.Subject), "issuer", errs.Clean(next.claims.Issuer), "expires", next.claims.Expires)
	default:
		hints.log.InfoContext(ctx, "gracedb: token renewed", "expires", next.claims.Expires)
	}
}

// check reads an answer of src, or makes its error an ErrToken. If another token
// is usable, one that cannot be read is an error too: perhaps it is half written.
func (r *reloader) check(raw string, err error, now time.Time, usable bool) (*heldToken, error) {
	switch {
	case err != nil:
		return nil, sourceError(err)
	case raw == "":
		return nil, errs.New([]error{errs.Token}, "no usable token: the token source returned an empty one")
	}
	claims, err := Parse(raw)
	if err != nil && usable {
		return nil, errs.New([]error{errs.Token, err}, "no usable token: the token source returned what is none: %v", err)
	}
	h := &heldToken{raw: raw, claims: claims}
	if !h.valid(now) {
		return nil, errs.New([]error{errs.Token}, "no usable token (get one with: %s): that of the token source expired %s ago (%s)",
			GetCommand, Span(now.Sub(claims.Expires)), claims.Expires.UTC().Format(time.RFC3339))
	}
	return h, nil
}

// hold puts h into use, and says until when src need not be asked.
func (r *reloader) hold(h *heldToken, now time.Time, failed bool) *heldToken {
	exp := h.claims.Expires
	next := &heldToken{raw: h.raw, claims: h.claims, taken: now.Round(0)}
	switch {
	case exp.IsZero() && !failed:
		next.fresh = next.taken.Add(reloadNoExp)
	case !exp.IsZero() && now.Before(exp.Add(-r.buffer)) && !failed:
		next.fresh = exp.Add(-r.buffer)
	default:
		next.fresh = next.taken.Add(reloadEvery)
		if !exp.IsZero() && next.fresh.After(exp) {
			next.fresh = exp
		}
	}
	r.held.Store(next)
	return next
}

// older reports whether a is a stale copy: the same owner's, ending before b.
func older(a, b *heldToken) bool {
	return sameOwner(a, b) && !a.claims.Expires.IsZero() && a.claims.Expires.Before(b.claims.Expires)
}

func sameOwner(a, b *heldToken) bool {
	return a.claims.Subject == b.claims.Subject && a.claims.Issuer == b.claims.Issuer
}
