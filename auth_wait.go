package gracedb

import (
	"context"
	"time"
)

// A waiting is what a caller waits for, and what ends that wait besides its ctx.
type waiting struct {
	done   <-chan struct{} // closed when there is what is waited for
	closed <-chan struct{} // closed with the client; nil if that does not end the wait
	news   <-chan struct{} // closed, or given a value, when the caller should look again; or nil
	within time.Duration   // the caller wants to look again after this long; 0 for never
	stop   stopAt
	// told is the outage that the caller has heard of already: it does not end the wait once
	// more, and the next one does. With stopPastGrace alone.
	told int
}

// A stopAt says which state of the authentication ends a wait.
type stopAt int

const (
	stopNever stopAt = iota
	stopPastGrace
	stopFailing
)

// A waitEnd is what ended a wait.
type waitEnd int

const (
	isDone    waitEnd = iota
	lookAgain         // by news
	timeUp            // after within
	ctxEnded          // the error is ctx's
	clientClosed
	authFails // the error is the cause
)

// wait returns when w.done is closed, or when something else ends the wait: the one place where
// calls wait for brokers. What is done wins over all else that is there at the same time.
func (s *authState) wait(ctx context.Context, w waiting) (waitEnd, error) {
	var after <-chan time.Time
	if w.within > 0 {
		timer := time.NewTimer(w.within)
		defer timer.Stop()
		after = timer.C
	}
	for {
		if w.done != nil && isClosed(w.done) {
			return isDone, nil
		}
		stop, cause := s.stops(w)
		if cause != nil {
			return authFails, cause
		}
		select {
		case <-w.done:
			return isDone, nil
		case <-w.news:
			return lookAgain, nil
		case <-after:
			return timeUp, nil
		case <-ctx.Done():
			return ctxEnded, ctx.Err()
		case <-w.closed:
			return clientClosed, nil
		case <-stop: // look whether it has been accepted since
		}
	}
}

// stops returns the cause if authentication ends w now, or else the channel that is closed when
// it may.
func (s *authState) stops(w waiting) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.stop == stopNever:
		return nil, nil
	case w.stop == stopFailing:
		return s.failing, s.cause
	case !isClosed(s.past):
		return s.past, nil
	case w.told == s.outages:
		return s.good, nil // after that there may be another
	}
	return s.past, s.cause
}
