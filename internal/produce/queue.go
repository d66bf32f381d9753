package produce

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// A queue holds the messages that a Producer has accepted and not settled, in the
// order of their acceptance, and bounds their bytes.
type queue struct {
	limit int64 // never changes

	mu     sync.Mutex // guards all below, and of each delivery cost, seq, in, prev and next
	bytes  int64
	closed bool

	first, last *delivery
	count       int
	seq         uint64

	room  []*roomWaiter // first come, first served
	drain []*drainWaiter

	unflushed failures // of those without a done, since the last Flush
	lost      failures // of all, since close
}

// failures counts messages that were not delivered.
type failures struct {
	count  int
	causes []error // the first maxCauses
}

func (f *failures) add(err error) {
	f.count++
	if len(f.causes) < maxCauses {
		f.causes = append(f.causes, err)
	}
}

type roomWaiter struct {
	d     *delivery
	ready chan struct{}
}

type drainWaiter struct {
	upTo uint64
	done chan struct{}
}

// most causes that one Flush reports.
const maxCauses = 3

// enter takes d in, waiting for room until ctx ends or authentication has failed for longer than
// the grace.
func (q *queue) enter(ctx context.Context, d *delivery, auth *sasl.State) (sasl.WaitEnd, error) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return sasl.Done, errs.Closed
	}
	// A message larger than the whole buffer passes when it is alone.
	if len(q.room) == 0 && q.fits(d) {
		q.add(d)
		q.mu.Unlock()
		return sasl.Done, nil
	}
	w := &roomWaiter{d, make(chan struct{})}
	q.room = append(q.room, w)
	q.mu.Unlock()

	end, err := auth.Wait(ctx, sasl.Waiting{Done: w.ready, Stop: sasl.StopPastGrace})
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.room {
		if other == w {
			q.room = append(q.room[:i], q.room[i+1:]...)
			q.admit() // those behind it may be smaller
			return end, err
		}
	}
	if !d.in {
		return sasl.Done, errs.Closed
	}
	return sasl.Done, nil // perhaps room was made at the same moment
}

func (q *queue) fits(d *delivery) bool { return q.bytes == 0 || q.bytes+d.cost <= q.limit }

func (q *queue) add(d *delivery) {
	q.seq++
	d.seq, d.in = q.seq, true
	q.bytes += d.cost
	q.count++
	d.prev = q.last
	if q.last != nil {
		q.last.next = d
	} else {
		q.first = d
	}
	q.last = d
}

// admit lets in who waits, as far as there is room.
func (q *queue) admit() {
	for len(q.room) > 0 && q.fits(q.room[0].d) {
		w := q.room[0]
		q.room = q.room[1:]
		q.add(w.d)
		close(w.ready)
	}
}

// release gives back d's bytes, and notes a failure: for Flush if nobody else is told
// of it, for Close if it comes that late.
func (q *queue) release(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if d.err != nil && d.owner == nil && d.settled == nil {
		q.unflushed.add(d.err)
	}
	if d.err != nil && q.closed && !d.abandoned() {
		q.lost.add(d.err)
	}
	q.bytes -= d.cost
	d.cost = 0
	q.admit()
}

// settle takes d out.
func (q *queue) settle(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		q.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		q.last = d.prev
	}
	d.prev, d.next = nil, nil
	q.count--
	kept := q.drain[:0]
	for _, w := range q.drain {
		if q.first == nil || q.first.seq > w.upTo {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	q.drain = kept
}

// drained returns a channel that is closed once all that is in the queue now has
// been settled. The caller gives it back to forget when it stops waiting.
func (q *queue) drained() *drainWaiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &drainWaiter{upTo: q.seq, done: make(chan struct{})}
	if q.first == nil {
		close(w.done)
		return w
	}
	q.drain = append(q.drain, w)
	return w
}

func (q *queue) forget(w *drainWaiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.drain {
		if other == w {
			q.drain = append(q.drain[:i], q.drain[i+1:]...)
			return
		}
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

// close lets nobody in any more; it reports whether it was open.
func (q *queue) close() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.closed = true
	for _, w := range q.room {
		close(w.ready)
	}
	q.room = nil
	return true
}

// takeFailures returns, once, what Flush has to report.
func (q *queue) takeFailures() (failed int, causes []error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.unflushed
	q.unflushed = failures{}
	return f.count, f.causes
}

// takeLost returns what Close has to report: what failed since, or earlier
// without anybody having been told.
func (q *queue) takeLost() (failed int, causes []error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.lost
	if q.unflushed.count > f.count {
		f = q.unflushed
	}
	return f.count, f.causes
}

// failureText joins causes into one line that names each once.
func failureText(failed int, causes []error) string {
	var texts []string
	seen := make(map[string]bool)
	for _, c := range causes {
		if t := errs.Reason(c); !seen[t] {
			seen[t] = true
			texts = append(texts, t)
		}
	}
	return fmt.Sprintf("%d message(s) failed, first: %s", failed, errs.Clean(strings.Join(texts, "; ")))
}
