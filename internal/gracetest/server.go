// Package gracetest is a GraceDB for tests and the demo: an HTTPS server with the
// part of the REST API that publishing events needs, answering as the real one
// does, errors and their forms included, and failing on request.
//
// What it answers was seen on the public code of the server, of which the views, the
// readers of event files and the checks were run. Of reservations and of the upload
// to them no code is public: they answer what the Python client expects.
package gracetest

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A Config configures a Server. The zero value is a server on a free port of
// 127.0.0.1 with an authority and a token issuer of its own.
type Config struct {
	// Addr is where to listen. If empty, "127.0.0.1:0".
	Addr string
	// Virtual serves on a network in memory, for testing/synctest: reach it
	// through Server.Dial or Server.HTTPClient.
	Virtual bool
	// Hosts are what the certificate is for. If empty, localhost, 127.0.0.1 and
	// ::1; the first is the one in Server.URL of a virtual server.
	Hosts []string
	// Plain serves http instead of https.
	Plain bool
	// HTTP2 is spoken too. Faults that cut the connection need it off.
	HTTP2 bool

	Authority *testauth.Authority // signs the server's certificate; if nil, one is made
	Issuer    *testauth.Issuer    // whose tokens are good, unless Check is set; if nil, one is made
	// Check says whose a token is. Without the scope gracedb.read it is of no use.
	Check func(token string) (subject string, scopes []string, err error)
	// Refusal is the status for a token that is missing or no good. If zero, it is
	// 403, as the server is configured; 401 is what its framework is meant to say.
	Refusal int
	// Inactive are subjects whose tokens are good and who are not wanted any more.
	Inactive []string
	// Superusers are subjects for whom Rate is no limit.
	Superusers []string

	// Rate is how many POSTs a second each subject has. If zero, there is no limit.
	Rate int
	// Work is how long the server takes to create an event, once it is in order.
	Work time.Duration
	// Conflict is the status for an upload to a graceid that has its event. If
	// zero, 409.
	Conflict int

	Groups, Pipelines, Searches, Labels []string // known names; if nil, some real ones
	Forbidden                           []string // pipelines that nobody has the right to upload to, but in group Test
	Disabled                            []string // pipelines that are disabled for now, but in group Test and in search MDC
	Unapproved                          []string // pipelines that are not approved yet
	Protected                           []string // labels that nobody can set; if nil, ADVOK and ADVNO
	// AlertsDown is a server that cannot tell anybody of an event.
	AlertsDown bool
	// Warnings are put into the answer to the creation of an event.
	Warnings func(Event) []string
	// EditRoot changes the root document before it is sent.
	EditRoot func(doc map[string]any)
	// NoProcessingStatus leaves processing_status out of events, as servers did: who
	// asked for one that was only reserved was told that there is none.
	NoProcessingStatus bool
	// NoReservations leaves the templates of reservations out, as a server does that
	// has none.
	NoReservations bool
}

// A Server is a running GraceDB. It is safe for concurrent use.
type Server struct {
	cfg     Config
	url     string
	http    *http.Server
	pipe    *pipeListener // of a virtual server
	closed  sync.Once
	closing chan struct{} // closed when Close is called
	done    chan struct{} // closed when serving has ended

	supervisor string // token of the supervisor, who may do anything

	mu       sync.Mutex
	lastID   int
	events   []*record              // in the order of their graceids; guarded by mu
	requests []Request              // guarded by mu
	faults   []*Fault               // guarded by mu
	posts    map[string][]time.Time // recent ones by subject; guarded by mu
	conns    map[net.Conn]bool      // open ones; guarded by mu
	changed  *sync.Cond             // conns has changed
}

// Start starts a Server.
func Start(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, lastID: 1000, closing: make(chan struct{}), done: make(chan struct{}), supervisor: rand.Text(),
		posts: make(map[string][]time.Time), conns: make(map[net.Conn]bool),
	}
	s.changed = sync.NewCond(&s.mu)
	listener, err := s.listen()
	if err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ConnState:         s.connState,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // cut connections are what it is for
	}
	if !cfg.HTTP2 {
		s.http.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(listener) // ends with ErrServerClosed
	}()
	return s, nil
}

