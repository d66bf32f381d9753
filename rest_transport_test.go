package gracedb_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

// What another package has made of http.DefaultTransport does not decide to whom the
// token is shown.
func TestDefaultTransportIsNotInherited(t *testing.T) {
	var seen atomic.Bool
	srv := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization") != "")
	}))
	t.Cleanup(srv.Close)
	before := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = before })
	careless := before.(*http.Transport).Clone()
	careless.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	for name, transport := range map[string]http.RoundTripper{"a transport": careless, "something else": roundTripper(careless.RoundTrip)} {
		http.DefaultTransport = transport // as careless packages do
		c := newClient(t, gracedb.ClientConfig{ServiceURL: srv.URL + "/api/", Token: tokenIs("a.b.c"), Retries: -1})
		if _, err := c.ServiceInfo(t.Context()); !errors.Is(err, gracedb.ErrConnection) || seen.Load() {
			t.Errorf("%s: token seen: %v; %v", name, seen.Load(), err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A call that ends takes its connection with it, as it does with HTTP/1.
func TestOwnTransportSpeaksHTTP1(t *testing.T) {
	proto := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto <- r.Proto
		http.Error(w, "no", http.StatusBadRequest)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, gracedb.ClientConfig{ServiceURL: srv.URL + "/api/", CAFile: file, Token: tokenIs("a.b.c"), Retries: -1})
	_, err := c.ServiceInfo(t.Context())
	select {
	case got := <-proto:
		if got != "HTTP/1.1" {
			t.Errorf("the request is %s", got)
		}
	default:
		t.Errorf("no request: %v", err)
	}
}

// A call that ends by its ctx ends the connection, however much the server has to say.
func TestEndedCallEndsItsConnection(t *testing.T) {
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		w.WriteHeader(http.StatusOK)
		for http.NewResponseController(w).Flush() == nil {
			if _, err := w.Write([]byte(" ")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, gracedb.ClientConfig{ServiceURL: srv.URL + "/api/", Token: tokenIs("a.b.c"), Retries: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.ServiceInfo(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("not the ctx's: %v", err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the connection works on")
	}
}

// An answer is read as it comes, and bounded so, too: what inflates to nothing could go
// on for ever.
func TestAnswersAreBoundedOnTheWire(t *testing.T) {
	pack := func(s string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const most = 300 << 20
	var wrote atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		if strings.HasPrefix(r.URL.Path, "/good/") {
			_, _ = w.Write(pack(`{"groups": ["Test"], "pipelines": ["gstlal"], "links": {}, "templates": {}}`))
			return
		}
		if strings.HasPrefix(r.URL.Path, "/bad/") {
			w.WriteHeader(http.StatusBadRequest)
		}
		nothing := bytes.Repeat(pack(""), 1000)
		for wrote.Store(0); wrote.Load() < most; wrote.Add(int64(len(nothing))) {
			if _, err := w.Write(nothing); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	for _, tt := range []struct {
		path, want string
		limit      int64
	}{
		{"/good/", "", most},
		{"/bad/", "400 Bad Request", 64 << 10},
		{"/endless/", "more than 33554432 bytes", 32 << 20},
	} {
		wrote.Store(0)
		c := newClient(t, gracedb.ClientConfig{ServiceURL: srv.URL + tt.path, Token: tokenIs("a.b.c"), Retries: -1})
		_, err := c.ServiceInfo(t.Context())
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.path, err, tt.want)
		}
		const buffers = 32 << 20 // of sockets
		if got := wrote.Load(); got > tt.limit+buffers {
			t.Errorf("%s: %d bytes were read", tt.path, got)
		}
	}
}

// A request that has a short body goes out in one write: in two the server would begin with
// the first and wait for the other.
func TestReservationIsOneWrite(t *testing.T) {
	s := newService(t, gracetest.Config{Plain: true}, nil)
	var writes atomic.Int32
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedWrites{conn, &writes}, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	c := newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), HTTP: &http.Client{Transport: transport}, Token: tokenIs(s.Bearer)})
	for range 2 { // the first fetches the root document, too
		writes.Store(0)
		if _, err := c.Reserve(t.Context(), event()); err != nil {
			t.Fatal(err)
		}
	}
	if n := writes.Load(); n != 1 {
		t.Errorf("a reservation was sent in %d writes, want 1", n)
	}
}

type countedWrites struct {
	net.Conn
	n *atomic.Int32
}

func (c countedWrites) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(b)
}

// A creation is never sent on a connection that may be about to be closed as idle;
// what may be repeated is.
func TestIdleConnections(t *testing.T) {
	for _, tt := range []struct {
		kind  string
		idle  time.Duration
		conns int64
	}{
		{"create", 3 * time.Second, 1},
		{"create", 3*time.Second + time.Millisecond, 2},
		{"create", time.Minute, 2},
		{"reserve", time.Minute, 1},
		{"upload", time.Minute, 1},
	} {
		t.Run(tt.kind+"/"+tt.idle.String(), func(t *testing.T) {
			var dialed atomic.Int64
			inBubble(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { countDials(c.HTTP, &dialed) }, func(t *testing.T, s *service) {
				if err := s.Call(t.Context(), "root"); err != nil {
					t.Fatal(err)
				}
				for i := range int64(3) {
					time.Sleep(tt.idle)
					if err := s.Call(t.Context(), tt.kind); err != nil {
						t.Fatal(err)
					}
					if want := 1 + (tt.conns-1)*(i+1); dialed.Load() != want {
						t.Errorf("%d connections after %d calls, want %d", dialed.Load(), i+1, want)
					}
				}
				if n := s.Count(tt.kind); n != 3 {
					t.Errorf("%d requests, want 3", n)
				}
			})
		})
	}
}

// Of several connections, those that have been idle for long are passed over one by one.
func TestIdleConnectionsOfABurst(t *testing.T) {
	var dialed atomic.Int64
	inBubble(t, gracetest.Config{Work: time.Second}, func(c *gracedb.ClientConfig) { countDials(c.HTTP, &dialed) }, func(t *testing.T, s *service) {
		burst := func(n int) {
			done := make(chan error, n)
			for range n {
				go func() { done <- s.Call(t.Context(), "create") }()
			}
			for range n {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		burst(8)
		if n := dialed.Load(); n != 8 {
			t.Fatalf("%d connections", n)
		}
		for range 5 { // one of them stays in use
			time.Sleep(time.Second)
			burst(1)
		}
		if n := dialed.Load(); n != 8 {
			t.Errorf("%d connections after calls one by one, want no more", n)
		}
		burst(8)
		if n := dialed.Load(); n != 8+7 {
			t.Errorf("%d connections in all, want 15: one was good still", n)
		}
		if n := len(s.Events()); n != 21 {
			t.Errorf("%d events, want 21", n)
		}
	})
}

// The same over TLS, and where requests share a connection.
func TestIdleConnectionsOverTLS(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var dialed atomic.Int64
			s := newService(t, gracetest.Config{Virtual: true, HTTP2: http2}, func(c *gracedb.ClientConfig) { countDials(c.HTTP, &dialed) })
			for i, step := range []struct {
				kind  string
				idle  time.Duration
				conns int64
			}{
				{"create", 0, 1},
				{"reserve", 4 * time.Second, 1},
				{"create", 2 * time.Second, 1},
				{"create", 4 * time.Second, 2},
			} {
				time.Sleep(step.idle)
				if err := s.Call(t.Context(), step.kind); err != nil || dialed.Load() != step.conns {
					t.Errorf("HTTP/2 %v, step %d: %v, %d connections, want %d", http2, i, err, dialed.Load(), step.conns)
				}
			}
			if n := s.Count("create"); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

func countDials(h *http.Client, n *atomic.Int64) {
	transport := h.Transport.(*http.Transport)
	dial := transport.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		n.Add(1)
		return dial(ctx, network, address)
	}
}
