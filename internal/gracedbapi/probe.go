package gracedbapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// A Step is one step of a probe.
type Step struct {
	Done bool // it was begun
	Err  error
	Took time.Duration
}

// A Probed is what came of one request without a token, once and without repetitions.
type Probed struct {
	Proxy           string // host and port of the proxy in between; "" for none, or none known of
	Names, TCP, TLS Step   // as far as the transport tells
	Addresses       []string
	Peer            string
	State           *tls.ConnectionState // nil without TLS
	Status          int                  // 0 if there is no answer
	Ahead           time.Duration        // of the server's clock, by its Date header
	Dated           bool                 // it has one
	Err             error                // ErrConnection if there is no answer
}

// probeTimeout is how long a probe waits.
const probeTimeout = 10 * time.Second

// Probe asks for the root of the service, which takes no token.
func (c *Client) Probe(caller context.Context) Probed {
	ctx, cancel := context.WithTimeout(caller, probeTimeout)
	defer cancel()
	w := probeWatch{}
	w.p.Proxy = c.proxy(c.service)
	a := answer{x: exchange{method: http.MethodGet, url: c.root}, statusError: c.config.StatusError}
	req, err := a.x.request(httptrace.WithClientTrace(ctx, w.hooks()), "", c.config.UserAgent)
	if err != nil {
		return Probed{Err: a.failure(err)}
	}
	req.Header.Del("Authorization")
	req.Close = true // the next request makes a connection of its own
	began := time.Now()
	resp, err := c.HTTP.Do(req)
	ended := time.Now()
	p := w.result()
	if err != nil {
		a.away = true
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		p.Err = a.failure(c.explain(&a, err), errs.Connection, err)
		for _, s := range []*Step{&p.Names, &p.TCP, &p.TLS} {
			if s.Err != nil {
				s.Err = p.Err
			}
		}
		return p
	}
	_ = resp.Body.Close()
	p.Status, p.State = resp.StatusCode, resp.TLS
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// It is cut to seconds, and written some time between the two moments.
		p.Dated, p.Ahead = true, date.Add(time.Second/2).Sub(began.Add(ended.Sub(began)/2))
	}
	return p
}

// A probeWatch takes down what net/http tells of a connection, from several goroutines.
type probeWatch struct {
	mu                  sync.Mutex // guards all below
	p                   Probed
	names, dialing, tls time.Time // when each step began
}

func (w *probeWatch) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { w.begin(&w.names, &w.p.Names) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			w.end(&w.names, &w.p.Names, i.Err)
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, a := range i.Addrs {
				w.p.Addresses = append(w.p.Addresses, a.String())
			}
		},
		ConnectStart: func(_, _ string) { w.begin(&w.dialing, &w.p.TCP) },
		ConnectDone: func(_, addr string, err error) {
			w.mu.Lock()
			made := w.p.Peer != ""
			if err == nil {
				w.p.Peer = addr
			}
			w.mu.Unlock()
			if !made { // of several addresses one is enough
				w.end(&w.dialing, &w.p.TCP, err)
			}
		},
		TLSHandshakeStart: func() { w.begin(&w.tls, &w.p.TLS) },
		TLSHandshakeDone:  func(_ tls.ConnectionState, err error) { w.end(&w.tls, &w.p.TLS, err) },
	}
}

func (w *probeWatch) begin(at *time.Time, s *Step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !s.Done {
		*at, s.Done = time.Now(), true
	}
}

func (w *probeWatch) end(began *time.Time, s *Step, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Err, s.Took = err, time.Since(*began)
}

func (w *probeWatch) result() Probed {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.p
}

// Reserves reports whether the server that has said info reserves graceids, and takes uploads to
// them.
func (c *Client) Reserves(info *Info) error {
	for _, name := range []string{"event-reserve-template", "event-upload-template"} {
		if _, err := c.templateURL(info, name, ""); err != nil {
			return err
		}
	}
	return nil
}

// WhoAmI returns the name of the user whom the server takes the token for; "" if it does not say.
func (c *Client) WhoAmI(ctx context.Context, info *Info) (string, error) {
	if _, ok := info.Links["user-info"]; !ok {
		return "", nil
	}
	to, err := c.linkURL(info, "user-info")
	if err != nil {
		return "", err
	}
	a, err := c.do(ctx, exchange{method: http.MethodGet, url: to, repeatable: true})
	if err != nil {
		return "", err
	}
	var said struct {
		Username string `json:"username"`
	}
	if err := json.Unmarshal(a.body, &said); err != nil {
		return "", a.unexpected("is not a JSON object: %q", excerpt(a.body))
	}
	return errs.CleanN(said.Username, errs.MaxLook), nil
}

// Host returns host and port of the service, where the port is not that of its scheme.
func (c *Client) Host() string { return c.service.Host }
