package gracedbapi

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// A requestTrace knows how far one try of a request got. net/http calls its hooks, on
// goroutines of the transport's own, too.
type requestTrace struct {
	once bool // the request is not to be sent twice

	connected  atomic.Bool // there is a connection for it
	stale      atomic.Bool // which had been idle, and is not shared with other requests
	http2      atomic.Bool // which is shared with other requests
	incomplete atomic.Bool // the transport could not write the whole request
}

// longIdle is how long a connection may have been idle that carries a request which
// is not to be sent twice. Apache in front of GraceDB closes connections that have
// been idle for 5 seconds; a request that crosses this on its way ends in a reset,
// and nobody knows what became of it.
const longIdle = 3 * time.Second

func (r *requestTrace) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		// The transport asks for another connection only after writing nothing to
		// the first.
		GetConn: func(string) { r.connected.Store(false) },
		GotConn: func(c httptrace.GotConnInfo) {
			shared := isHTTP2(c.Conn)
			if r.once && !shared && c.WasIdle && c.IdleTime > longIdle {
				// The transport then finds that nothing can be written to it, and takes
				// the next connection, or makes one.
				closeSilently(c.Conn)
			}
			r.connected.Store(true)
			r.stale.Store(c.WasIdle && !shared)
			r.http2.Store(shared)
		},
		WroteRequest: func(w httptrace.WroteRequestInfo) { r.incomplete.Store(w.Err != nil) },
	}
}

// mayHaveArrived reports whether the server may have acted on the request: not before
// there was a connection, nor if that was an idle one that turned out to be dead before
// it had taken the whole request.
func (r *requestTrace) mayHaveArrived() bool {
	return r.connected.Load() && !(r.stale.Load() && r.incomplete.Load())
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

// A sharedConn knows when HTTP/2 was last spoken. A request that is not to be sent twice
// must not meet a connection that has been idle for longIdle. One of HTTP/2 is not closed
// when it turns out to be old, as hooks does, since other requests may be on it by then:
// the transport's idle connections are closed before the request is sent.
type sharedConn struct{ last atomic.Pointer[time.Time] }

func (s *sharedConn) used(r *requestTrace) {
	if r.http2.Load() {
		now := time.Now()
		s.last.Store(&now)
	}
}

func (s *sharedConn) isOld() bool {
	last := s.last.Load()
	return last != nil && time.Since(*last) > longIdle
}
