package gracedb_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

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
