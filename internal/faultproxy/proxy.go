// Package faultproxy stands between a Kafka client and its brokers, and knows the
// frames that pass: it can lose, cut or hold the third Produce request, or the
// answer to it, as well as all that a network can do to bytes. Both sides speak
// TLS, which it ends with a certificate of the test's authority.
package faultproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A Proxy is a way to all brokers of a cluster, for the clients that use its Dial.
// It is safe for concurrent use.
type Proxy struct {
	server, client *tls.Config

	mu        sync.Mutex
	listeners map[string]net.Listener // by the broker's address
	conns     map[*conn]struct{}
	faults    []*Injected
	shape     Shape
	gate      chan struct{} // closed while bytes flow
	requests  map[kmsg.Key]int
	closed    bool
	wg        sync.WaitGroup
}

// A Shape is what a slow line does to the bytes of each direction of a connection.
type Shape struct {
	Latency   time.Duration
	PerSecond int // bytes; if zero, any number
	Chunk     int // bytes that arrive at once; if zero, any number
}

// New returns a Proxy whose certificate, and whose trust in the brokers', is the
// authority's.
func New(authority *testauth.Authority) (*Proxy, error) {
	cert, err := authority.Certificate("localhost", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	open := make(chan struct{})
	close(open)
	return &Proxy{
		server:    &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}},
		client:    &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: authority.Pool(), ServerName: "localhost"},
		listeners: make(map[string]net.Listener),
		conns:     make(map[*conn]struct{}),
		gate:      open,
		requests:  make(map[kmsg.Key]int),
	}, nil
}

var errClosed = errors.New("faultproxy: closed")

// Dial is for gracedb.Cluster.Dial and kgo.Dialer under TLS. If the broker
// cannot be reached the connection is made and reset, as by any proxy.
func (p *Proxy) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	l, err := p.listen(ctx, address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
}

func (p *Proxy) listen(ctx context.Context, broker string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if l := p.listeners[broker]; l != nil {
		return l, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p.listeners[broker] = l
	p.wg.Go(func() { p.accept(l, broker) })
	return l, nil
}

func (p *Proxy) accept(l net.Listener, broker string) {
	for {
		raw, err := l.Accept()
		if err != nil {
			return
		}
		c := &conn{p: p, broker: broker, raw: raw.(*net.TCPConn), ended: make(chan struct{}), keys: make(map[int32]kmsg.Key)}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			_ = raw.Close()
			return
		}
		p.conns[c] = struct{}{}
		p.wg.Go(c.run)
		p.mu.Unlock()
	}
}

// CutAll resets every connection, and returns how many there were.
func (p *Proxy) CutAll() int {
	p.mu.Lock()
	conns := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.end(false)
	}
	return len(conns)
}

// Freeze stops all bytes, also of connections that are made from now on, until
// Thaw: nobody is told.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		p.gate = make(chan struct{})
	default:
	}
}

// Thaw ends Freeze.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// SetShape makes all connections behave so from now on; the zero Shape is none.
func (p *Proxy) SetShape(s Shape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shape = s
}

// Requests returns how many requests of a kind have come from clients.
func (p *Proxy) Requests(key kmsg.Key) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[key]
}

// Close ends all connections and waits for what serves them.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	for _, l := range p.listeners {
		_ = l.Close()
	}
	p.mu.Unlock()
	p.CutAll()
	p.wg.Wait()
}

func (p *Proxy) flow() (gate <-chan struct{}, shape Shape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate, p.shape
}
