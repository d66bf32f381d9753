package shape

import (
	"sync"
	"time"
)

const (
	// segment is what a packet carries on Ethernet, and initialWindow what TCP sends
	// before the first acknowledgement (RFC 6928).
	segment       = 1460
	initialWindow = 10 * segment
	// patience is what Linux waits beyond the round trip before it takes a packet
	// for lost: the least time, too, after which a quiet connection starts over.
	patience = 200 * time.Millisecond
)

// A Link is a way through a network, the same in both directions. The zero Link
// costs nothing.
type Link struct {
	RoundTrip time.Duration
	Rate      int // bits a second; 0 is no limit
	// Window is the most that may be on its way on a connection, in bytes; 0 is no
	// limit. A broker's socket.receive.buffer.bytes sets it for what it receives.
	Window int
}

// A flow is one direction of a connection. It tells when each segment arrives, by
// the arithmetic of TCP's slow start on a way that loses nothing: the window grows
// by what is acknowledged, and is small again after a time of quiet (RFC 5681; Linux
// gets there in halves, a few seconds later). It knows nothing of congestion, of
// delayed acknowledgements, and of other connections on the same way.
type flow struct {
	mu      sync.Mutex
	link    Link
	window  int
	flying  int       // bytes not acknowledged yet
	most    int       // that were flying at a time, since the window was small
	acks    []ack     // to come, in order
	sent    int64     // bytes in all
	last    time.Time // when the last segment left its sender
	free    time.Time // when the link has carried all that was sent
	arrival time.Time // of the last segment
}

type ack struct {
	size int
	at   time.Time
}

// schedule sends what it can of size bytes that are at hand at now, at most a
// segment, and returns how much that is and when it arrives.
func (f *flow) schedule(now time.Time, size int) (int, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := later(now, f.last)
	for len(f.acks) > 0 && !f.acks[0].at.After(at) {
		f.acknowledge()
	}
	if f.window == 0 || f.flying == 0 && at.Sub(f.last) > f.link.RoundTrip+patience {
		f.window, f.most = initialWindow, 0
	}
	for f.flying >= f.window {
		at = later(at, f.acks[0].at)
		f.acknowledge()
	}
	size = min(size, segment, f.window-f.flying)
	f.last = at
	f.free = later(f.free, at)
	if f.link.Rate > 0 {
		f.free = f.free.Add(time.Duration(size) * 8 * time.Second / time.Duration(f.link.Rate))
	}
	f.arrival = later(f.arrival, f.free.Add(f.link.RoundTrip/2)) // the link may have changed
	f.acks = append(f.acks, ack{size, f.arrival.Add(f.link.RoundTrip / 2)})
	f.sent += int64(size)
	f.flying += size
	f.most = max(f.most, f.flying)
	return size, f.arrival
}

// acknowledge takes the next acknowledgement. The window grows as long as it is what
// holds the sender up.
func (f *flow) acknowledge() {
	size := f.acks[0].size
	f.acks = f.acks[1:]
	f.flying -= size
	if f.window < 2*f.most {
		f.window += size
	}
	if f.link.Window > 0 {
		f.window = min(f.window, f.link.Window)
	}
}

func (f *flow) set(l Link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.link = l
}

// idle makes the window as small as after a time of quiet.
func (f *flow) idle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.window, f.flying, f.acks = 0, 0, nil
}

func (f *flow) bytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
