package sasl

import (
	"context"
	"time"
)

// A Waiting is what a caller waits for, and what ends that wait besides its ctx.
type Waiting struct {
	Done   <-chan struct{} // closed when there is what is waited for
	Closed <-chan struct{} // closed with the client; nil if that does not end the wait
	News   <-chan struct{} // closed, or given a value, when the caller should look again; or nil
	Within time.Duration   // the caller wants to look again after this long; 0 for never
	Stop   StopAt
	// Told is the outage that the caller has heard of already: it does not end the wait once
	// more, and the next one does. With StopPastGrace alone.
	Told int
}

// A StopAt says which state of the authentication ends a wait.
type StopAt int

// The states of the authentication that end a wait: none, unless one of these is given.
const (
	StopPastGrace StopAt = iota + 1 // it has failed for longer than the grace
	StopFailing                     // it fails
)

// A WaitEnd is what ended a wait.
type WaitEnd int

// What ends a wait.
const (
	Done         WaitEnd = iota // Waiting.Done is closed
	LookAgain                   // by News
	TimeUp                      // after Within
	CtxEnded                    // the error is ctx's
	ClientClosed                // Waiting.Closed is closed
	AuthFails                   // the error is the cause
)

// Wait returns when w.Done is closed, or when something else ends the wait: the one place where
// calls wait for brokers. What is done wins over all else that is there at the same time.
func (s *State) Wait(ctx context.Context, w Waiting) (WaitEnd, error) {
	var after <-chan time.Time
	if w.Within > 0 {
		timer := time.NewTimer(w.Within)
		defer timer.Stop()
		after = timer.C
	}
	for {
		if w.Done != nil && isClosed(w.Done) {
			return Done, nil
		}
		stop, cause := s.stops(w)
		if cause != nil {
			return AuthFails, cause
		}
		select {
		case <-w.Done:
			return Done, nil
		case <-w.News:
			return LookAgain, nil
		case <-after:
			return TimeUp, nil
		case <-ctx.Done():
			return CtxEnded, ctx.Err()
		case <-w.Closed:
			return ClientClosed, nil
		case <-stop: // look whether it has been accepted since
		}
	}
}

// stops returns the cause if authentication ends w now, or else the channel that is closed when
// it may.
func (s *State) stops(w Waiting) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.Stop == 0:
		return nil, nil
	case w.Stop == StopFailing:
		return s.failing, s.cause
	case !isClosed(s.past):
		return s.past, nil
	case w.Told == s.outages:
		return s.good, nil // after that there may be another
	}
	return s.past, s.cause
}
