package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A node is where one broker is reached: a socket, or an address of the virtual
// network, that can be closed and opened again while kfake behind it goes on.
type node struct {
	c  *Cluster
	id int32

	mu         sync.Mutex
	port       int
	advertised string       // what metadata says instead of localhost:port; guarded by mu
	up         bool         // connections are accepted; guarded by mu
	removed    bool         // kfake has no such broker just now; guarded by mu
	socket     net.Listener // nil if virtual or not up; guarded by mu
	broker     *listener    // what kfake accepts from; guarded by mu
	mute       Mute
	frozen     chan struct{}      // closed by Thaw; nil if not frozen; guarded by mu
	conns      map[*conn]struct{} // guarded by mu
}

// A listener is a broker's end of a node.
type listener struct {
	n      *node
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept returns the next connection: from a client, or from inside.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is kfake's: the broker is gone.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.n.shut()
	})
	return nil
}

// Addr is what kfake advertises in metadata.
func (l *listener) Addr() net.Addr {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.advertised != "" {
		return address(l.n.advertised)
	}
	return address(localhost(l.n.port))
}

// hostport is what it advertises, in two.
func (l *listener) hostport() (string, int32) {
	host, text, _ := net.SplitHostPort(l.Addr().String())
	port, _ := strconv.Atoi(text)
	return host, int32(port)
}

// hand gives a connection to the broker.
func (l *listener) hand(ctx context.Context, conn net.Conn) error {
	select {
	case l.conns <- conn:
		return nil
	case <-l.closed:
		return syscall.ECONNREFUSED
	case <-ctx.Done():
		return ctx.Err()
	}
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func localhost(port int) string { return net.JoinHostPort("localhost", strconv.Itoa(port)) }

func (n *node) addr() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return localhost(n.port)
}

func (n *node) hasPort(port int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.port == port
}

// listen is called when kfake starts the broker.
func (n *node) listen() (*listener, error) {
	l := &listener{n: n, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.broker = l
	port, socket := n.port, n.socket
	n.mu.Unlock()
	if socket != nil {
		go n.serve(socket)
		return l, nil
	}
	return l, n.open(port)
}

// open begins to accept connections on port, or on any that is free if it is 0.
func (n *node) open(port int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.up {
		return nil
	}
	if n.c.cfg.Virtual {
		if n.port = port; port == 0 {
			n.port = 9092 + int(n.id)
		}
		n.up = true
		return nil
	}
	socket, err := bind(port)
	if err != nil {
		return err
	}
	n.socket, n.up = socket, true
	n.port = socket.Addr().(*net.TCPAddr).Port
	if n.broker != nil {
		go n.serve(socket)
	}
	return nil
}

// bind listens on port, or on one below those that the kernel gives to clients,
// so that a broker that was stopped finds its port free when it starts again.
func bind(port int) (net.Listener, error) {
	var lc net.ListenConfig
	var err error
	for range 100 {
		p := port
		if p == 0 {
			p = 18000 + rand.IntN(14000)
		}
		var l net.Listener
		l, err = lc.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err == nil {
			return l, nil
		}
		if port != 0 {
			time.Sleep(20 * time.Millisecond) // whoever has it for the moment
		}
	}
	return nil, fmt.Errorf("no port to listen on: %w", err)
}

// serve hands the socket's connections to the broker.
func (n *node) serve(socket net.Listener) {
	for {
		raw, err := socket.Accept()
		if err != nil {
			return
		}
		n.mu.Lock()
		l := n.broker
		n.mu.Unlock()
		conn := n.connect(raw)
		if err := l.hand(context.Background(), conn); err != nil {
			conn.cut(RST)
		}
	}
}

// shut stops accepting connections: the next client is refused.
func (n *node) shut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.up = false; n.socket != nil {
		_ = n.socket.Close()
		n.socket = nil
	}
}

func (n *node) close() {
	n.mu.Lock()
	l := n.broker
	n.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	n.shut()
}

// thaw returns a channel that is closed when the node is not frozen any more, or
// nil if it is not frozen.
func (n *node) thaw() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frozen
}

func (n *node) muted(m Mute) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mute&m != 0
}

// Dial connects to a broker. It must be used if the network is virtual, and may be
// if it is not.
func (c *Cluster) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if !c.cfg.Virtual {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	conn, err := c.dialVirtual(ctx, addr)
	if errors.Is(err, syscall.ECONNREFUSED) {
		err = os.NewSyscallError("connect", err) // as package net has it
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: address(addr), Err: err}
	}
	return conn, nil
}

func (c *Cluster) dialVirtual(ctx context.Context, addr string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host != "localhost" && host != "127.0.0.1" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		n.mu.Lock()
		ours, l := n.up && n.port == port, n.broker
		n.mu.Unlock()
		if !ours || l == nil {
			continue
		}
		server, client := net.Pipe()
		far := &virtualConn{Conn: client, reset: new(atomic.Bool)}
		conn := n.connect(&virtualConn{Conn: server, reset: far.reset})
		if err := l.hand(ctx, conn); err != nil {
			conn.cut(FIN)
			return nil, err
		}
		return far, nil
	}
	return nil, syscall.ECONNREFUSED
}

// A virtualConn is one end of a pipe. A reset shows at both, as on a real network.
type virtualConn struct {
	net.Conn
	reset *atomic.Bool
}

func (v *virtualConn) Read(p []byte) (int, error) {
	n, err := v.Conn.Read(p)
	return n, v.explain("read", err)
}

func (v *virtualConn) Write(p []byte) (int, error) {
	n, err := v.Conn.Write(p)
	return n, v.explain("write", err)
}

func (v *virtualConn) explain(op string, err error) error {
	if err != nil && v.reset.Load() {
		return &net.OpError{Op: op, Net: "tcp", Err: syscall.ECONNRESET}
	}
	return err
}
