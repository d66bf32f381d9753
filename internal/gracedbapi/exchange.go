package gracedbapi

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

	"github.com/gracedb-go/gracedb/internal/clock"
	"github.com/gracedb-go/gracedb/internal/errs"
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
	notFound   string // what the caller can do about a 404; or empty
}

// An answer is what came back from an exchange.
type answer struct {
	status int // of the last try; 0 if it got no answer
	header http.Header
	body   []byte
	// acted says that the server may have done what it was asked, at some try, although no
	// answer says what it did.
	acted bool
	away  bool // the last try found nobody to connect to

	x           exchange
	statusError func(Status) error
	token       string // sent last; the server may echo it
	claims      token.Claims
	tries       int
}

// A verdict is what a try that failed means for the exchange.
type verdict struct {
	again bool          // another try is safe, and may help
	wait  time.Duration // for at least as long before it
	acted bool          // the server may have done what it was asked
}

// do sends every request of this package. Its error is nil if the status is 2xx;
// the answer says what is known in either case.
func (c *Client) do(ctx context.Context, x exchange) (answer, error) {
	t := tries{c: c, answer: answer{x: x, statusError: c.config.StatusError}}
	defer c.pace.leave(&t.turn)
	for {
		if err := t.prepare(ctx); err != nil {
			return t.answer, err
		}
		v, err := c.try(ctx, &t.answer)
		if err == nil {
			return t.answer, nil
		}
		t.answer.acted = t.answer.acted || v.acted
		if again, err := t.next(ctx, v, err); !again {
			return t.answer, err
		}
	}
}

// A tries is the state of do, from one try to the next.
type tries struct {
	c       *Client
	answer  answer
	turn    turn        // at the pacer
	token   bearerToken // for the next try; none to ask the source
	renewed bool        // a refused token was replaced by another one
	repeats int         // tries that were sent again, without those for another token
	last    error       // of the try before
}

// prepare waits until the next try may be sent, and finds its token: every try asks for
// the token again, since a pause may outlive one.
func (t *tries) prepare(ctx context.Context) error {
	if t.answer.x.method != http.MethodGet && t.c.pace.enter(ctx, &t.turn) != nil {
		return t.answer.interrupted(ctx, t.last)
	}
	if t.token.raw == "" {
		var err error
		if t.token, err = t.c.bearer(ctx); err != nil {
			return t.answer.failure(err, err, t.last)
		}
	}
	errs.NoteToken(t.token.raw)
	t.answer.token, t.answer.claims = t.token.raw, t.token.claims
	return nil
}

// next decides whether there is another try after one that failed with err, and waits for
// it. If there is none, it returns the error of the exchange.
func (t *tries) next(ctx context.Context, v verdict, err error) (again bool, _ error) {
	a := &t.answer
	used := t.token
	t.token = bearerToken{}
	if ctx.Err() != nil {
		return false, a.interrupted(ctx, err)
	}
	if refusesToken(a.status, a.body) && !t.renewed {
		// The server has done nothing.
		t.renewed = true
		other, none := t.c.askToken(ctx, used.raw)
		if none != nil || other.raw == used.raw {
			return false, err
		}
		t.token, t.last = other, err
		return true, nil
	}
	if !v.again || t.repeats >= t.c.retries && !(a.away && t.c.waitsForReturn(ctx)) {
		return false, err
	}
	wait := max(v.wait, backoff(t.repeats))
	t.repeats++
	if at, ok := ctx.Deadline(); ok && time.Now().Add(wait).After(at) {
		return false, err // waiting would be for nothing
	}
	t.c.log.InfoContext(ctx, "gracedb: trying again", "method", a.x.method, "url", showURL(a.x.url),
		"status", a.status, "wait", wait, "cause", errs.Reason(err))
	t.last = err
	if a.status == http.StatusTooManyRequests && a.x.method != http.MethodGet {
		t.c.pace.throttle(wait) // waited for by prepare
		return true, nil
	}
	if clock.Sleep(ctx, wait) != nil {
		return false, a.interrupted(ctx, err)
	}
	return true, nil
}

