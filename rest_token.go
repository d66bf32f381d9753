package gracedb

import (
	"context"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/clock"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// A lateToken is what a Client knows of a source that has no token.
type lateToken struct {
	mu    sync.Mutex
	since time.Time // when the source began to have none; guarded by mu
	until time.Time // when it last had none; guarded by mu
}

// bearer asks for a token, and waits as long for one that is late as a Producer does.
func (c *Client) bearer(ctx context.Context) (*readToken, error) {
	for {
		t, err := c.askToken(ctx, "")
		if err == nil || ctx.Err() != nil || !c.late.mayWait(graceOf(ctx)) {
			return t, err
		}
		if ended := clock.Sleep(ctx, refusedPause); ended != nil {
			return nil, errs.New([]error{ended, err}, "%s: %s", errs.Reason(err), errs.Reason(ended))
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
func (c *Client) askToken(ctx context.Context, refused string) (*readToken, error) {
	t, err := c.token.ask(ctx, refused)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, errs.New([]error{ctx.Err(), err}, "%s", errs.Reason(err))
	case err != nil:
		return nil, err
	}
	c.late.found()
	return t, nil
}

// withGrace makes the calls of a Client wait for a late token as long as p does.
func withGrace(ctx context.Context, p *Producer) context.Context {
	if p == nil {
		return ctx
	}
	return context.WithValue(ctx, graceKey{}, p.cluster.auth.grace)
}

type graceKey struct{}

func graceOf(ctx context.Context) time.Duration {
	if grace, ok := ctx.Value(graceKey{}).(time.Duration); ok {
		return grace
	}
	return defaultAuthGrace
}
