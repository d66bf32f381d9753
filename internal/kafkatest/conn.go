package kafkatest

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A conn is a client's connection as kfake sees it: kfake reads whole requests
// from it and writes whole responses to it, and conn answers in its place what
// kfake cannot, holds both to what the session allows, and does the faults.
//
// As in Kafka, a connection has one request in work: the next is looked at when
// the answer to the one before has been sent.
type conn struct {
	net.Conn // frames: TLS, or the wire itself
	wire     *wire
	n        *node
	id       int64
	opened   time.Time

	in      []byte        // what kfake has still to read of the current request
	free    chan struct{} // holds one token unless a request is in work
	current *request      // in work; belongs to whoever has the token

	mu        sync.Mutex
	session   session
	requests  map[kmsg.Key]int
	lostIn    bool      // a request was swallowed, so none may arrive any more
	lostOut   bool      // a response was swallowed, so none may be sent any more
	throttled time.Time // no request is read before

	joining bool // the latest request is a JoinGroup; of whoever reads

	done   chan struct{} // the client has gone, or is cut off
	once   sync.Once
	closed chan struct{} // kfake has gone
	ended  sync.Once
}

// connect wraps a connection that a client has opened.
func (n *node) connect(raw net.Conn) *conn {
	w := &wire{Conn: raw, n: n, done: make(chan struct{})}
	c := &conn{
		Conn: w, wire: w, n: n, id: n.c.counts.opened.Add(1), opened: time.Now(),
		free: make(chan struct{}, 1), done: make(chan struct{}), requests: map[kmsg.Key]int{},
		closed: make(chan struct{}),
	}
	if n.c.tls != nil {
		c.Conn = tls.Server(w, n.c.tls)
	}
	c.free <- struct{}{}
	n.mu.Lock()
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	return c
}

// Close ends the connection properly.
func (c *conn) Close() error {
	c.release()
	c.ended.Do(func() { close(c.closed) })
	c.wire.closing.Store(true)
	err := c.Conn.Close()
	_ = c.wire.Close()
	return err
}

// A Cut is how a connection is torn down.
type Cut int

// The ways to tear down a connection: as if the process had ended, or as if the
// machine had restarted.
const (
	FIN Cut = iota
	RST
)

// cut ends the connection without a word of TLS.
func (c *conn) cut(how Cut) {
	c.release()
	if how == RST {
		switch raw := c.wire.Conn.(type) {
		case *net.TCPConn:
			_ = raw.SetLinger(0)
		case *virtualConn:
			raw.reset.Store(true)
		}
	}
	_ = c.wire.Close()
}

func (c *conn) release() {
	c.once.Do(func() {
		close(c.done)
		c.n.mu.Lock()
		delete(c.n.conns, c)
		c.n.mu.Unlock()
		c.n.c.counts.closed(c)
	})
}

// The largest frames that Kafka reads: sasl.server.max.receive.size before
// somebody has authenticated, socket.request.max.bytes after it.
const (
	maxFirstFrame = 512 << 10
	maxFrame      = 100 << 20
)

