package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A record of a context that has ended is withdrawn, also if an earlier one of the same
// context is still waited for: that one was withdrawn when the context ended, and is in
// flight.
func TestContextEndedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, false)
		topic, p := r.held()
		ctx, cancel := context.WithCancel(t.Context())
		first, second := record("first", 0), record("second", 0)
		first.Ctx, second.Ctx = ctx, ctx
		r.sender.Send(first)
		b := sealHeld(p)
		b.sequenced = true
		cancel()
		synctest.Wait()
		if o := r.told(first); o != nil {
			t.Fatalf("%+v of a record in flight", o)
		}
		r.sender.Send(second)
		synctest.Wait()
		r.want(second, NotInLog, context.Canceled)
		if n := len(topic.watches); n != 0 {
			t.Errorf("%d contexts are watched that have ended", n)
		}
	})
}

// Records of one batch are withdrawn one after the other, each by its own context: none
// costs a look at the others, and their places are closed once.
func TestWithdrawFromABatch(t *testing.T) {
	const n = 5000
	r := newRig(t, nil, false)
	_, p := r.held()
	all := make([]*Record, n)
	for i := range all {
		all[i] = r.send(fmt.Sprint(i))
	}
	b := sealHeld(p)
	if len(b.records) != n {
		t.Fatalf("%d records in a batch, want %d", len(b.records), n)
	}
	r.sender.prepare(b)
	p.issue(b) // and there is no connection yet
	errCause := errors.New("given up")
	for i := range n - 2 {
		r.sender.Withdraw(all[i], errCause)
		if len(b.records) != n || b.withdrawn != i+1 {
			t.Fatalf("after %d withdrawals the batch has %d places, and %d of them are empty", i+1, len(b.records), b.withdrawn)
		}
	}
	for _, one := range all[:n-2] {
		r.want(one, NotInLog, errCause)
	}
	if want := all[n-1].size + all[n-2].size; b.size != want || b.isEmpty() {
		t.Errorf("size %d of two records, want %d", b.size, want)
	}
	p.producerID = 7
	if wanted, _ := p.wrote(b); !wanted || p.sequence != 2 || !slices.Equal(b.records, all[n-2:]) {
		t.Errorf("wanted %v; %d records are written, the next has sequence %d; want the last two", wanted, len(b.records), p.sequence)
	}
	r.sender.Withdraw(all[n-1], errCause)
	if o := r.told(all[n-1]); o != nil {
		t.Errorf("%+v of a record that is written", o)
	}
}

// A batch holds so many records at most that none has to wait for what is done to all.
func TestRecordsOfABatch(t *testing.T) {
	r := newRig(t, nil, false)
	topic, p := r.held()
	topic.largest, topic.limit = 1<<30, 1<<30
	for range maxRecords + 1 {
		r.sender.Send(&Record{Topic: rigTopic, Key: []byte("k")})
	}
	if b := sealHeld(p); len(b.records) != maxRecords {
		t.Errorf("%d records in a batch, want %d", len(b.records), maxRecords)
	}
}

// The many records of a context are withdrawn some hundreds at a time. Between these,
// others get the lock, and what became of records is told.
func TestManyOfOneContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, most = 5000, 500
		r := newRig(t, nil, false)
		var all []*Record
		told, worst := 0, 0
		r.sender.cfg.Settle = func(one *Record, o Outcome) {
			topic := one.topic
			topic.mu.Lock()
			over := 0
			for _, other := range all {
				if other.state == settled {
					over++
				}
			}
			topic.mu.Unlock()
			if worst = max(worst, over-told); one != all[told] {
				t.Errorf("%s is told as number %d", one.Value, told)
			}
			told++
			r.settle(one, o)
		}
		r.held()
		ctx, cancel := context.WithCancel(t.Context())
		for i := range n {
			one := &Record{Topic: rigTopic, Key: []byte("k"), Value: fmt.Append(nil, i), Ctx: ctx}
			all = append(all, one)
			r.sender.Send(one)
		}
		cancel()
		synctest.Wait()
		if told != n || worst > most {
			t.Errorf("%d of %d are told, %d at once; want %d at most", told, n, worst, most)
		}
	})
}

// What is withdrawn from a batch that waits for its connection is not written, and the rest
// is, in its order.
func TestWithdrawBeforeTheWrite(t *testing.T) {
	withRig(t, kafkatest.Config{}, false, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
		_, p := r.held()
		var all []*Record
		for i := range 6 {
			all = append(all, r.send(fmt.Sprint(i)))
		}
		r.release(p)
		for i := range 6 {
			if i%2 == 0 {
				r.sender.Withdraw(all[i], context.Canceled)
				r.want(all[i], NotInLog, context.Canceled)
			}
		}
		for i := range 6 {
			if i%2 == 1 {
				r.must(all[i])
			}
		}
		if diff := cmp.Diff([]string{"1", "3", "5"}, logged(t, c)); diff != "" {
			t.Error(diff)
		}
	})
}

// Whoever asks of a record between its settlement and Config.Settle is not told that it has
// not been sent.
func TestSentWhenSettled(t *testing.T) {
	withRig(t, kafkatest.Config{}, false, func(t *testing.T, r *rig, _ *kafkatest.Cluster) {
		sent := false
		r.sender.cfg.Settle = func(one *Record, o Outcome) {
			sent = r.sender.IsSent(one)
			r.settle(one, o)
		}
		r.learn()
		r.must(r.send("one"))
		if !sent {
			t.Error("a record in the log has not been sent")
		}
	})
}

// sealHeld makes a batch of what waits in a partition that held has returned.
func sealHeld(p *partition) *batch {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	p.recovering = false
	b := p.seal()
	p.recovering = true
	return b
}

// Where a topic with many records is refused, or the Sender closed, they are settled some
// hundreds at a time. What is withdrawn meanwhile is told at once, each is told once, and what
// comes meanwhile is counted as waiting.
func TestManyRefused(t *testing.T) {
	const n = 3000
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("topic known %v", known), func(t *testing.T) {
			r := newRig(t, nil, false)
			if known {
				r.held()
			}
			topic := r.sender.lock(rigTopic)
			topic.loading = true // nobody answers
			topic.mu.Unlock()
			all := make([]*Record, n)
			for i := range all {
				all[i] = r.send(fmt.Sprint(i))
			}
			topic.mu.Lock()
			out := topic.refuse(kerr.TopicAuthorizationFailed)
			if len(out) > maxAtOnce {
				t.Errorf("%d are settled at once", len(out))
			}
			topic.mu.Unlock()
			r.sender.Withdraw(all[n-1], context.Canceled)
			r.want(all[n-1], NotInLog, context.Canceled)
			kept, gone := r.send("kept"), r.send("gone")
			r.sender.Withdraw(gone, context.Canceled)
			topic.mu.Lock()
			r.sender.unlockRefused(topic, out)
			for _, one := range all[:n-1] {
				r.want(one, NotInLog, kerr.TopicAuthorizationFailed)
			}
			r.want(gone, NotInLog, context.Canceled)
			topic.mu.Lock()
			defer topic.mu.Unlock()
			if topic.refused != nil || topic.live != 1 || len(topic.pending)-topic.passed != 1 || r.told(kept) != nil {
				t.Errorf("%d lists are left, %d records live, %d of %d that wait are settled", len(topic.refused), topic.live, topic.passed, len(topic.pending))
			}
		})
	}
}
