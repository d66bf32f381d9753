package sender

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A State is what brokers say of a topic.
type State struct {
	ID         [16]byte // zero from brokers without topic ids
	Partitions []Leader // of partition 0, 1, 2…
	// Limit is the largest batch that brokers take for it; or 0 if they do not say.
	Limit int64
}

// A Leader is the broker that leads a partition, or -1, since an epoch.
type Leader struct{ Broker, Epoch int32 }

// A topic is the partitions of a topic and the records that have none yet.
type topic struct {
	sender *Sender
	name   string

	mu      sync.Mutex
	removed bool // from sender.topics
	live    int  // records that are not settled

	id     [16]byte
	parts  []*partition
	sticky *partition // of records without a key, until its next batch
	// pending are the records whose partition is not known: before brokers have told of the
	// topic, and while it is made anew.
	pending []*Record
	passed  int   // how many of them are settled
	idle    int64 // bytes of those
	loading bool
	refused []refusal // what refuse has not settled yet; nil if there is none

	// A topic that was deleted and made anew has none of the old one's log, nor of its
	// producers. The new one begins, with what was told of it, when the last of the old
	// partitions has judged what it had in flight, so that keyed records keep their order.
	old     []*partition // that have not
	carried []*Record    // what the others had and is in no log
	renewed *State
	anew    bool // there was an earlier topic of this name

	limit   int64 // the largest batch that brokers take, as far as known
	largest int64 // the largest batch that is made of several records

	watches map[<-chan struct{}]*watch // whose context has not ended yet

	asking  chan struct{} // closed when the Metadata request that is on its way is answered; or nil
	asked   time.Time     // when the last one that was answered began
	missed  time.Time     // when they said so last
	missing time.Time     // since when brokers have not known the topic; or zero
	said    error         // what brokers have answered last when asked about it; or nil
}

const (
	// usualBatch is how large a batch gets that holds several records: large enough that the
	// head and the round trip cost little, small enough that few records share a fate.
	usualBatch = 1 << 20
	// maxInFlight is how many batches of a partition are in flight at most.
	maxInFlight = maxRemembered

	// maxAtOnce is how many records are settled at once, where many are to be: others want
	// topic.mu, too.
	maxAtOnce = 500

	// A topic is taken for missing when brokers have not known it for so long: one that was
	// just made is not known everywhere, and one that was there may be about to be made anew.
	unseenTime = time.Second
	anewTime   = 5 * time.Second
)

func (t *topic) far() bool         { return t.sender.cfg.Far() }
func (t *topic) usualBatch() int64 { return min(usualBatch, t.sender.cfg.MaxBatch) }
func (t *topic) batchLimit() int64 { return max(1, min(t.largest, t.limit-batchHeader)) }

// The rest is called with mu held, but where it says otherwise.

// isUseless reports whether no record waits for the topic, and it was never seen to exist:
// whoever can make up names gets no memory for that. One that was there is remembered, since
// brokers may remember what this producer has sent to it.
func (t *topic) isUseless() bool {
	return t.live == 0 && len(t.parts) == 0 && len(t.old) == 0 && !t.loading && !t.anew
}

// withdraw settles r, if it is certain that it is not in a log and will not be.
func (t *topic) withdraw(r *Record, cause error) []settlement {
	switch {
	case r.state == settled:
		return nil
	case r.part != nil:
		return r.part.withdraw(r, cause)
	}
	r.lost = cause
	out := []settlement{t.settle(r, Outcome{Result: NotInLog, Err: cause})}
	if t.refused != nil {
		return out // where it waits is not known; recount follows
	}
	t.passed++
	t.idle += r.size
	if t.passed > 64 && t.passed > len(t.pending)/2 || t.idle > 1<<20 {
		t.pending = slices.DeleteFunc(t.pending, func(r *Record) bool { return r.state == settled })
		t.passed, t.idle = 0, 0
	}
	return out
}

// recount counts which of pending are settled.
func (t *topic) recount() {
	t.passed, t.idle = 0, 0
	for _, r := range t.pending {
		if r.state == settled {
			t.passed++
			t.idle += r.size
		}
	}
}