// Read gives kfake the next request that it is to see.
func (c *conn) Read(p []byte) (int, error) {
	for len(c.in) == 0 {
		frame, err := c.readFrame()
		if err != nil {
			c.finishJoin()
			return 0, err
		}
		select {
		case <-c.free:
		case <-c.done:
			return 0, net.ErrClosed
		}
		if err := c.request(frame); err != nil {
			_ = c.Close()
			return 0, err
		}
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// finishJoin waits until a JoinGroup in work is answered. In Kafka the session of a
// member that is gone by then times out; kfake begins to count only if there is
// somebody to answer, and else waits for that member at each rebalance.
func (c *conn) finishJoin() {
	if !c.joining {
		return
	}
	c.release()
	select {
	case <-c.free:
	case <-c.closed:
	}
}

// mindJoin cuts the connection of a member that kfake has dropped while its JoinGroup
// was in work: its session has ended, which Kafka does not look at meanwhile, and kfake
// never answers.
func (c *conn) mindJoin(r *request) {
	req, err := r.decode()
	if err != nil {
		return
	}
	join := req.(*kmsg.JoinGroupRequest)
	for join.MemberID != "" && c.wait(joinPoll) == nil && !r.answered.Load() {
		g := c.n.c.groupInfo(join.Group)
		if g == nil || !slices.ContainsFunc(g.Members, func(m kfake.GroupMember) bool { return m.MemberID == join.MemberID }) {
			c.cut(FIN)
		}
	}
}

// joinPoll is how often a group is looked at that a member wants to join.
const joinPoll = time.Second

// awaitLeader holds a SyncGroup that kfake could not answer yet, because the leader of
// the group has not said who gets what. kfake counts a member that asks to join again,
// or whose session ends, wrongly while it has a SyncGroup of that member in work, and
// then waits for members that are all there until the time to rebalance is over.
func (c *conn) awaitLeader(r *request) error {
	if kmsg.Key(r.key) != kmsg.SyncGroup {
		return nil
	}
	req, err := r.decode()
	if err != nil {
		return err
	}
	sync := req.(*kmsg.SyncGroupRequest)
	for len(sync.GroupAssignment) == 0 {
		g := c.n.c.groupInfo(sync.Group)
		if g == nil || g.State != "CompletingRebalance" || g.Epoch != sync.Generation {
			break
		}
		if err := c.wait(syncPoll); err != nil {
			return err
		}
	}
	return nil
}

// syncPoll is how often a group is looked at whose leader is waited for.
const syncPoll = 5 * time.Millisecond

func (c *conn) readFrame() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return nil, err
	}
	limit := uint32(maxFrame)
	if c.state().subject == "" {
		limit = maxFirstFrame
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > limit {
		_ = c.Close()
		return nil, fmt.Errorf("kafkatest: request of %d bytes, limit %d", size, limit)
	}
	frame := make([]byte, 4+size)
	copy(frame, head[:])
	_, err := io.ReadFull(c.Conn, frame[4:])
	return frame, err
}

// request looks at one request and puts into c.in what kfake is to see of it. It
// holds the token, and gives it back unless kfake is to answer.
func (c *conn) request(frame []byte) error {
	r, err := parse(frame)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.requests[kmsg.Key(r.key)]++
	throttled, lost := c.throttled, c.lostIn
	c.mu.Unlock()
	c.n.c.counts.request(r.key)
	c.joining = kmsg.Key(r.key) == kmsg.JoinGroup
	if err := c.wait(time.Until(throttled)); err != nil {
		return err
	}
	if lost || c.n.muted(MuteRequests) {
		return c.lose()
	}
	r.fault = c.n.c.faults.take(c, r)
	switch r.fault.action() {
	case CutRequest:
		c.cut(r.fault.fault.How)
		return net.ErrClosed
	case DropRequest:
		return c.lose()
	}
	if r.namesNoBatch() {
		return c.lose() // as Kafka 4.3.1, which answers nothing more on the connection
	}
	r.ends = c.n.c.epochEnds(r)
	if err := c.awaitLeader(r); err != nil {
		return err
	}
	forward, err := c.admit(r)
	if err != nil {
		return err
	}
	if forward != nil && r.fault.action() == HoldRequest {
		if err := c.n.c.pause(r.fault.fault.Delay); err != nil {
			return err
		}
	}
	if forward != nil && kmsg.Key(r.key) == kmsg.Produce {
		if err := c.produce(r); err != nil {
			return err
		}
		forward = nil
	}
	if forward == nil {
		c.free <- struct{}{}
		return nil
	}
	c.in, c.current = forward, r
	if c.joining {
		go c.mindJoin(r)
	}
	return nil
}

// lose swallows a request. Nothing can follow on the same connection: what comes
// after a gap in a stream does not arrive either.
func (c *conn) lose() error {
	c.mu.Lock()
	c.lostIn = true
	c.mu.Unlock()
	c.free <- struct{}{}
	return nil
}

// Write takes kfake's answer to the request in work.
func (c *conn) Write(p []byte) (int, error) {
	r := c.current
	if r == nil || len(p) < 8 || int32(binary.BigEndian.Uint32(p[4:])) != r.corr {
		return 0, errors.New("kafkatest: kfake answers what nobody asked")
	}
	c.current = nil
	r.answered.Store(true)
	frame, err := c.finish(r, p)
	if err != nil {
		return 0, err
	}
	if err := c.send(r, frame); err != nil {
		return 0, err
	}
	c.free <- struct{}{}
	return len(p), nil
}

// answer replies in kfake's place, while the token is held.
func (c *conn) answer(r *request, resp kmsg.Response) error {
	return c.send(r, r.respond(resp))
}

// send writes a response, unless it is lost on the way.
func (c *conn) send(r *request, frame []byte) error {
	if r.fault != nil {
		changed, err := c.spoil(r, frame)
		if changed == nil || err != nil {
			return err
		}
		frame = changed
	}
	muted := c.n.muted(MuteResponses)
	c.mu.Lock()
	c.lostOut = c.lostOut || muted
	lost := c.lostOut
	c.mu.Unlock()
	if lost {
		return nil
	}
	_, err := c.Conn.Write(frame)
	return err
}

// pause waits for d, or until the cluster is closed.
func (c *Cluster) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.stop:
		return net.ErrClosed
	}
}

// wait waits for d, or until the connection ends.
func (c *conn) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.done:
		return net.ErrClosed
	}
}
