// Package shape is a proxy that makes connections on this machine as slow as those
// of another network: round trip, rate, and above all TCP's window, which opens from
// 14.6 kB, twofold each round trip, whenever a connection has been quiet.
package shape

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// A Proxy carries connections to one address through a Link. Its methods are safe
// for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	sleep    func(time.Duration)
	running  sync.WaitGroup

	mu    sync.Mutex
	link  Link
	conns map[*conn]struct{}
	up    int64 // bytes of connections that have ended
	down  int64
}

// A conn is a connection, in two directions.
type conn struct {
	near, far net.Conn // the client's and the server's end
	up, down  flow
}

// Listen starts a Proxy to target on a port of its own. Its Link is the zero Link.
func Listen(ctx context.Context, target string) (*Proxy, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("shape: %w", err)
	}
	p := &Proxy{listener: l, target: target, sleep: sleep, conns: make(map[*conn]struct{})}
	p.running.Go(p.accept)
	return p, nil
}

// Addr returns where the Proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Target changes where connections to come are carried.
func (p *Proxy) Target(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Dial is a Dial function that ignores addr and connects to the Proxy.
func (p *Proxy) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, p.Addr())
}

// Set changes the link, also for the connections that there are.
func (p *Proxy) Set(l Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = l
	for c := range p.conns {
		c.up.set(l)
		c.down.set(l)
	}
}

// Idle makes every window as small as it is after a time of quiet.
func (p *Proxy) Idle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.up.idle()
		c.down.idle()
	}
}

// Bytes returns what has been sent by clients and by the server.
func (p *Proxy) Bytes() (up, down int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	up, down = p.up, p.down
	for c := range p.conns {
		up, down = up+c.up.bytes(), down+c.down.bytes()
	}
	return up, down
}

// Close ends all connections.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.close()
	}
	p.mu.Unlock()
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		far, err := net.DialTimeout("tcp", target, 10*time.Second) //nolint:noctx // Close ends it soon enough
		if err != nil {
			_ = near.Close()
			continue
		}
		p.running.Go(func() { p.carry(near, far) })
	}
}

// carry connects near with far until one of them ends.
func (p *Proxy) carry(near, far net.Conn) {
	c := &conn{near: near, far: far}
	p.mu.Lock()
	c.up.link, c.down.link = p.link, p.link
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	p.sleep(c.up.link.RoundTrip) // SYN and its answer

	var both sync.WaitGroup
	both.Go(func() { c.direction(far, near, &c.up, p.sleep) })
	both.Go(func() { c.direction(near, far, &c.down, p.sleep) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	p.up, p.down = p.up+c.up.sent, p.down+c.down.sent
}

func (c *conn) close() {
	_ = c.near.Close()
	_ = c.far.Close()
}

// A piece is a segment on its way.
type piece struct {
	data []byte
	at   time.Time // of arrival
}

// sendBuffer is how many segments may wait in the sender's socket: 6 MB.
const sendBuffer = 4096

// direction brings what src says to dst by the clock of f.
func (c *conn) direction(dst, src net.Conn, f *flow, sleep func(time.Duration)) {
	pieces := make(chan piece, sendBuffer)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(pieces)
		for {
			buf := make([]byte, 64<<10)
			n, err := src.Read(buf)
			now := time.Now()
			for b := buf[:n]; len(b) > 0; {
				size, at := f.schedule(now, len(b))
				pieces <- piece{b[:size], at}
				b = b[size:]
			}
			if err != nil {
				return
			}
		}
	})
	var due []byte
	for next, ok := <-pieces; ok; {
		if wait := time.Until(next.at); wait > 0 {
			sleep(wait)
		}
		now := time.Now()
		due = due[:0]
		for more := true; more; { // in one write, all that has arrived
			due = append(due, next.data...)
			select {
			case next, ok = <-pieces:
				more = ok && !next.at.After(now)
			default:
				more = false
				next.data = nil
			}
		}
		if _, err := dst.Write(due); err != nil {
			break
		}
		if ok && next.data == nil {
			next, ok = <-pieces
		}
	}
	c.close()
	for range pieces { // lets the reader end
	}
	reader.Wait()
}