// settle notes that r's outcome is known.
func (t *topic) settle(r *Record, o Outcome) settlement {
	r.state, r.batch = settled, nil
	t.unwatch(r)
	t.live--
	if o.Result == NotInLog && r.inOldLog {
		o.Result = Unknown
	}
	return settlement{r, o}
}

// update takes over what brokers say of the topic, and returns what became of records and
// which partitions have something new to do.
func (t *topic) update(now State) (out []settlement) {
	t.missing = time.Time{}
	switch {
	case len(t.parts) == 0:
	case t.id != now.ID, now.ID == [16]byte{} && len(now.Partitions) < len(t.parts): // made anew
		out = t.leave()
	}
	if len(t.old) > 0 {
		t.renewed = &now
		return out
	}
	t.begin(now)
	return out
}

// leave ends all partitions of a topic that was deleted.
func (t *topic) leave() (out []settlement) {
	old := t.parts
	t.anew = true
	t.parts, t.sticky, t.renewed = nil, nil, nil
	t.old = append(t.old, old...)
	for _, s := range old {
		s.gone = true
		if s.ready() {
			out = append(out, t.drained(s)...)
		}
	}
	return out
}

// drained judges what a partition of a deleted topic had in flight, and takes what is in no
// log along.
func (t *topic) drained(s *partition) (out []settlement) {
	s.drained = true
	out = s.recover(t.sender.isClosing())
	t.carried = append(t.carried, s.waiting...)
	s.waiting, s.bytes, s.passed, s.idle = nil, 0, 0, 0
	t.old = slices.DeleteFunc(t.old, func(o *partition) bool { return o == s })
	if len(t.old) > 0 {
		return out
	}
	carried := slices.DeleteFunc(t.carried, func(r *Record) bool { return r.state == settled })
	for _, r := range carried {
		r.part = nil
	}
	t.pending = slices.Concat(carried, t.pending)
	t.carried = nil
	if now := t.renewed; now != nil {
		t.renewed = nil
		t.begin(*now)
	} else if len(t.pending) > 0 {
		t.load()
	}
	return out
}

// begin takes the leaders, makes the partitions that are new, and places what waits for
// them.
func (t *topic) begin(now State) {
	t.id = now.ID
	t.limit = cmp.Or(now.Limit, t.sender.cfg.Limit) // a refusal may have made it smaller meanwhile
	for id := len(t.parts); id < len(now.Partitions); id++ {
		t.parts = append(t.parts, &partition{
			topic: t, topicID: now.ID, id: int32(id), leader: -1, leaderEpoch: -1, producerID: -1, knownID: -1, spentID: t.sender.spent(t),
		})
	}
	for id, l := range now.Partitions {
		// A broker that lags behind names an earlier leader. But an epoch that is nobody's must
		// not be believed for ever.
		if s := t.parts[id]; l.Epoch >= s.leaderEpoch || l.Epoch < 0 || s.tries > 3 {
			s.leader, s.leaderEpoch = l.Broker, l.Epoch
		}
	}
	pending := t.pending
	t.pending, t.passed, t.idle = nil, 0, 0
	for _, r := range pending {
		if r.state != settled {
			t.place(r)
		}
	}
	for _, s := range t.parts {
		t.sender.advanceLocked(s)
	}
}

// refuse settles all that waits: there is no such topic, or it is not for this client. It
// returns the first of what became of records; of the rest, settleRefused does.
func (t *topic) refuse(err error) (out []settlement) {
	t.missing = time.Time{}
	for _, s := range slices.Concat(t.old, t.parts) {
		t.refused = append(t.refused, refusal{s.waiting, err})
		s.waiting, s.bytes, s.passed, s.idle = nil, 0, 0, 0
	}
	if len(t.parts) > 0 {
		out = t.leave()
	}
	t.refused = append(t.refused, refusal{t.carried, err}, refusal{t.pending, err})
	t.carried, t.pending, t.passed, t.idle, t.renewed = nil, nil, 0, 0, nil
	return append(out, t.settleRefused()...)
}

// A refusal is records that have waited, are to fail because of err, and wait nowhere any
// more.
type refusal struct {
	records []*Record
	err     error
}

