package cluster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A Client is a kgo client and what this package knows of its connections; a
// Producer and a Consumer have one each.
type Client struct {
	KGO       *kgo.Client
	mechanism *sasl.Mechanism
	Auth      *sasl.State
	Health    *Health
	Brokers   []string
	Instance  string
	kind      error // ErrProducer or ErrConsumer: what every error is
	Log       *slog.Logger
	Life      *Lifecycle
}

// New makes the client. It connects to nothing. If fit is not nil, it makes for each answer to
// Fetch what is called with the batches of one partition of it after the other, in place, before
// kgo has them.
func New(ctx context.Context, c Config, kind error, grace time.Duration, fit func() func(batches []byte), own ...kgo.Opt) (*Client, error) {
	if err := CheckOpts(c.Opts, Connecting, notForOpts); err != nil {
		return nil, err
	}
	auth := sasl.NewState(c.Log(), grace)
	l := &Client{
		Auth: auth, Health: NewHealth(c.Log(), auth), Brokers: c.Brokers, Instance: c.Instance,
		kind: kind, Log: c.Log(), Life: NewLifecycle(),
	}
	l.mechanism = sasl.New(c.Token, auth)
	opts, err := c.Options(ctx, l.mechanism, l.Health, fit)
	if err != nil {
		if errors.Is(err, errs.Config) {
			return nil, err
		}
		return nil, errs.New([]error{err, kind}, "kafka: %s", errs.Reason(err)) // ctx has ended
	}
	own = append(own, kgo.WithContext(l.Life.ctx))
	// The user's own options stay last.
	common := len(opts) - len(c.Opts)
	if l.KGO, err = kgo.NewClient(slices.Concat(opts[:common], own, opts[common:])...); err != nil {
		l.Life.Abort()
		return nil, errs.New([]error{errs.Config, err}, "Cluster: %s", errs.Reason(err))
	}
	auth.OnFail = l.probe
	return l, nil
}

// probe looks for a good token while authentication fails: calls that fail fast
// connect to nothing, so without it nobody would notice that all is well again.
func (l *Client) probe() {
	for {
		end, _ := l.Auth.Wait(context.Background(), sasl.Waiting{Done: l.Auth.Healed(), Closed: l.Life.Closing, Within: token.RetryPause})
		if end != sasl.TimeUp {
			return
		}
		ctx, cancel := context.WithTimeout(l.KGO.Context(), sasl.AskTimeout)
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{} // none: without a list it is all
		_, _ = l.KGO.Request(ctx, req)             // what it finds, the mechanism and kgo's hooks have told auth and health
		cancel()
	}
}

// Shut ends all calls that wait, and releases the client. It is called once, by the first Close or
// by a constructor that fails.
func (l *Client) Shut() {
	l.Life.stop()
	l.KGO.Close()
	l.Life.Abort()
}

// ErrClosed is the error of a call after Close.
func (l *Client) ErrClosed() error {
	is := []error{errs.Closed, l.kind}
	if errors.Is(l.kind, errs.Producer) {
		is = append(is, errs.Delivery)
	}
	return errs.New(is, "kafka: %s", errs.Closed)
}

// A WaitMode says what ends a wait before its ctx.
type WaitMode int

// The two modes: a client that runs, and one that a constructor or a Check waits for.
const (
	Running  WaitMode = iota // authentication has failed for longer than the grace
	Starting                 // anything that is wrong
)