func (c *Config) setDefaults() (err error) {
	c.Addr = cmp.Or(c.Addr, "127.0.0.1:0")
	c.Refusal = cmp.Or(c.Refusal, http.StatusForbidden)
	c.Conflict = cmp.Or(c.Conflict, http.StatusConflict)
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	for _, list := range []struct {
		names *[]string
		usual string
	}{
		{&c.Groups, "CBC Burst Detchar External Test"},
		{&c.Pipelines, "gstlal pycbc MBTA spiir aframe MLy CWB CWB2G oLIB Fermi Swift SNEWS HardwareInjection X"},
		{&c.Searches, "AllSky LowMass HighMass GRB MDC BBH IMBH EarlyWarning SSM"},
		{&c.Labels, "INJ DQV EM_READY ADVOK ADVNO PASTRO_READY SKYMAP_READY SNR_OPTIMIZED 2022_LENSING_MDC"},
		{&c.Protected, "ADVOK ADVNO"},
	} {
		if *list.names == nil {
			*list.names = strings.Fields(list.usual)
		}
	}
	if c.Authority == nil {
		if c.Authority, err = testauth.NewAuthority(); err != nil {
			return fmt.Errorf("gracetest: %w", err)
		}
	}
	if c.Issuer == nil {
		if c.Issuer, err = testauth.NewIssuer("https://issuer.test"); err != nil {
			return fmt.Errorf("gracetest: %w", err)
		}
	}
	if c.Check == nil {
		c.Check = func(token string) (string, []string, error) {
			claims, err := c.Issuer.Verify(token)
			return claims.Subject, strings.Fields(claims.Scope), err
		}
	}
	return nil
}

func (s *Server) listen() (net.Listener, error) {
	var l net.Listener
	scheme, host := "https", s.cfg.Hosts[0]
	if s.cfg.Virtual {
		s.pipe = &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		l = s.pipe
	} else {
		var err error
		if l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", s.cfg.Addr); err != nil {
			return nil, fmt.Errorf("gracetest: %w", err)
		}
		host = l.Addr().String()
	}
	if s.cfg.Plain {
		scheme = "http"
	} else {
		certificate, err := s.cfg.Authority.Certificate(s.cfg.Hosts...)
		if err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("gracetest: %w", err)
		}
		t := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
		if s.cfg.HTTP2 {
			t.NextProtos = []string{"h2", "http/1.1"}
		}
		l = tls.NewListener(l, t)
	}
	s.url = scheme + "://" + host + "/api/"
	return l, nil
}

// Close cuts all connections and waits until nothing runs any more.
func (s *Server) Close() {
	s.closed.Do(func() { close(s.closing) })
	_ = s.http.Close()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) > 0 {
		s.changed.Wait()
	}
}

// CloseIdle closes all connections once nothing happens on them, as a server does
// in time, and waits for that.
func (s *Server) CloseIdle() {
	s.http.SetKeepAlivesEnabled(false)
	defer s.http.SetKeepAlivesEnabled(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) > 0 {
		s.changed.Wait()
	}
}

// connState is the server's ConnState.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns[c] = true
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
	}
	s.changed.Broadcast()
}

// URL returns the service URL, with a trailing slash.
func (s *Server) URL() string { return s.url }

// PEM returns the certificate of the authority to trust.
func (s *Server) PEM() []byte { return s.cfg.Authority.PEM() }

// Issuer returns whose tokens are good.
func (s *Server) Issuer() *testauth.Issuer { return s.cfg.Issuer }

// Token returns a token of the server's issuer.
func (s *Server) Token(c testauth.Claims) (string, error) { return s.cfg.Issuer.Token(c) }

// Dial connects to a virtual server, whatever the address.
func (s *Server) Dial(ctx context.Context, _, _ string) (net.Conn, error) { return s.pipe.dial(ctx) }

// HTTPClient returns a client that trusts the server, and reaches it if it is a
// virtual one. Its connections are its own: close them with CloseIdleConnections.
func (s *Server) HTTPClient() *http.Client {
	t := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: s.cfg.Authority.Pool(), MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 64,
		ForceAttemptHTTP2:   s.cfg.HTTP2,
	}
	if s.pipe != nil {
		t.DialContext = s.Dial
	}
	return &http.Client{Transport: t, Timeout: time.Minute}
}

// A pipeListener is a listener in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var errClosed = errors.New("gracetest: the server is closed")

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: l.Addr(), Err: errClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, errClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "gracetest" }