// settleRefused settles some of what refuse has left.
func (t *topic) settleRefused() (out []settlement) {
	for len(t.refused) > 0 && len(out) < maxAtOnce {
		next := &t.refused[0]
		some := next.records[:min(len(next.records), maxAtOnce-len(out))]
		next.records = next.records[len(some):]
		for _, r := range some {
			if r.state != settled {
				out = append(out, t.settle(r, Outcome{Result: NotInLog, Err: next.err}))
			}
		}
		if len(next.records) == 0 {
			t.refused = t.refused[1:]
		}
	}
	if len(t.refused) == 0 && t.refused != nil {
		t.refused = nil
		t.recount()
	}
	return out
}

// judgeState is called with what brokers have answered to a Metadata request: a state, a
// *kerr.Error about the topic, or why there is no answer. Records fail because of an answer
// that says that there is no such topic, or that it is not for this client; all others are
// waited out. UNKNOWN_SERVER_ERROR, too, is a broker's trouble of that moment (kerr does not
// call it retriable, since of a write it leaves open what became of that); Kafka's own
// producer waits likewise.
func (t *topic) judgeState(now State, err error) []settlement {
	if _, answered := errors.AsType[*kerr.Error](err); answered || err == nil {
		t.said = err
	}
	switch {
	case err == nil && len(now.Partitions) > 0:
		return t.update(now)
	case isAny(err, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID):
		patience := unseenTime
		if len(t.parts) > 0 {
			patience = anewTime
		}
		if t.missing.IsZero() || time.Since(t.missed) > anewTime {
			t.missing = time.Now()
		}
		t.missed = time.Now()
		if time.Since(t.missing) < patience {
			return nil
		}
	default:
		if _, answered := errors.AsType[*kerr.Error](err); !answered || kerr.IsRetriable(err) || isLogin(err) || isAny(err, kerr.UnknownServerError) {
			return nil
		}
	}
	return t.refuse(err)
}

// A watch withdraws the records of one context when that ends.
type watch struct {
	done  <-chan struct{}
	stop  func() bool
	first *Record
}

// watch makes the end of r.Ctx withdraw r. Records of the same context share what that
// takes.
func (t *topic) watch(r *Record) {
	if r.Ctx == nil || r.Ctx.Done() == nil {
		return
	}
	done := r.Ctx.Done()
	w := t.watches[done]
	if w == nil {
		w = &watch{done: done}
		ctx := r.Ctx
		w.stop = context.AfterFunc(ctx, func() { t.ended(w, ctx.Err()) })
		if t.watches == nil {
			t.watches = make(map[<-chan struct{}]*watch)
		}
		t.watches[done] = w
	}
	r.watch, r.nextSame = w, w.first
	if w.first != nil {
		w.first.prevSame = r
	}
	w.first = r
}

func (t *topic) unwatch(r *Record) {
	w := r.watch
	if w == nil {
		return
	}
	if r.prevSame != nil {
		r.prevSame.nextSame = r.nextSame
	} else {
		w.first = r.nextSame
	}
	if r.nextSame != nil {
		r.nextSame.prevSame = r.prevSame
	}
	r.watch, r.prevSame, r.nextSame = nil, nil, nil
	if w.first == nil {
		w.stop()
		if t.watches[w.done] == w {
			delete(t.watches, w.done)
		}
	}
}

// ended is called without mu when the context of w has ended. A record that comes with that
// context from now on gets a watch of its own, whose end follows at once.
func (t *topic) ended(w *watch, cause error) {
	t.mu.Lock()
	if t.watches[w.done] == w {
		delete(t.watches, w.done)
	}
	var all []*Record
	for r := w.first; r != nil; r = r.nextSame {
		all = append(all, r)
	}
	t.mu.Unlock()
	slices.Reverse(all) // the newest was first
	for some := range slices.Chunk(all, maxAtOnce) {
		t.mu.Lock()
		var out []settlement
		for _, r := range some {
			out = append(out, t.withdraw(r, cause)...)
		}
		t.sender.unlock(t, out)
	}
}
