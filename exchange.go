package gracedb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"time"

	"github.com/gracedb-go/gracedb/internal/token"
)

// An exchange is one request to the server, with as many tries as it takes.
type exchange struct {
	method string
	url    *url.URL
	body   *payload // nil if there is none
	// repeatable says that the request may be sent again although the server may
	// have acted on it.
	repeatable bool
	notFound   string // what to do about a 404; or empty
}

// An answer is what came back from an exchange.
type answer struct {
	status int // of the last try; 0 if it got no answer
	header http.Header
	body   []byte
	// unanswered says that the server may have acted on a try and that its answer
	// is not known.
	unanswered bool
	away       bool // the last try found nobody to connect to

	x      exchange
	token  string // sent last; the server may echo it
	claims token.Claims
	tries  int
}

// do sends every request of this package. Its error is nil if the status is 2xx;
// the answer says what is known in either case.
//
// Every try asks for the token again, since a pause may outlive one. A refusal of
// the token asks for another one, once; the server has done nothing then.
func (c *Client) do(ctx context.Context, x exchange) (answer, error) {
	a := answer{x: x}
	var place place
	defer c.pace.leave(&place)
	var last error
	var fresh *readToken
	renewed := false
	for repeats := 0; ; {
		if x.method != http.MethodGet && c.pace.enter(ctx, &place) != nil {
			return a, a.interrupted(ctx, last)
		}
		t := fresh
		if fresh = nil; t == nil {
			var err error
			if t, err = c.bearer(ctx); err != nil {
				return a, a.failure(err, err, last)
			}
		}
		tokensShown.note(t.raw)
		a.token, a.claims = t.raw, t.claims
		wait, err := c.try(ctx, &a)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return a, a.interrupted(ctx, err)
		}
		if refusesToken(a.status, a.body) && !renewed {
			renewed = true
			other, none := c.askToken(ctx, t.raw)
			if none != nil || other.raw == t.raw {
				return a, err
			}
			fresh, last = other, err
			continue
		}
		if wait < 0 || repeats >= c.retries && !(a.away && c.waitsForReturn(ctx)) {
			return a, err
		}
		wait = max(wait, backoff(repeats))
		repeats++
		if at, ok := ctx.Deadline(); ok && time.Now().Add(wait).After(at) {
			return a, err // waiting would be for nothing
		}
		c.log.InfoContext(ctx, "gracedb: trying again", "method", x.method, "url", showURL(x.url),
			"status", a.status, "wait", wait, "cause", reason(err))
		last = err
		if a.status == http.StatusTooManyRequests && x.method != http.MethodGet {
			c.pace.throttle(wait) // waited for by enter
			continue
		}
		if sleep(ctx, wait) != nil {
			return a, a.interrupted(ctx, err)
		}
	}
}

// try sends the request once and fills in the answer. Unless it succeeds, wait
// says how long to wait at least before another try, and is negative if another try
// is of no use or not safe.
func (c *Client) try(ctx context.Context, a *answer) (wait time.Duration, err error) {
	a.tries++
	a.status, a.header, a.body, a.away = 0, nil, nil, false
	wire := wire{once: !a.x.repeatable}
	if wire.once && c.shared.isOld() {
		c.http.CloseIdleConnections()
	}
	defer c.shared.used(&wire)
	req, err := a.x.request(httptrace.WithClientTrace(ctx, wire.trace()), a.token)
	if err != nil {
		return -1, a.failure(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.lost(ctx, a, err, &wire)
	}
	defer func() { _ = resp.Body.Close() }()

	good := resp.StatusCode/100 == 2
	limit := int64(maxErrorReply)
	if good {
		limit = maxReply
	}
	body, whole, err := readBody(resp, limit)
	// What a POST asks for stands at the head of its answer.
	enough := err == nil && whole || good && a.x.method == http.MethodPost && headGraceID(body) != ""
	if good && err != nil && !enough {
		// Half an answer is none.
		return c.lost(ctx, a, err, &wire)
	}
	a.status, a.header, a.body = resp.StatusCode, resp.Header, body
	switch {
	case good && !enough:
		a.unanswered = true
		return -1, a.unexpected("has more than %d bytes", maxReply)
	case good:
		return 0, nil
	}
	status := statusError(resp, body)
	status.Attempts, status.advice = a.tries, a.advice()
	return refusal(a, status.StatusCode), status
}

// refusal judges a status that is not 2xx: wait as try has it.
func refusal(a *answer, status int) (wait time.Duration) {
	wait, told := retryAfter(a.header, time.Now())
	wait = min(wait, maxWait)
	safe := a.x.repeatable
	switch {
	case status == http.StatusTooManyRequests:
		safe = true // not acted on
	case status == http.StatusServiceUnavailable:
		// With Retry-After, GraceDB did nothing and is soon back. Without, it is
		// down for maintenance.
		safe = told
	case status == http.StatusRequestTimeout:
	case status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
		a.unanswered = true // the gateway did not get GraceDB's answer
	case status >= 500:
		a.unanswered = true
		safe = false
	default:
		safe = false
	}
	if !safe {
		return -1
	}
	return wait
}

// lost judges a try without an answer: wait as try has it.
func (c *Client) lost(ctx context.Context, a *answer, err error, w *wire) (wait time.Duration, _ error) {
	reached := w.reached()
	a.unanswered = a.unanswered || reached
	a.away = !w.connected.Load()
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // its own text repeats method and URL
	}
	err = c.explain(a, err)
	if ctx.Err() == context.Canceled {
		return -1, a.failure(err, err) // no fault of the connection's
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		final := a.failure(errors.New("no answer in time ("+reason(err)+")"), ErrConnection, err)
		if a.away && c.waitsForReturn(ctx) {
			return 0, final
		}
		return -1, final // this long was waited already: more of it would be no help
	}
	final := a.failure(err, ErrConnection, err)
	if dialProblem(err) || reached && !a.x.repeatable {
		return -1, final
	}
	return 0, final
}

