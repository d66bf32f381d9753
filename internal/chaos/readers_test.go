//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
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
	next   map[int32]int64 // behind the last message of each partition; nil if members share them
	wrong  []string
	errors causes        // what Poll has said
	late   time.Duration // the worst time that Poll took past its ctx
}

// newReader returns the reader of a group, or of one consumer, which sees each
// message once and in order.
func newReader(name string, group bool) *reader {
	r := &reader{name: name, seen: make(map[place]int)}
	if !group {
		r.next = make(map[int32]int64)
	}
	return r
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
	if err == nil || ctx.Err() == nil || !errors.Is(err, context.DeadlineExceeded) {
		r.note(m, err)
	}
}

// note notes what Poll has returned. r.mu is held.
func (r *reader) note(m gracedb.Message, err error) {
	if err != nil {
		r.errors.add(err)
		if tellsOfLoss(err) {
			r.wrong = append(r.wrong, err.Error())
		}
		return
	}
	r.seen[place{m.Partition, m.Offset}]++
	if r.next == nil {
		return
	}
	if next := r.next[m.Partition]; m.Offset < next {
		r.wrong = append(r.wrong, fmt.Sprintf("got %d/%d after %d", m.Partition, m.Offset, next-1))
	}
	r.next[m.Partition] = m.Offset + 1
}

// tellsOfLoss reports whether err is about messages that the brokers have lost, which
// they cannot: every replica has what is acknowledged, and no other leads.
func tellsOfLoss(err error) bool {
	if _, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		return true
	}
	return strings.Contains(err.Error(), " are lost: ")
}

// The readers see what they are there to see.
func TestReader(t *testing.T) {
	at := func(partition int32, offset int64) gracedb.Message {
		return gracedb.Message{Partition: partition, Offset: offset}
	}
	for _, tt := range []struct {
		name  string
		group bool
		got   []gracedb.Message
		err   error
		wrong int
	}{
		{"in order", false, []gracedb.Message{at(0, 0), at(1, 7), at(0, 1), at(1, 9)}, nil, 0},
		{"twice", false, []gracedb.Message{at(0, 0), at(0, 1), at(0, 1)}, nil, 1},
		{"out of order", false, []gracedb.Message{at(0, 0), at(0, 2), at(0, 1)}, nil, 1},
		{"again in a group", true, []gracedb.Message{at(0, 0), at(0, 1), at(0, 0)}, nil, 0},
		{"an error", false, nil, gracedb.ErrAuthentication, 0},
		{"lost by the engine", false, nil, fmt.Errorf("%w: %w", gracedb.ErrConsumer, &kgo.ErrDataLoss{}), 1},
		{"lost before the log", true, nil, fmt.Errorf("%w: messages 1 to 3 are lost: the broker's log begins at 4", gracedb.ErrConsumer), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader("reader", tt.group)
			for _, m := range tt.got {
				r.note(m, nil)
			}
			if tt.err != nil {
				r.note(gracedb.Message{}, tt.err)
			}
			if len(r.wrong) != tt.wrong {
				t.Errorf("%q", r.wrong)
			}
		})
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