// Await runs f, which talks to a broker and may go on for long after its ctx, and
// returns when it does, or when there is no use in waiting: ctx is done, the
// client closed, or authentication fails. When starting, f is run again as long as
// what it needs is away.
func (l *Client) Await(ctx context.Context, p WaitMode, what string, f func(context.Context) error) error {
	began := time.Now()
	if err := ctx.Err(); err != nil {
		return l.GaveUp(err, what, began, nil)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var last atomic.Pointer[error] // of f, before it is run again
	var err error                  // of f, once done is closed
	done := make(chan struct{})
	w := sasl.Waiting{Done: done, Closed: l.Life.Closing, Stop: sasl.StopPastGrace}
	if p == Starting {
		w.Stop = sasl.StopFailing
	}
	go func() {
		defer close(done)
		if p == Starting {
			err = whileAway(inner, f, &last)
		} else {
			err = f(inner)
		}
	}()
	gaveUp := func(ctxErr error) error {
		if err := last.Load(); err != nil {
			return l.GaveUp(ctxErr, what, began, *err)
		}
		return l.GaveUp(ctxErr, what, began, nil)
	}
	for {
		if p == Starting {
			var all bool
			if all, w.News = l.Health.allDown(l.Brokers, began); all && l.Auth.Failure() == nil {
				is, text := l.Health.Trouble()
				return errs.New(append(is, l.kind), "kafka: %s: %s", what, text)
			}
		}
		switch end, why := l.Auth.Wait(ctx, w); end {
		case sasl.Done:
			if over := over(ctx); err != nil && over != nil && !errors.Is(err, errs.Kafka) {
				return gaveUp(over)
			}
			return l.explain(err, what, began)
		case sasl.CtxEnded:
			return gaveUp(why)
		case sasl.ClientClosed:
			return l.ErrClosed()
		case sasl.AuthFails:
			return errs.New([]error{why, l.kind}, "%s", errs.Reason(why))
		case sasl.LookAgain, sasl.TimeUp:
		}
	}
}

// over returns why ctx is done, or will be at once: the deadline of a connection,
// which the engine takes from ctx, may be noticed first.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// explain gives an engine's error its kinds; began is when what failed began.
func (l *Client) explain(err error, what string, began time.Time) error {
	if err == nil {
		return nil
	}
	if errs.IsOurs(err) {
		return errs.New([]error{err, l.kind}, "%s", errs.Reason(err))
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return l.GaveUp(err, what, began, nil)
	}
	if is, text := l.Health.Trouble(); is != nil && IsConnectionError(err) {
		return errs.New(append(is, err, l.kind), "kafka: %s: %s", what, text)
	}
	if _, answered := errors.AsType[*kerr.Error](err); !answered {
		what += " with " + strings.Join(l.Brokers, ", ")
	}
	return errs.New(append(EngineKinds(err), err, l.kind), "kafka: %s: %s", what, errs.Reason(err))
}

// GaveUp is the error of a wait that its ctx ended: with what brokers last answered,
// with what is known to be wrong, or that nobody has answered since the wait began.
func (l *Client) GaveUp(ctxErr error, what string, began time.Time, last error) error {
	is, text := l.Health.Trouble()
	answer, answered := errors.AsType[*kerr.Error](last)
	switch who := l.Health.answered(began); {
	case answered && is != nil:
		is, text = append(is, answer), errs.Reason(last)+"; "+text
	case answered:
		is, text = append(EngineKinds(last), last), errs.Reason(last)
	case is == nil && len(who) > 0:
		is, text = []error{errs.Connection}, "not all that it takes was answered in time; answers came from "+strings.Join(who, ", ")
	case is == nil:
		is, text = []error{errs.Connection}, "no answer from "+strings.Join(l.Brokers, ", ")+" ("+isMute+")"
	}
	return errs.New(append(is, ctxErr, l.kind), "kafka: %s: %s: %s", what, ctxErr, text)
}

// CheckToken asks for a token without connecting to anything, so that a missing or
// expired one costs the broker nothing and is reported as what it is.
func (l *Client) CheckToken(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sasl.AskTimeout)
	defer cancel()
	if _, err := l.mechanism.Ask(ctx); err != nil {
		return errs.New([]error{err, l.kind}, "%s", errs.Reason(err))
	}
	return nil
}

// whileAway calls f again as long as it fails because a broker is away, or because a
// leader or a coordinator is moving or not there yet. It puts why into last.
func whileAway(ctx context.Context, f func(context.Context) error, last *atomic.Pointer[error]) error {
	for try := 1; ; try++ {
		err := f(ctx)
		if err == nil || !isAway(err) || over(ctx) != nil {
			return err
		}
		last.Store(&err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryBackoff(try)):
		}
	}
}

// isAway reports whether err may end by itself while other brokers answer.
func isAway(err error) bool {
	if errs.IsOurs(err) {
		return false // it has been judged, such as a topic that is missing
	}
	if dial, ok := errors.AsType[*dialError](err); ok {
		return dial.isAway()
	}
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err)
}
