package faults

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A shape is what a network does to the connections of a client, below TLS: it is a
// Dial for a Cluster around another. As with TCP nothing is lost or overtaken while
// a connection lasts.
type shape struct {
	dial    func(context.Context, string, string) (net.Conn, error)
	latency func() time.Duration // of each piece, one way; nil is none
	rate    int                  // bytes a second towards the broker; 0 is no limit
	slice   int                  // at most so many bytes in a piece; 0 is no limit
	life    func() time.Duration // of a connection, which then is torn down; nil is no limit
	halve   func(n int) bool     // whether a write of n bytes is torn down when half is through

	mu    sync.Mutex
	dials int
	held  chan struct{} // while open, nothing comes from the broker
}

// pipePieces is how many pieces may be on their way: a socket's buffers.
const pipePieces = 64

// Dial connects through the shape.
func (s *shape) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	s.dials++
	s.mu.Unlock()
	broker, err := s.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if s.latency != nil {
		select {
		case <-time.After(2 * s.latency()): // SYN and its answer
		case <-ctx.Done():
			_ = broker.Close()
			return nil, ctx.Err()
		}
	}
	near, far := net.Pipe()
	cut := func() { _ = far.Close(); _ = broker.Close() }
	var timer *time.Timer
	if s.life != nil {
		timer = time.AfterFunc(s.life(), cut)
	}
	go s.carry(broker, far, true, cut)
	go func() {
		s.carry(far, broker, false, cut)
		if timer != nil {
			timer.Stop()
		}
	}()
	return near, nil
}

// A piece is bytes on their way.
type piece struct {
	data []byte
	at   time.Time // of arrival
}

// carry brings what src says to dst, until one of them ends.
func (s *shape) carry(dst, src net.Conn, up bool, cut func()) {
	pieces := make(chan piece, pipePieces)
	ended := make(chan struct{})
	go func() {
		defer close(pieces)
		buf := make([]byte, 64<<10)
		var last time.Time
		for {
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			if up && s.halve != nil && s.halve(n) {
				_, _ = dst.Write(buf[:n/2])
				cut()
				return
			}
			for b := buf[:n]; len(b) > 0; {
				size := len(b)
				if s.slice > 0 {
					size = min(size, s.slice)
				}
				at := time.Now()
				if s.latency != nil {
					at = at.Add(s.latency())
				}
				if at.Before(last) {
					at = last
				}
				if up && s.rate > 0 {
					at = at.Add(time.Duration(size) * time.Second / time.Duration(s.rate))
				}
				last = at
				select {
				case pieces <- piece{append([]byte(nil), b[:size]...), at}:
				case <-ended:
					return
				}
				b = b[size:]
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.at))
		if held := s.holding(); !up && held != nil {
			<-held
		}
		if _, err := dst.Write(p.data); err != nil {
			break
		}
	}
	close(ended)
	cut()
}

func (s *shape) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

// hold keeps back all that comes from the brokers, until release is called.
func (s *shape) hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(chan struct{})
	s.held = held
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = nil
		close(held)
	}
}

func (s *shape) holding() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// between returns a random duration at each call.
func between(r *rand.Rand, least, most time.Duration) func() time.Duration {
	var mu sync.Mutex
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return least + time.Duration(r.Int64N(int64(most-least)+1))
	}
}
