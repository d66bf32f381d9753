package gracedb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/token"
)

// An authWatch is what a client knows of its authentication and connections: it
// is told by the mechanism and by kgo's hooks, and asked by everyone who waits.
//
// States: good; bad, since the first refusal or missing token; past, when bad has
// outlived the grace. One success makes it good again.
type authWatch struct {
	log   *slog.Logger
	grace time.Duration // negative or zero: bad is past at once
	onBad func()        // called, in a new goroutine, when good turns bad

	mu        sync.Mutex
	cause     error         // nil when good
	bad, past chan struct{} // closed when reached; made anew when good again
	good      chan struct{} // closed when good again; nil while good
	timer     *time.Timer
	next      time.Time // no try before

	badToken     string // the token last refused
	refusals     int    // how often in a row
	refusedAt    time.Time
	refusedFirst time.Time    // since all was well; or zero
	claims       token.Claims // of the token last accepted

	said  recently
	told  bool                  // the log says that authentication fails
	last  map[string]attempt    // by address: the last connection
	heard map[string]time.Time  // by address: the last answer
	until map[string]throttling // by address
	down  chan struct{}         // closed, and made anew, when an address fails

	throttled chan struct{} // closed, and made anew, when a broker asks for a pause
}

// An attempt is how a connection went.
type attempt struct {
	err error // nil: it was made
	at  time.Time
}

// staleAfter is how old a failure is that says nothing of now any more. An address
// that somebody waits for is tried at least every dialTimeout.
const staleAfter = 2 * dialTimeout

func newAuthWatch(log *slog.Logger, grace time.Duration) *authWatch {
	return &authWatch{
		log: log, grace: grace,
		bad: make(chan struct{}), past: make(chan struct{}), down: make(chan struct{}),
		last: make(map[string]attempt), heard: make(map[string]time.Time),
		until: make(map[string]throttling), throttled: make(chan struct{}),
	}
}

// turn returns when it is time to try: at once while all is well, else at most
// every refusedPause, one caller at a time, or when all is well again. If ctx ends
// first it returns the cause.
func (w *authWatch) turn(ctx context.Context) error {
	for {
		w.mu.Lock()
		if w.cause == nil {
			w.mu.Unlock()
			return nil
		}
		now := time.Now()
		wait := w.next.Sub(now)
		if wait <= 0 {
			w.next = now.Add(refusedPause)
			w.mu.Unlock()
			return nil
		}
		good, cause := w.good, w.cause
		w.mu.Unlock()

		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-good:
		case <-ctx.Done():
			timer.Stop()
			return cause
		}
		timer.Stop()
	}
}

// held reports why tok should not be shown to a broker now: it was refused twice,
// just now.
func (w *authWatch) held(tok string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != nil && tok == w.badToken && w.refusals >= 2 && time.Since(w.refusedAt) < refusedHold {
		return w.cause
	}
	return nil
}

// lastMoments is when a token is too old for another login. The engine renews a
// session a second before its end, so one that lasts for less than 2 seconds within a
// second of the login before, which brokers answer with ILLEGAL_SASL_STATE.
const lastMoments = 2 * time.Second

// ending reports why a token with these claims is not shown to a broker: it ends now,
// and is no newer than what was accepted before.
func (w *authWatch) ending(claims token.Claims) error {
	left := time.Until(claims.Expires)
	w.mu.Lock()
	known := !claims.Expires.After(w.claims.Expires)
	w.mu.Unlock()
	if claims.Expires.IsZero() || left >= lastMoments || !known {
		return nil
	}
	return fail([]error{ErrToken}, "no usable token: the one at hand ends in %s, and there is no newer one (get one with: %s)",
		left.Truncate(100*time.Millisecond), getToken)
}

func (w *authWatch) refusedToken() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.badToken
}

