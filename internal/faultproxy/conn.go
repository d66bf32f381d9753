package faultproxy

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A conn is a client's connection and the one to the broker that serves it.
type conn struct {
	p      *Proxy
	broker string
	raw    *net.TCPConn // of the client
	ended  chan struct{}
	once   sync.Once

	mu   sync.Mutex
	keys map[int32]kmsg.Key // of the requests not answered yet, by correlation id
}

// end closes both sides, the client's with a reset, or with a FIN if the broker is
// to seem to have closed it.
func (c *conn) end(fin bool) {
	c.once.Do(func() {
		if !fin {
			_ = c.raw.SetLinger(0)
		}
		close(c.ended)
		_ = c.raw.Close()
		c.p.mu.Lock()
		delete(c.p.conns, c)
		c.p.mu.Unlock()
	})
}

const dialTimeout = 5 * time.Second

func (c *conn) run() {
	defer c.end(false)
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	up, err := new(net.Dialer).DialContext(ctx, "tcp", c.broker)
	if err != nil {
		return
	}
	client := tls.Server(&line{Conn: c.raw, c: c}, c.p.server)
	broker := tls.Client(up, c.p.client)
	var wg sync.WaitGroup
	wg.Go(func() {
		<-c.ended
		_ = up.Close()
	})
	wg.Go(func() { c.end(c.pump(broker, client, false)) })
	c.end(c.pump(client, broker, true))
	wg.Wait()
}

// pump carries frames until one side ends, and reports whether it ended well.
func (c *conn) pump(to io.Writer, from io.Reader, response bool) (fin bool) {
	for {
		frame, err := readFrame(from)
		if err != nil {
			return true
		}
		var id int32
		var key kmsg.Key
		if !response {
			key = kmsg.Key(int16(binary.BigEndian.Uint16(frame[4:])))
			id = int32(binary.BigEndian.Uint32(frame[8:]))
			c.mu.Lock()
			c.keys[id] = key
			c.mu.Unlock()
		} else {
			id = int32(binary.BigEndian.Uint32(frame[4:]))
			c.mu.Lock()
			key = c.keys[id]
			delete(c.keys, id)
			c.mu.Unlock()
		}
		if f := c.p.meet(key, response); f != nil {
			switch f.Do {
			case Drop:
				continue
			case Cut:
				_, _ = to.Write(frame[:int(f.Forward*float64(len(frame)))])
				return f.FIN
			case Hold:
				if !c.sleep(f.For) {
					return false
				}
			}
		}
		if _, err := to.Write(frame); err != nil {
			return false
		}
	}
}

const (
	maxFrame     = 128 << 20
	headerLength = 4 + 8 // the length, and the head of a request
)

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(int32(binary.BigEndian.Uint32(size[:])))
	if n < 4 || n > maxFrame {
		return nil, io.ErrUnexpectedEOF
	}
	frame := make([]byte, max(4+n, headerLength)) // the shortest answer is shorter than a request
	copy(frame, size[:])
	_, err := io.ReadFull(r, frame[4:4+n])
	return frame[: 4+n : max(4+n, headerLength)], err
}

// sleep waits unless the connection ends before.
func (c *conn) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ended:
		return false
	}
}

// A line is the client's TCP connection as a slow or silent network makes it. What
// it does to reads and writes happens beneath TLS.
type line struct {
	net.Conn
	c *conn
}

func (l *line) Read(b []byte) (int, error) {
	_, shape := l.c.p.flow()
	if shape.Chunk > 0 {
		b = b[:min(len(b), shape.Chunk)]
	}
	n, err := l.Conn.Read(b)
	if n > 0 && !l.pass(n) {
		return 0, net.ErrClosed
	}
	return n, err
}

func (l *line) Write(b []byte) (n int, err error) {
	for n < len(b) {
		_, shape := l.c.p.flow()
		chunk := b[n:]
		if shape.Chunk > 0 {
			chunk = chunk[:min(len(chunk), shape.Chunk)]
		} else if shape.PerSecond > 0 {
			chunk = chunk[:min(len(chunk), max(1, shape.PerSecond/20))]
		}
		if !l.pass(len(chunk)) {
			return n, net.ErrClosed
		}
		m, err := l.Conn.Write(chunk)
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// pass waits until n bytes may go through.
func (l *line) pass(n int) bool {
	gate, shape := l.c.p.flow()
	select {
	case <-gate:
	case <-l.c.ended:
		return false
	}
	wait := shape.Latency
	if shape.PerSecond > 0 {
		wait += time.Duration(n) * time.Second / time.Duration(shape.PerSecond)
	}
	return wait == 0 || l.c.sleep(wait)
}
