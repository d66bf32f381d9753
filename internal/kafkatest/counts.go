package kafkatest

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Connection is what is known of a client's connection.
type Connection struct {
	ID       int64
	Node     int32
	Opened   time.Time
	Subject  string // who has authenticated, or empty
	Requests map[kmsg.Key]int
	In, Out  int64 // bytes from and to the client, with TLS
}

// counts is what the cluster remembers of connections that may be gone.
type counts struct {
	opened   atomic.Int64
	mu       sync.Mutex
	requests map[kmsg.Key]int
	in, out  int64
}

func (k *counts) request(key int16) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.requests == nil {
		k.requests = map[kmsg.Key]int{}
	}
	k.requests[kmsg.Key(key)]++
}

func (k *counts) closed(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.in += c.wire.in.Load()
	k.out += c.wire.out.Load()
}

// Connections returns the connections that are open, oldest first.
func (c *Cluster) Connections() []Connection {
	var out []Connection
	for _, n := range c.nodes {
		n.mu.Lock()
		conns := slices.Collect(maps.Keys(n.conns))
		n.mu.Unlock()
		for _, conn := range conns {
			conn.mu.Lock()
			out = append(out, Connection{
				ID: conn.id, Node: n.id, Opened: conn.opened, Subject: conn.session.subject,
				Requests: maps.Clone(conn.requests), In: conn.wire.in.Load(), Out: conn.wire.out.Load(),
			})
			conn.mu.Unlock()
		}
	}
	slices.SortFunc(out, func(a, b Connection) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// ConnectionCount returns how many connections clients have opened so far.
func (c *Cluster) ConnectionCount() int { return int(c.counts.opened.Load()) }

// Requests returns how many requests clients have made so far, by kind.
func (c *Cluster) Requests() map[kmsg.Key]int {
	c.counts.mu.Lock()
	defer c.counts.mu.Unlock()
	return maps.Clone(c.counts.requests)
}

// Bytes returns how many bytes have come from clients and gone to them so far.
func (c *Cluster) Bytes() (in, out int64) {
	c.counts.mu.Lock()
	in, out = c.counts.in, c.counts.out
	c.counts.mu.Unlock()
	for _, open := range c.Connections() {
		in += open.In
		out += open.Out
	}
	return in, out
}
