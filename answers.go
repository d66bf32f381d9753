package gracedb

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An answers, hooked into the engine, notices when a Produce request was sent and
// its answer was lost. Of all that was on its way then nobody can say whether it
// was written, however it ends: the engine asks again, and what is said to the
// second request (that the leader has moved, that access is denied) may not be
// true of the first.
type answers struct {
	began time.Time

	mu       sync.Mutex
	produces map[int32]outstanding // by node

	lost atomic.Int64 // when the last request whose answer was lost was sent; 0 if none was
}

// outstanding are a node's Produce requests that are not answered.
type outstanding struct {
	count int
	last  time.Duration // when the latest was sent
}

// now is the time, never 0.
func (a *answers) now() time.Duration { return time.Since(a.began) + 1 }

// lostSince reports whether a request that was sent at or after t lost its answer.
func (a *answers) lostSince(t time.Duration) bool {
	lost := time.Duration(a.lost.Load())
	return lost != 0 && lost >= t
}

// loses is called with the lock held.
func (a *answers) loses(o outstanding) {
	if at := int64(o.last); at > a.lost.Load() {
		a.lost.Store(at)
	}
}

// OnBrokerWrite is kgo's hook.
func (a *answers) OnBrokerWrite(meta kgo.BrokerMetadata, key int16, written int, _, _ time.Duration, _ error) {
	if kmsg.Key(key) != kmsg.Produce || written == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.produces == nil {
		a.produces = make(map[int32]outstanding)
	}
	o := a.produces[meta.NodeID]
	o.count++
	o.last = a.now()
	a.produces[meta.NodeID] = o
}

// OnBrokerE2E is kgo's hook: it ends what OnBrokerWrite began.
func (a *answers) OnBrokerE2E(meta kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if kmsg.Key(key) != kmsg.Produce || e2e.BytesWritten == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.produces[meta.NodeID]
	o.count--
	a.produces[meta.NodeID] = o
	// A broker that has waited for its replicas in vain has appended all the same.
	if e2e.Err() != nil || e2e.ReadWait >= produceTimeout {
		a.loses(o)
	}
}

// OnBrokerDisconnect is kgo's hook. It comes before anything else is made of the
// end of a connection.
func (a *answers) OnBrokerDisconnect(meta kgo.BrokerMetadata, _ net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.produces[meta.NodeID]; o.count > 0 {
		a.loses(o)
	}
}
