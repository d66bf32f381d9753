package gracedb

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// A wire knows how far a request got on its way.
type wire struct{ connected, stale, incomplete atomic.Bool }

func (w *wire) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		// The transport asks for another connection only after writing nothing to
		// the first.
		GetConn: func(string) { w.connected.Store(false) },
		GotConn: func(c httptrace.GotConnInfo) {
			w.connected.Store(true)
			w.stale.Store(c.WasIdle && !isHTTP2(c.Conn))
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

// reached reports whether the server may have acted on the request: not before
// there was a connection, nor if that was an idle one that turned out to be dead
// before it had taken the whole request.
func (w *wire) reached() bool {
	return w.connected.Load() && !(w.stale.Load() && w.incomplete.Load())
}