// try sends the request once and fills in the answer. The verdict counts unless it
// succeeds.
func (c *Client) try(ctx context.Context, a *answer) (verdict, error) {
	a.tries++
	a.status, a.header, a.body, a.away = 0, nil, nil, false
	trace := requestTrace{once: !a.x.repeatable}
	if trace.once && c.shared.isOld() {
		c.HTTP.CloseIdleConnections()
	}
	defer c.shared.used(&trace)
	req, err := a.x.request(httptrace.WithClientTrace(ctx, trace.hooks()), a.token, c.config.UserAgent)
	if err != nil {
		return verdict{}, a.failure(err)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return c.lost(ctx, a, err, &trace)
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
		return c.lost(ctx, a, err, &trace)
	}
	a.status, a.header, a.body = resp.StatusCode, resp.Header, body
	switch {
	case good && !enough:
		return verdict{}, a.unexpected("has more than %d bytes", maxReply)
	case good:
		return verdict{}, nil
	}
	after, told := retryAfter(resp.Header, time.Now())
	status := statusOf(resp, body, after)
	status.Attempts, status.Advice = a.tries, a.advice()
	return ruleFor(a.status, told).verdict(a.x.repeatable, after), a.statusError(status)
}

// lost returns the verdict on a try without an answer, and its error.
func (c *Client) lost(ctx context.Context, a *answer, err error, trace *requestTrace) (verdict, error) {
	v := verdict{acted: trace.mayHaveArrived()}
	a.away = !trace.connected.Load()
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // its own text repeats method and URL
	}
	err = c.explain(a, err)
	if ctx.Err() == context.Canceled {
		return v, a.failure(err, err) // no fault of the connection's
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		// This long was waited already: more of it helps only where nobody could be
		// connected to.
		v.again = a.away && c.waitsForReturn(ctx)
		return v, a.failure(errors.New("no answer in time ("+errs.Reason(err)+")"), errs.Connection, err)
	}
	v.again = !dialProblem(err) && (a.x.repeatable || !v.acted)
	return v, a.failure(err, errs.Connection, err)
}

// waitsForReturn reports whether a server that is away is waited for until ctx ends.
// Without a deadline the caller would hear nothing for as long as it is.
func (c *Client) waitsForReturn(ctx context.Context) bool {
	_, ends := ctx.Deadline()
	return c.untilDeadline && ends
}

// request makes the request of one try.
func (x exchange) request(ctx context.Context, token, userAgent string) (*http.Request, error) {
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
	text := errs.Reason(cause)
	if a.tries > 1 {
		text += fmt.Sprintf(" (%d attempts)", a.tries)
	}
	is = slices.DeleteFunc(is, func(err error) bool { return err == nil })
	return errs.New(is, "%s %s: %s", a.x.method, showURL(a.x.url), text)
}

// interrupted returns the error of an exchange that ctx ended, after last.
func (a *answer) interrupted(ctx context.Context, last error) error {
	switch {
	case last == nil:
		return a.failure(ctx.Err(), ctx.Err())
	case errors.Is(last, ctx.Err()):
		return last
	}
	return errs.New([]error{ctx.Err(), last}, "%s: %s", errs.Reason(last), errs.Reason(ctx.Err()))
}

// unexpected returns the error of an answer that is good by its status alone: the server
// has acted, and does not say what it did.
func (a *answer) unexpected(format string, args ...any) error {
	a.acted = true
	inner := errs.New(nil, format, args...)
	return a.statusError(Status{
		Method: a.x.method, URL: showURL(a.x.url), StatusCode: a.status, Attempts: a.tries, Advice: a.advice(),
		Messages: []string{"the answer " + errs.Reason(inner)},
		Body:     errs.CleanN(string(a.body[:min(len(a.body), maxErrorReply)]), maxErrorBody),
	})
}

// readCreated reads the answer to a request that makes an event or a reservation. err is
// the error of do.
func (c *Client) readCreated(ctx context.Context, a *answer, err error) (Created, error) {
	if err != nil {
		return Created{}, err
	}
	made, err := decodeCreated(a.body)
	if err != nil {
		return Created{}, a.unexpected("%s", errs.Reason(err))
	}
	made.Submitter = errs.Clean(made.Submitter)
	for i, w := range made.Warnings {
		made.Warnings[i] = errs.Clean(w)
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
