package gracedb

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb/internal/token"
)

var errTestRefused = errors.New("refused")

// What ends a wait, and when; nothing else does.
func TestWaitEnds(t *testing.T) {
	const grace = 5 * time.Second
	after := func(d time.Duration) chan struct{} {
		c := make(chan struct{})
		time.AfterFunc(d, func() { close(c) })
		return c
	}
	for _, test := range []struct {
		name    string
		w       func() waiting
		fails   bool // authentication, from the start on
		ctx     time.Duration
		want    waitEnd
		wantErr error
		at      time.Duration
	}{
		{"done", func() waiting { return waiting{done: after(time.Second), stop: stopFailing} }, false, time.Minute, isDone, nil, time.Second},
		{"done before all else", func() waiting { return waiting{done: closed, closed: closed, news: closed, stop: stopFailing} }, true, 0, isDone, nil, 0},
		{"news", func() waiting { return waiting{news: after(time.Second)} }, false, time.Minute, lookAgain, nil, time.Second},
		{"within", func() waiting { return waiting{within: time.Second} }, true, time.Minute, timeUp, nil, time.Second},
		{"the ctx", func() waiting { return waiting{stop: stopPastGrace} }, true, time.Second, ctxEnded, context.DeadlineExceeded, time.Second},
		{"closed", func() waiting { return waiting{closed: after(time.Second)} }, true, time.Minute, clientClosed, nil, time.Second},
		{"failing", func() waiting { return waiting{stop: stopFailing} }, true, time.Minute, authFails, errTestRefused, 0},
		{"past the grace", func() waiting { return waiting{stop: stopPastGrace} }, true, time.Minute, authFails, errTestRefused, grace},
		{"no failure", func() waiting { return waiting{stop: stopNever} }, true, time.Minute, ctxEnded, context.DeadlineExceeded, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newAuthState(slog.New(slog.DiscardHandler), grace)
				if test.fails {
					s.fail(errTestRefused)
				}
				ctx, cancel := context.WithTimeout(t.Context(), test.ctx)
				defer cancel()
				start := time.Now()
				got, err := s.wait(ctx, test.w())
				if took := time.Since(start); got != test.want || !errors.Is(err, test.wantErr) || took != test.at {
					t.Errorf("end %d with %v after %v; want %d with %v after %v", got, err, took, test.want, test.wantErr, test.at)
				}
				s.accept(token.Claims{})
				time.Sleep(time.Minute) // timers end
			})
		})
	}
}

// A caller that knows of an outage goes on waiting in it, and hears of the next one.
func TestWaitHearsOfTheNextOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newAuthState(slog.New(slog.DiscardHandler), time.Second)
		s.fail(errTestRefused)
		end, _ := s.wait(t.Context(), waiting{stop: stopPastGrace})
		outage, _ := s.pastGrace()
		if end != authFails || outage == 0 {
			t.Fatalf("end %d, outage %d", end, outage)
		}
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { s.accept(token.Claims{}) })
		time.AfterFunc(20*time.Second, func() { s.fail(errTestRefused) })
		end, err := s.wait(t.Context(), waiting{stop: stopPastGrace, told: outage})
		if took := time.Since(start); end != authFails || !errors.Is(err, errTestRefused) || took != 21*time.Second {
			t.Errorf("end %d with %v after %v", end, err, took)
		}
		s.accept(token.Claims{})
	})
}
