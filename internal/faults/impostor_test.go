package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
)

// An impostor is who answers in a broker's place: it shakes hands, or does what
// else it wants with the connection, and notes all that it hears.
type impostor struct {
	tls   *tls.Config             // what it shakes hands with
	speak func(net.Conn) net.Conn // instead of TLS; returns what is left to listen to, or nil

	mu    sync.Mutex
	dials int
	raw   bytes.Buffer // all that the client has written
	plain bytes.Buffer // what of it came behind the handshake
}

// Dial connects to the impostor, whatever the address.
func (i *impostor) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	i.mu.Lock()
	i.dials++
	i.mu.Unlock()
	through := shape{dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go i.serve(overheard{far, i})
		return near, nil
	}}
	return through.Dial(ctx, network, addr) // which has buffers: both may write at a time
}

func (i *impostor) serve(conn net.Conn) {
	defer conn.Close()
	if i.speak != nil {
		if conn = i.speak(conn); conn == nil {
			return
		}
	} else {
		secure := tls.Server(conn, i.tls)
		if err := secure.Handshake(); err != nil {
			return // and nothing that follows can be read
		}
		conn = secure
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		i.mu.Lock()
		i.plain.Write(buf[:n])
		i.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// An overheard connection notes what is read from it.
type overheard struct {
	net.Conn
	by *impostor
}

func (o overheard) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	o.by.mu.Lock()
	defer o.by.mu.Unlock()
	o.by.raw.Write(p[:n])
	return n, err
}

// wantNothing checks that somebody connected, and said nothing but TLS handshakes
// and alerts.
func (i *impostor) wantNothing(t testing.TB) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dials == 0 {
		t.Error("nobody connected: the fault did not happen")
	}
	if i.plain.Len() > 0 && i.tls != nil {
		t.Errorf("%d bytes behind the handshake: %.60q", i.plain.Len(), i.plain.Bytes())
	}
	if heard := i.raw.Bytes(); len(heard) > 0 && heard[0] != 22 { // a record of the handshake
		t.Errorf("the impostor has heard %.60q", heard)
	}
	for _, secret := range []string{"OAUTHBEARER", "auth=Bearer", "gracedb-go"} {
		if bytes.Contains(i.raw.Bytes(), []byte(secret)) {
			t.Errorf("the impostor has heard %q", secret)
		}
	}
}
