package gracedbapi

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// HTTPClient returns a client for the routes that this package does not know. It sends each
// request once, or twice if the token is refused and there is another one.
func (c *Client) HTTPClient() *http.Client {
	return &http.Client{Transport: routes{c}, CheckRedirect: c.checkRedirect, Timeout: c.HTTP.Timeout, Jar: c.HTTP.Jar}
}

// Refuse returns a client whose requests fail with err.
func Refuse(err error) *http.Client { return &http.Client{Transport: refusing{err}} }

type refusing struct{ err error }

func (r refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	closeBody(req)
	return nil, r.err
}

// owns reports whether the token may be sent to u.
func (c *Client) owns(u *url.URL) bool { return u.User == nil && sameOrigin(u, c.service) }

// checkRedirect follows a redirect in the service, and none after which net/http would ask
// with GET for what was a POST: its answer would look like that to the POST.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	const most = 10
	switch first := via[0]; {
	case !c.owns(req.URL):
		return errs.New(nil, "redirects away from %s are refused: this one leads to %s", c.origin(), errs.Clean(req.URL.Scheme+"://"+req.URL.Host))
	case req.Method != first.Method:
		return errs.New(nil, "the redirect to %s would make a %s of a %s: is a slash missing at the end of the URL?",
			showURL(req.URL), errs.Clean(req.Method), errs.Clean(first.Method))
	case len(via) >= most:
		return errs.New(nil, "%d redirects, the last to %s", len(via), showURL(req.URL))
	}
	return nil
}

func (c *Client) origin() string { return errs.Clean(c.service.Scheme + "://" + c.service.Host) }

// routes is the transport of HTTPClient.
type routes struct{ c *Client }

// CloseIdleConnections is for http.Client's method of that name.
func (r routes) CloseIdleConnections() { r.c.HTTP.CloseIdleConnections() }

// RoundTrip sends req with a token. The answer's Request is req, which has none.
func (r routes) RoundTrip(req *http.Request) (*http.Response, error) {
	c, ctx := r.c, req.Context()
	if !c.owns(req.URL) {
		closeBody(req)
		return nil, errs.New([]error{errs.Config}, "%s is refused: this client, and its token, are for %s alone", showURL(req.URL), c.origin())
	}
	var t turn
	defer c.pace.leave(&t)
	if !reads(req) {
		if err := c.pace.enter(ctx, &t); err != nil {
			closeBody(req)
			return nil, err
		}
	}
	bearer, err := c.bearer(ctx)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := c.send(req, req.Body, bearer.raw)
	if err != nil {
		return nil, err
	}
	if other, body := c.another(req, resp, bearer.raw); other.raw != "" {
		_ = resp.Body.Close()
		if resp, err = c.send(req, body, other.raw); err != nil {
			return nil, err
		}
	}
	if after, told := retryAfter(resp.Header, time.Now()); told && resp.StatusCode == http.StatusTooManyRequests && !reads(req) {
		c.pace.throttle(min(after, maxWait))
	}
	resp.Request = req
	return resp, nil
}

// another returns the token to send req with once more, and its body, if resp refuses the
// token that was sent: none if there is no other one, or the body cannot be read again.
func (c *Client) another(req *http.Request, resp *http.Response, sent string) (other bearerToken, body io.ReadCloser) {
	if !refusesToken(resp.StatusCode, peek(resp)) {
		return bearerToken{}, nil
	}
	if body = req.Body; body != nil && body != http.NoBody {
		if req.GetBody == nil {
			return bearerToken{}, nil
		}
		var err error
		if body, err = req.GetBody(); err != nil {
			return bearerToken{}, nil
		}
	}
	other, err := c.askToken(req.Context(), sent)
	if err != nil || other.raw == sent {
		if body != nil {
			_ = body.Close()
		}
		return bearerToken{}, nil
	}
	return other, body
}

// peek returns the beginning of the body of a 403, which the caller of HTTPClient reads all
// the same.
func peek(resp *http.Response) []byte {
	if resp.StatusCode != http.StatusForbidden {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorReply))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failing{err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), resp.Body}
	return head
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// send sends req with a token and this body.
func (c *Client) send(req *http.Request, body io.ReadCloser, token string) (*http.Response, error) {
	trace := requestTrace{once: !reads(req)}
	if trace.once && c.shared.isOld() {
		c.HTTP.CloseIdleConnections()
	}
	defer c.shared.used(&trace)
	errs.NoteToken(token)
	sent := req.Clone(httptrace.WithClientTrace(req.Context(), trace.hooks()))
	sent.Body, sent.Host = body, "" // the host is the URL's
	sent.Header.Set("Authorization", "Bearer "+token)
	if sent.Header.Get("User-Agent") == "" { // which GraceDB refuses
		sent.Header.Set("User-Agent", c.config.UserAgent)
	}
	transport := c.HTTP.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	resp, err := transport.RoundTrip(sent)
	if err == nil {
		return resp, nil
	}
	a := answer{x: exchange{method: req.Method, url: req.URL}, away: !trace.connected.Load()}
	text, is := errs.Reason(c.explain(&a, err)), []error{err}
	if req.Context().Err() == nil {
		is = append(is, errs.Connection)
	}
	if trace.once && trace.mayHaveArrived() {
		is, text = append(is, unknownOutcome{}), fmt.Sprintf("%s; GraceDB may have done it all the same", text)
	}
	return nil, errs.New(is, "%s", text)
}

// reads reports whether a request changes nothing.
func reads(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}
