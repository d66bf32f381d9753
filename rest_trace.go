package gracedb

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// A wire knows how far a request got on its way.
type wire struct {
	once                                bool // the request is not to be sent twice
	connected, stale, incomplete, http2 atomic.Bool
}

// longIdle is how long a connection may have been idle that carries a request which
// is not to be sent twice. Apache in front of GraceDB closes connections that have
// been idle for 5 seconds; a request that crosses this on its way ends in a reset,
// and nobody knows what became of it.
const longIdle = 3 * time.Second

func (w *wire) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		// The transport asks for another connection only after writing nothing to
		// the first.
		GetConn: func(string) { w.connected.Store(false) },
		GotConn: func(c httptrace.GotConnInfo) {
			shared := isHTTP2(c.Conn)
			if w.once && !shared && c.WasIdle && c.IdleTime > longIdle {
				// The transport then finds that nothing can be written to it, and takes
				// the next connection, or makes one.
				closeSilently(c.Conn)
			}
			w.connected.Store(true)
			w.stale.Store(c.WasIdle && !shared)
			w.http2.Store(shared)
		},
		WroteRequest: func(r httptrace.WroteRequestInfo) { w.incomplete.Store(r.Err != nil) },
	}
}

// isHTTP2 reports whether requests share the connection, so that one of them may
// fail for a reason of its own.
func isHTTP2(c net.Conn) bool {
	t, ok := c.(*tls.Conn)
	return ok && t.ConnectionState().NegotiatedProtocol == "h2"
}

// closeSilently closes c without TLS's goodbye, which may block.
func closeSilently(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.Close()
}

// A sharedConn knows when HTTP/2 was last spoken. Closing such a connection as soon
// as it is found too old would hit others' requests: it is done before.
type sharedConn struct{ last atomic.Pointer[time.Time] }

func (s *sharedConn) used(w *wire) {
	if w.http2.Load() {
		now := time.Now()
		s.last.Store(&now)
	}
}

func (s *sharedConn) isOld() bool {
	last := s.last.Load()
	return last != nil && time.Since(*last) > longIdle
}

// reached reports whether the server may have acted on the request: not before
// there was a connection, nor if that was an idle one that turned out to be dead
// before it had taken the whole request.
func (w *wire) reached() bool {
	return w.connected.Load() && !(w.stale.Load() && w.incomplete.Load())
}
