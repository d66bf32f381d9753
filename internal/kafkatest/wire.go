package kafkatest

import (
	"net"
	"sync"
	"sync/atomic"
)

// A wire is a connection below TLS: it counts bytes, and stands still while its
// node is frozen.
type wire struct {
	net.Conn
	n       *node
	in, out atomic.Int64
	closing atomic.Bool
	done    chan struct{}
	once    sync.Once
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.in.Add(int64(n))
	if err == nil {
		err = w.frozen()
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	if err := w.frozen(); err != nil {
		return 0, err
	}
	n, err := w.Conn.Write(p)
	w.out.Add(int64(n))
	return n, err
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.done) })
	return w.Conn.Close()
}

// frozen waits until the node is not frozen.
func (w *wire) frozen() error {
	thawed := w.n.thaw()
	if thawed == nil {
		return nil
	}
	if w.closing.Load() {
		return net.ErrClosed
	}
	select {
	case <-thawed:
		return nil
	case <-w.done:
		return net.ErrClosed
	}
}
