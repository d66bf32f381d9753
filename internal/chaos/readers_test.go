//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
)

// A place is where a message lies.
type place struct {
	partition int32
	offset    int64
}

// A reader is a consumer without a group, or all members of one.
type reader struct {
	name string

	mu     sync.Mutex
	seen   map[place]int
	errors causes        // what Poll has said
	late   time.Duration // the worst time that Poll took past its ctx
}

func newReader(name string) *reader {
	return &reader{name: name, seen: make(map[place]int)}
}

const pollTime = time.Second

// poll notes the next message.
func (r *reader) poll(c *gracedb.Consumer) {
	ctx, cancel := context.WithTimeout(context.Background(), pollTime)
	defer cancel()
	start := time.Now()
	m, err := c.Poll(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = max(r.late, time.Since(start)-pollTime)
	switch {
	case err == nil:
		r.seen[place{m.Partition, m.Offset}]++
	case ctx.Err() == nil || !errors.Is(err, context.DeadlineExceeded):
		r.errors.add(err)
	}
}

// missing returns those of records that have not been seen, and how many were seen
// more than once.
func (r *reader) missing(records []*kgo.Record) (missed []*kgo.Record, again int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		switch n := r.seen[place{rec.Partition, rec.Offset}]; n {
		case 0:
			missed = append(missed, rec)
		default:
			again += n - 1
		}
	}
	return missed, again
}

// A member reads for a reader, and may be replaced.
type member struct {
	open  func(context.Context) (*gracedb.Consumer, error)
	to    *reader
	again chan chan struct{} // asks for a new consumer; closed when there is one
	end   chan struct{}
	done  chan struct{}
	close time.Duration // the worst time that Close took
}

// read starts a member, which is in position when read returns.
func (r *reader) read(ctx context.Context, open func(context.Context) (*gracedb.Consumer, error)) (*member, error) {
	m := &member{open: open, to: r, again: make(chan chan struct{}), end: make(chan struct{}), done: make(chan struct{})}
	c, err := open(ctx)
	if err != nil {
		return nil, err
	}
	go m.run(c)
	return m, nil
}

func (m *member) run(c *gracedb.Consumer) {
	defer close(m.done)
	defer func() { m.shut(c) }()
	for {
		select {
		case <-m.end:
			return
		case ready := <-m.again:
			m.shut(c)
			c = m.reopen()
			close(ready)
			if c == nil {
				return
			}
		default:
			m.to.poll(c)
		}
	}
}

// reopen opens a consumer, however long the faults of the moment do not let it.
func (m *member) reopen() *gracedb.Consumer {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		c, err := m.open(ctx)
		cancel()
		if err == nil {
			return c
		}
		m.to.errors.add(fmt.Errorf("NewConsumer: %w", err))
		select {
		case <-m.end:
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (m *member) shut(c *gracedb.Consumer) {
	if c == nil {
		return
	}
	start := time.Now()
	_ = c.Close()
	m.close = max(m.close, time.Since(start))
}

// restart replaces the member's consumer.
func (m *member) restart() {
	ready := make(chan struct{})
	m.again <- ready
	<-ready
}

func (m *member) stop() {
	close(m.end)
	<-m.done
}
