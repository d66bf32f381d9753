package gracedbapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/clock"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A lateToken is what a Client knows of a source that has no token.
type lateToken struct {
	mu    sync.Mutex
	since time.Time // when the source began to have none; guarded by mu
	until time.Time // when it last had none; guarded by mu
}

// A bearerToken is a token to send, and what it says; none if raw is "".
type bearerToken struct {
	raw    string
	claims token.Claims
}

// bearer asks for a token, and waits as long for one that is late as a Producer does.
func (c *Client) bearer(ctx context.Context) (bearerToken, error) {
	for {
		t, err := c.askToken(ctx, "")
		if err == nil || ctx.Err() != nil || !c.late.mayWait(graceOf(ctx)) {
			return t, err
		}
		if ended := clock.Sleep(ctx, token.RetryPause); ended != nil {
			return bearerToken{}, errs.New([]error{ended, err}, "%s: %s", errs.Reason(err), errs.Reason(ended))
		}
	}
}

// mayWait records that the source has no token now, and reports whether one that is
// late by less than grace may still come. Times without a token that are no further
// apart than grace are one outage: in the course of it, only the first calls wait.
func (k *lateToken) mayWait(grace time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if now.Sub(k.until) > grace {
		k.since = now
	}
	k.until = now
	return now.Sub(k.since) < grace
}

// found records that the source has a token.
func (k *lateToken) found() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = time.Time{}
}

// askToken asks once for a token other than refused.
func (c *Client) askToken(ctx context.Context, refused string) (bearerToken, error) {
	raw, claims, err := c.config.Token(ctx, refused)
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()): // the source, or asking it, ended with ctx
		return bearerToken{}, errs.New([]error{ctx.Err()}, "%s", errs.Reason(err))
	case err != nil && ctx.Err() != nil:
		return bearerToken{}, errs.New([]error{ctx.Err(), err}, "%s", errs.Reason(err))
	case err != nil:
		return bearerToken{}, err
	}
	c.late.found()
	return bearerToken{raw, claims}, nil
}

// WithGrace makes calls with the ctx wait as long for a late token.
func WithGrace(ctx context.Context, grace time.Duration) context.Context {
	return context.WithValue(ctx, graceKey{}, grace)
}

type graceKey struct{}

// defaultGrace is as long as a Producer waits by default.
const defaultGrace = 5 * time.Second

func graceOf(ctx context.Context) time.Duration {
	if grace, ok := ctx.Value(graceKey{}).(time.Duration); ok {
		return grace
	}
	return defaultGrace
}