// refused records that a broker refused tok, for which the source was asked at the
// given time. It reports whether the source knew by then that something was wrong.
func (w *authWatch) refused(tok string, asked time.Time) (again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if tok != w.badToken {
		w.badToken, w.refusals = tok, 0
	}
	w.refusals++
	w.refusedAt = time.Now()
	if w.refusedFirst.IsZero() {
		w.refusedFirst = w.refusedAt
	}
	return !asked.Before(w.refusedFirst)
}

// fail records that authentication does not work now, and why.
func (w *authWatch) fail(err error) {
	w.mu.Lock()
	first := w.cause == nil
	// Brokers refuse in turn, and what a text counts is no news.
	news := (first || timeless(w.cause.Error()) != timeless(err.Error())) && !w.said.already(err.Error())
	w.told = w.told || news
	w.cause = err
	w.next = time.Now().Add(refusedPause)
	if first {
		w.good = make(chan struct{})
		close(w.bad)
		if w.grace <= 0 {
			close(w.past)
		} else {
			past, good := w.past, w.good
			w.timer = time.AfterFunc(w.grace, func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.good == good { // the same outage
					close(past)
				}
			})
		}
	}
	onBad := w.onBad
	w.mu.Unlock()
	if news {
		w.log.Warn("gracedb: kafka: authentication fails", "err", reason(err))
	}
	if first && onBad != nil {
		go onBad()
	}
}

// accept records that a broker took a token with these claims.
func (w *authWatch) accept(claims token.Claims) {
	w.mu.Lock()
	healed := w.cause != nil
	told := w.told
	w.told = false
	other := w.claims.Subject != "" && w.claims.Subject != claims.Subject
	was := w.claims.Subject
	w.claims = claims
	w.badToken, w.refusals, w.refusedFirst = "", 0, time.Time{}
	if healed {
		w.cause = nil
		close(w.good)
		w.good = nil
		if w.timer != nil {
			w.timer.Stop()
		}
		w.bad = make(chan struct{})
		select {
		case <-w.past:
			w.past = make(chan struct{})
		default: // who waits on it now is to hear of the next time, too
		}
	}
	w.mu.Unlock()
	if told {
		w.log.Info("gracedb: kafka: authentication works again")
	}
	if other {
		w.log.Warn("gracedb: kafka: the token has another sub", "was", cleanText(was), "is", cleanText(claims.Subject))
	}
}

// status returns what ends waits: why authentication fails (nil if it does not),
// and channels closed at the first failure and past the grace.
func (w *authWatch) status() (bad, past <-chan struct{}, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bad, w.past, w.cause
}

// pastGrace returns the cause if authentication has failed for longer than the
// grace.
func (w *authWatch) pastGrace() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.past:
		return w.cause
	default:
		return nil
	}
}

// healed returns a channel that is closed when authentication works.
func (w *authWatch) healed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.good == nil {
		return closed
	}
	return w.good
}

// closed is a channel that is.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// identity returns the claims of the token last accepted.
func (w *authWatch) identity() token.Claims {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.claims
}

// OnBrokerConnect is kgo's hook: it alone sees failures to connect, and a refusal
// by code 58 without a challenge.
func (w *authWatch) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	if err == nil {
		w.mu.Lock()
		w.note(addr, nil)
		w.mu.Unlock()
		return
	}
	if errors.Is(err, ErrAuthentication) || errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, context.Canceled) || errors.Is(err, errNotDialed) {
		return // already recorded, or of no interest
	}
	if isRefusal(err) {
		w.fail(fail([]error{ErrAuthentication, err}, "kafka: broker %s refused to authenticate: %s (the reason is in the broker's log)", addr, reason(err)))
		return
	}
	w.mu.Lock()
	known := w.last[addr].err
	w.note(addr, err)
	close(w.down)
	w.down = make(chan struct{})
	w.mu.Unlock()
	if !w.said.already(addr+": "+err.Error()) || known == nil {
		w.log.Warn("gracedb: kafka: cannot connect", "broker", cleanText(addr), "err", reason(err))
	}
}

