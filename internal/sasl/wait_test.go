package sasl

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
		w       func() Waiting
		fails   bool // authentication, from the start on
		ctx     time.Duration
		want    WaitEnd
		wantErr error
		at      time.Duration
	}{
		{"done", func() Waiting { return Waiting{Done: after(time.Second), Stop: StopFailing} }, false, time.Minute, Done, nil, time.Second},
		{"done before all else", func() Waiting { return Waiting{Done: closed, Closed: closed, News: closed, Stop: StopFailing} }, true, 0, Done, nil, 0},
		{"news", func() Waiting { return Waiting{News: after(time.Second)} }, false, time.Minute, LookAgain, nil, time.Second},
		{"within", func() Waiting { return Waiting{Within: time.Second} }, true, time.Minute, TimeUp, nil, time.Second},
		{"the ctx", func() Waiting { return Waiting{Stop: StopPastGrace} }, true, time.Second, CtxEnded, context.DeadlineExceeded, time.Second},
		{"closed", func() Waiting { return Waiting{Closed: after(time.Second)} }, true, time.Minute, ClientClosed, nil, time.Second},
		{"failing", func() Waiting { return Waiting{Stop: StopFailing} }, true, time.Minute, AuthFails, errTestRefused, 0},
		{"past the grace", func() Waiting { return Waiting{Stop: StopPastGrace} }, true, time.Minute, AuthFails, errTestRefused, grace},
		{"no failure", func() Waiting { return Waiting{} }, true, time.Minute, CtxEnded, context.DeadlineExceeded, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewState(slog.New(slog.DiscardHandler), grace)
				if test.fails {
					s.Fail(errTestRefused)
				}
				ctx, cancel := context.WithTimeout(t.Context(), test.ctx)
				defer cancel()
				start := time.Now()
				got, err := s.Wait(ctx, test.w())
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
		s := NewState(slog.New(slog.DiscardHandler), time.Second)
		s.Fail(errTestRefused)
		end, _ := s.Wait(t.Context(), Waiting{Stop: StopPastGrace})
		outage, _ := s.PastGrace()
		if end != AuthFails || outage == 0 {
			t.Fatalf("end %d, outage %d", end, outage)
		}
		start := time.Now()
		time.AfterFunc(10*time.Second, func() { s.accept(token.Claims{}) })
		time.AfterFunc(20*time.Second, func() { s.Fail(errTestRefused) })
		end, err := s.Wait(t.Context(), Waiting{Stop: StopPastGrace, Told: outage})
		if took := time.Since(start); end != AuthFails || !errors.Is(err, errTestRefused) || took != 21*time.Second {
			t.Errorf("end %d with %v after %v", end, err, took)
		}
		s.accept(token.Claims{})
	})
}
