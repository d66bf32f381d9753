// Package sasl is the SASL mechanism OAUTHBEARER (RFC 7628, KIP-255, KIP-368) for kgo, and what
// one client knows of its authentication.
//
//   - Mechanism asks the source for a token at each login, and reads the broker's answer. kgo
//     calls it on the goroutine that opens a connection.
//   - State keeps what became of that: good, failing, or past the grace. Calls that wait for
//     brokers do so by State.Wait.
//
// Goroutines: one for each question to the source, which ends when the source answers; the
// State's OnFail; the timer of the grace, which the next accepted token stops.
package sasl

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A State is what one client knows of its authentication. The mechanism reports each
// token that a broker accepts or refuses, and each search for a token that found none. Whoever
// waits for brokers asks the state, or waits by Wait.
//
//	        fail                grace passes
//	good ─────────▶ failing ─────────────────▶ past grace
//	  ▲                │                            │
//	  └── accept ──────┴────────── accept ──────────┘
//
// It starts no goroutine but those of OnFail and of the timer of the grace.
type State struct {
	Log   *slog.Logger
	Grace time.Duration // zero or negative: what fails is past the grace at once
	// OnFail runs in a new goroutine when good turns failing. It is set before the first
	// connection, or nil.
	OnFail func()
	said   logonce.Recently // of failures

	mu         sync.Mutex    // guards all below; nobody else's code runs while it is held
	cause      error         // of the last failure; nil while good
	failing    chan struct{} // closed by the first failure; made anew by accept
	past       chan struct{} // closed when the grace has passed; made anew by the accept after that
	good       chan struct{} // made by the first failure, closed by accept; nil while good
	graceTimer *time.Timer   // closes past
	outages    int           // how often the grace has passed
	nextTry    time.Time     // while failing, no caller shows a token to a broker before
	told       bool          // the log says that authentication fails, and not yet that it works
	refusals   refusals
	claims     token.Claims // of the token that a broker accepted last
}

// refusals are those since a broker accepted a token last.
type refusals struct {
	token string // that was refused last
	count int    // how often in a row
	first time.Time
	last  time.Time
}

// NewState returns a State that is good. A grace of zero or less is none.
func NewState(log *slog.Logger, grace time.Duration) *State {
	return &State{Log: log, Grace: grace, failing: make(chan struct{}), past: make(chan struct{})}
}

// waitTurn returns when the caller may show a token to a broker: at once while good, else
// when nobody has for token.RetryPause, or when good again. If ctx ends first it returns the cause.
func (s *State) waitTurn(ctx context.Context) error {
	for {
		s.mu.Lock()
		now := time.Now()
		good, cause, pause := s.good, s.cause, s.nextTry.Sub(now)
		if cause != nil && pause <= 0 {
			s.nextTry = now.Add(token.RetryPause)
		}
		s.mu.Unlock()
		if cause == nil || pause <= 0 {
			return nil
		}
		if end, _ := s.Wait(ctx, Waiting{Done: good, Within: pause}); end == CtxEnded {
			return cause
		}
	}
}

// suspended returns why tok is not to be shown to a broker now, or nil: brokers have refused
// it twice, the last time within refusedHold.
func (s *State) suspended(tok string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil && tok == s.refusals.token && s.refusals.count >= 2 && time.Since(s.refusals.last) < refusedHold {
		return s.cause
	}
	return nil
}

// lastMoments is when a token is too old for another login. kgo renews a session a second
// before its end. A session of less than 2 seconds it would renew within a second of the login
// before, which brokers answer with ILLEGAL_SASL_STATE.
const lastMoments = 2 * time.Second

// ending returns why a token with these claims is not to be shown to a broker, or nil: it
// expires within lastMoments, and no later than the one that was accepted before.
func (s *State) ending(claims token.Claims) error {
	left := time.Until(claims.Expires)
	newer := claims.Expires.After(s.Identity().Expires)
	if claims.Expires.IsZero() || left >= lastMoments || newer {
		return nil
	}
	return errs.New([]error{errs.Token}, "no usable token: the one at hand ends in %s, and there is no newer one (get one with: %s)",
		left.Truncate(100*time.Millisecond), token.GetCommand)
}

// refusedToken returns the token that brokers have refused last, or "" if they have accepted
// one since.
func (s *State) refusedToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusals.token
}

// refused notes that a broker refused tok, for which the source was asked at the time asked.
// It reports whether a token had been refused by then, which the source was told.
func (s *State) refused(tok string, asked time.Time) (sourceKnew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.refusals
	if tok != r.token {
		r.token, r.count = tok, 0
	}
	r.count++
	r.last = time.Now()
	if r.first.IsZero() {
		r.first = r.last
	}
	return !asked.Before(r.first)
}

// Fail notes that authentication does not work now, and why.
func (s *State) Fail(err error) {
	s.mu.Lock()
	first := s.cause == nil
	// Several brokers refuse in turn, with texts that differ in times and ports.
	news := (first || logonce.Timeless(s.cause.Error()) != logonce.Timeless(err.Error())) && !s.said.Already(err.Error())
	s.told = s.told || news
	s.cause = err
	s.nextTry = time.Now().Add(token.RetryPause)
	if first {
		s.good = make(chan struct{})
		close(s.failing)
		s.startGrace()
	}
	s.mu.Unlock()
	if news {
		s.Log.Warn("gracedb: kafka: authentication fails", "err", errs.Reason(err))
	}
	if first && s.OnFail != nil {
		go s.OnFail()
	}
}

// startGrace sees to it that past is closed after the grace. s.mu is held.
func (s *State) startGrace() {
	if s.Grace <= 0 {
		s.outages++
		close(s.past)
		return
	}
	good := s.good
	s.graceTimer = time.AfterFunc(s.Grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.good == good { // no accept since
			s.outages++
			close(s.past)
		}
	})
}

// accept notes that a broker has accepted a token with these claims.
func (s *State) accept(claims token.Claims) {
	s.mu.Lock()
	told, was := s.told, s.claims.Subject
	s.told = false
	s.claims = claims
	s.refusals = refusals{}
	if s.cause != nil {
		s.cause = nil
		close(s.good)
		s.good = nil
		if s.graceTimer != nil {
			s.graceTimer.Stop()
		}
		s.failing = make(chan struct{})
		if isClosed(s.past) { // else those who wait on it are to hear of the next outage
			s.past = make(chan struct{})
		}
	}
	s.mu.Unlock()
	if told {
		s.Log.Info("gracedb: kafka: authentication works again")
	}
	if was != "" && was != claims.Subject {
		s.Log.Warn("gracedb: kafka: the token has another sub", "was", errs.Clean(was), "is", errs.Clean(claims.Subject))
	}
}

// Failure returns why authentication fails, or nil while good.
func (s *State) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// PastGrace returns the number of this outage, and why authentication fails, if it has failed
// for longer than the grace.
func (s *State) PastGrace() (outage int, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isClosed(s.past) {
		return s.outages, s.cause
	}
	return 0, nil
}

// Healed returns a channel that is closed when authentication works.
func (s *State) Healed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good == nil {
		return closed
	}
	return s.good
}

// Identity returns the claims of the token that a broker accepted last.
func (s *State) Identity() token.Claims {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims
}

// IsRefusal reports whether err is a broker's code for a failed authentication.
func IsRefusal(err error) bool {
	return errors.Is(err, kerr.SaslAuthenticationFailed) ||
		errors.Is(err, kerr.UnsupportedSaslMechanism) || errors.Is(err, kerr.IllegalSaslState)
}

// closed is a channel that is closed.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