// note keeps how a connection went. It is called with the lock held.
func (w *authWatch) note(addr string, err error) {
	now := time.Now()
	if _, known := w.last[addr]; !known && len(w.last) >= maxAddresses {
		maps.DeleteFunc(w.last, func(_ string, a attempt) bool { return now.Sub(a.at) > staleAfter })
		if len(w.last) >= maxAddresses {
			clear(w.last)
		}
	}
	w.last[addr] = attempt{err, now}
}

// maxAddresses is how many addresses of brokers are remembered: they say themselves what
// these are.
const maxAddresses = 1000

// OnBrokerRead is kgo's hook. Where the engine tells nobody of an answer that no
// broker gives, since it takes the connection for broken and makes another, the log
// does.
func (w *authWatch) OnBrokerRead(meta kgo.BrokerMetadata, key int16, bytesRead int, _, _ time.Duration, err error) {
	const least = 8 // the size itself, and the number of the request
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	switch {
	case err == nil && bytesRead < least:
		err = fmt.Errorf("invalid response size %d", bytesRead-4)
	case err == nil:
		w.mu.Lock()
		if len(w.heard) >= maxAddresses {
			clear(w.heard)
		}
		w.heard[addr] = time.Now()
		w.mu.Unlock()
		return
	case isConnectionError(err), kgo.IsRetryableBrokerErr(err), errors.Is(err, kgo.ErrClientClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return
	}
	// The size may be another each time.
	if request := kmsg.NameForKey(key); !w.said.already(addr + ": answer to " + request) {
		w.log.Warn("gracedb: kafka: an answer cannot be read", "broker", cleanText(addr), "request", request, "err", reason(err))
	}
}

// answered returns who has answered anything since then.
func (w *authWatch) answered(since time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var who []string
	for _, addr := range slices.Sorted(maps.Keys(w.heard)) {
		if !w.heard[addr].Before(since) {
			who = append(who, addr)
		}
	}
	return who
}

// isRefusal reports whether err is a broker's code for a failed authentication.
func isRefusal(err error) bool {
	return errors.Is(err, kerr.SaslAuthenticationFailed) ||
		errors.Is(err, kerr.UnsupportedSaslMechanism) || errors.Is(err, kerr.IllegalSaslState)
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// trouble returns what is known to be wrong with the connections to brokers, as
// kinds and text; nothing if nothing is.
func (w *authWatch) trouble() (is []error, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause != nil {
		return []error{ErrAuthentication, w.cause}, reason(w.cause)
	}
	var texts []string
	for _, addr := range slices.Sorted(maps.Keys(w.last)) {
		err := w.last[addr].err
		if err == nil || time.Since(w.last[addr].at) > staleAfter {
			continue
		}
		is = append(is, err)
		text := reason(err)
		if dial, ok := errors.AsType[*dialError](err); ok {
			text = reason(dial) // without what the engine puts around it
		}
		if !strings.Contains(text, addr) {
			text = addr + ": " + text
		}
		texts = append(texts, text)
	}
	throttles := w.throttles()
	if texts == nil {
		if throttles == "" {
			return nil, ""
		}
		return []error{ErrConnection}, throttles
	}
	if throttles != "" {
		throttles = "; " + throttles
	}
	return append(is, ErrConnection), "cannot connect to " + cleanText(strings.Join(texts, "; ")) + throttles
}

// allDown reports whether each of addrs has been tried since then, and failed for a
// reason that is certain, which silence is not, while no other address that brokers
// may have named works; if not, it returns a channel that is closed when there is
// reason to ask again.
func (w *authWatch) allDown(addrs []string, since time.Time) (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.last {
		if a.err == nil {
			return false, w.down
		}
	}
	for _, addr := range addrs {
		if a := w.last[addr]; a.err == nil || isTimeout(a.err) || a.at.Before(since) {
			return false, w.down
		}
	}
	return true, w.down
}
