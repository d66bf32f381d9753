package sender

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Withdrawn records do not stay where they have waited, neither many small ones nor some
// large ones, as long as another one waits there.
func TestWithdrawnAreForgotten(t *testing.T) {
	large := make([]byte, 4<<20)
	for _, row := range []struct {
		name  string
		n     int
		value []byte
	}{{"small", 1000, []byte("small")}, {"large", 64, large}} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, topic known %v", row.name, known), func(t *testing.T) {
				r := newRig(t, nil, false)
				waiting := func(topic *topic) []*Record { return topic.pending }
				if known {
					r.held()
					waiting = func(topic *topic) []*Record { return topic.parts[0].waiting }
				} else {
					topic := r.sender.lock(rigTopic)
					topic.loading = true // nobody answers
					topic.mu.Unlock()
				}
				kept := r.send("kept")
				for range row.n {
					one := record("", 0)
					one.Value = row.value
					r.sender.Send(one)
					r.sender.Withdraw(one, context.Canceled)
					r.want(one, NotInLog, context.Canceled)
				}
				places, size, there := 0, int64(0), false
				for _, one := range waiting(kept.topic) {
					places++
					size += one.size
					there = there || one == kept
				}
				if places > 130 || size > 2<<20 || !there {
					t.Errorf("%d records of %d bytes are kept for one that waits, which is there: %v", places, size, there)
				}
			})
		}
	}
}

// The records that a topic's partitions leave behind, when it is made anew, count as
// waiting where they are then.
func TestWithdrawnOfATopicMadeAnew(t *testing.T) {
	r := newRig(t, nil, false)
	topic, p := r.held()
	b := inFlight(r, p)
	kept := r.send("kept")
	gone := r.send("gone")
	r.sender.Withdraw(gone, context.Canceled)
	topic.mu.Lock()
	p.comingBack = false
	out := topic.leave() // waits for b's try
	topic.loading = true // nobody answers
	out = append(out, p.ended(b, nil, errLost)...)
	out = append(out, r.sender.judgeLocked(p)...)
	if len(topic.old) > 0 || len(topic.pending) != 1 || topic.pending[0] != kept || topic.passed != 0 {
		t.Errorf("%d old partitions, %d records wait, %d of them withdrawn", len(topic.old), len(topic.pending), topic.passed)
	}
	r.sender.unlock(topic, out)
	r.sender.Withdraw(kept, context.Canceled)
	r.want(kept, NotInLog, context.Canceled)
}

// After a broker has refused a batch for its size, batches are smaller, and grow again as
// far as full ones are taken.
func TestBatchesGrowAgain(t *testing.T) {
	r := newRig(t, nil, false)
	topic, p := r.held()
	acknowledged := func(size int64) {
		b := &batch{part: p, size: size, answer: &kmsg.ProduceResponseTopicPartition{LogAppendTime: -1}}
		p.acknowledge(b)
	}
	usual := topic.largest
	refused := &batch{part: p, size: usual, records: make([]*Record, 2), err: kerr.MessageTooLarge}
	p.split(refused)
	small := topic.largest
	if small > usual/2 {
		t.Fatalf("%d bytes are refused, and the next batch may have %d", usual, small)
	}
	acknowledged(small / 3)
	if topic.largest != small {
		t.Errorf("a batch of a third has passed, and the next may have %d bytes after %d", topic.largest, small)
	}
	for range 2 {
		acknowledged(topic.largest)
	}
	if topic.largest != usual {
		t.Errorf("two full batches have passed, and the next may have %d bytes, not %d as at first", topic.largest, usual)
	}
}

// A batch of which it is not known whether it was written is sent again only for as long as
// brokers are sure to recognise it. The time for which this machine was suspended counts,
// in which its monotonic clock has stood still; so does the time by which its wall clock was
// set back.
func TestDoubtThatIsForgotten(t *testing.T) {
	const soon, late = rememberedFor - time.Minute, rememberedFor + time.Minute
	for _, row := range []struct {
		running, wall time.Duration
		want          Result
	}{{soon, soon, InLog}, {late, late, Unknown}, {time.Second, late, Unknown}, {late, -time.Hour, Unknown}} {
		r := newRig(t, nil, false)
		topic, p := r.held()
		b := inFlight(r, p)
		one := b.records[0]
		topic.mu.Lock()
		b.since, b.doubt = ago(row.running, row.wall), true
		out := p.ended(b, nil, errLost)
		out = append(out, p.recover(false)...)
		if row.want == Unknown {
			r.sender.unlock(topic, out)
			r.want(one, Unknown, errLost)
			if len(p.inFlight) > 0 || p.epoch != 1 {
				t.Errorf("%d batches in flight, epoch %d", len(p.inFlight), p.epoch)
			}
			continue
		}
		p.recovering = false
		r.sender.unlock(topic, out)
		if r.told(one) != nil || p.next() != b {
			t.Errorf("%+v: is not sent again: %+v", row, r.told(one))
		}
	}
}

// A batch in doubt that waits to be sent again, while this machine is suspended for a day, is
// not sent again when it wakes: only at the write is it known how late it is.
func TestSuspendedBeforeTheWrite(t *testing.T) {
	r := newRig(t, nil, false)
	topic, p := r.held()
	b := inFlight(r, p)
	one := b.records[0]
	topic.mu.Lock()
	out := p.ended(b, nil, errLost)
	out = append(out, p.recover(false)...)
	p.issue(b)
	b.since = ago(time.Second, 24*time.Hour)
	r.sender.unlock(topic, out)
	if wanted, _ := p.wrote(b); wanted {
		t.Error("is written again")
	}
	topic.mu.Lock()
	out = p.ended(b, nil, errNoAnswer)
	out = append(out, p.recover(false)...)
	r.sender.unlock(topic, out)
	r.want(one, Unknown, errNoAnswer)
}

// Nor is a leader taken to know a producer because this machine was suspended.
func TestKnownProducerIsForgotten(t *testing.T) {
	const soon, late = knownFor - time.Minute, knownFor + time.Minute
	for _, row := range []struct {
		running, wall time.Duration
		want          bool
	}{{soon, soon, true}, {late, late, false}, {time.Second, late, false}, {late, -time.Hour, false}} {
		p := &partition{producerID: 7, knownID: 7, known: ago(row.running, row.wall)}
		if got := p.isKnown(); got != row.want {
			t.Errorf("%+v: known %v", row, got)
		}
	}
}

// ago returns what was so long ago by each clock.
func ago(running, wall time.Duration) instant {
	i := thisInstant()
	return instant{i.running.Add(-running), i.wall.Add(-wall)}
}

// inFlight makes the first batch of a partition that held has returned, written and not
// answered.
func inFlight(r *rig, p *partition) *batch {
	r.send("in flight")
	b := sealHeld(p)
	p.topic.mu.Lock()
	p.producerID = 7
	r.sender.prepare(b)
	p.issue(b)
	p.topic.mu.Unlock()
	if wanted, _ := p.wrote(b); !wanted {
		panic("is not to be written")
	}
	return b
}