// waitsForReturn reports whether a server that is away is waited for until ctx ends.
// Without a deadline the caller would hear nothing for as long as it is.
func (c *Client) waitsForReturn(ctx context.Context) bool {
	_, ends := ctx.Deadline()
	return c.untilDeadline && ends
}

// request makes the request of one try.
func (x exchange) request(ctx context.Context, token string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, x.method, x.url.String(), nil)
	if err != nil {
		return nil, err
	}
	if x.body != nil {
		req.GetBody = x.body.open
		req.Body, _ = x.body.open()
		req.ContentLength = x.body.size()
		req.Header.Set("Content-Type", x.body.contentType)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "gzip") // said by us, so that readBody inflates, within bounds
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Authorization", "Bearer "+token)
	return req, nil
}

// failure returns an error about the exchange that reads as cause does and is all
// of is, where a nil is left out.
func (a *answer) failure(cause error, is ...error) error {
	text := reason(cause)
	if a.tries > 1 {
		text += fmt.Sprintf(" (%d attempts)", a.tries)
	}
	is = slices.DeleteFunc(is, func(err error) bool { return err == nil })
	return fail(is, "%s %s: %s", a.x.method, showURL(a.x.url), text)
}

// interrupted returns the error of an exchange that ctx ended, after last.
func (a *answer) interrupted(ctx context.Context, last error) error {
	switch {
	case last == nil:
		return a.failure(ctx.Err(), ctx.Err())
	case errors.Is(last, ctx.Err()):
		return last
	}
	return fail([]error{ctx.Err(), last}, "%s: %s", reason(last), reason(ctx.Err()))
}

// unexpected returns the error of an answer that is good by its status alone.
func (a *answer) unexpected(format string, args ...any) error {
	status := &StatusError{
		Method: a.x.method, URL: showURL(a.x.url), StatusCode: a.status, Attempts: a.tries, advice: a.advice(),
		Body: cleanTextN(string(a.body[:min(len(a.body), maxErrorReply)]), maxErrorBody),
	}
	inner := fail(nil, format, args...)
	status.Messages = []string{"the answer " + reason(inner)}
	return status
}

// created reads the answer to a request that makes an event or a reservation,
// where err is the error of do.
func (c *Client) created(ctx context.Context, a *answer, err error) (created, error) {
	if err != nil {
		return created{}, err
	}
	made, err := decodeCreated(a.body)
	if err != nil {
		a.unanswered = true
		return created{}, a.unexpected("%s", reason(err))
	}
	made.Submitter = cleanText(made.Submitter)
	for i, w := range made.Warnings {
		made.Warnings[i] = cleanText(w)
	}
	if made.damaged {
		c.log.WarnContext(ctx, "gracedb: the server's answer is too long or damaged: only the graceid could be read of it",
			"graceid", made.GraceID, "url", showURL(a.x.url), "bytes", len(a.body))
	}
	if len(made.Warnings) > 0 {
		c.log.WarnContext(ctx, "gracedb: the server has a warning", "graceid", made.GraceID, "warnings", made.Warnings)
	}
	return made, nil
}

// backoff returns the pause before the repetition number n, counted from 0.
func backoff(n int) time.Duration {
	const longest = 5 * time.Second
	if n == 0 {
		return 0
	}
	return min(200*time.Millisecond<<min(n-1, 16), longest)
}

// sleep waits for d or for ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
