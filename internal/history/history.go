// Package history judges what callers were told of the messages that they sent. It
// holds that against the log, as Jepsen does: each send ends delivered, failed or
// unknown, and each of these is a promise.
package history

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
)

// A History is safe for concurrent use.
type History struct {
	mu     sync.Mutex
	sends  map[string]*Sent // by value
	keys   map[string]int   // how many were sent with a key
	broken []string         // promises that need no log to be seen broken
	loose  []span           // when messages were under way whose order is not promised
}

// A span is a time from one moment to another.
type span struct{ from, to time.Time }

// A Sent is one message.
type Sent struct {
	Key       string
	Number    int // among those of its key, in the order of the calls
	Outcome   Outcome
	Partition int32 // where it was acknowledged
	Offset    int64
	Err       error
	Began     time.Time
	Ended     time.Time // when it had an outcome
}

// An Outcome is what became of a message, as its sender was told.
type Outcome int

// The outcomes. Pending is none yet; Unknown is ErrOutcomeUnknown, Failed any other
// error, which must be ErrDelivery.
const (
	Pending Outcome = iota
	Delivered
	Failed
	Unknown
)

// String returns the name of an outcome.
func (o Outcome) String() string {
	return [...]string{"pending", "delivered", "failed", "unknown"}[o]
}

// New returns a History of nothing.
func New() *History {
	return &History{sends: make(map[string]*Sent), keys: make(map[string]int)}
}

// Begin returns the next message to send with a key. Calls with one key come from
// one goroutine, in the order of the sends. A sender may append a space and
// anything to the value, such as Noise.
func (h *History) Begin(key string) gracedb.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.keys[key]
	h.keys[key]++
	value := fmt.Sprintf("%s/%d", key, n)
	h.sends[value] = &Sent{Key: key, Number: n, Began: time.Now()}
	return gracedb.Message{Key: []byte(key), Value: []byte(value)}
}

// Noise returns a space, and n bytes that no codec shrinks.
func Noise(n int) []byte {
	noise := make([]byte, 1+n)
	noise[0] = ' '
	_, _ = rand.Read(noise[1:]) // it never fails
	return noise
}

// End notes what the caller was told. A message that was refused before it was
// accepted is failed, too. It returns what is wrong with that, or "": Check will
// say it again.
func (h *History) End(sent, got gracedb.Message, err error) (wrong string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	value := name(sent.Value)
	s := h.sends[value]
	switch no, maybe := errors.Is(err, gracedb.ErrDelivery), errors.Is(err, gracedb.ErrOutcomeUnknown); {
	case s == nil:
		wrong = fmt.Sprintf("%.40q was never begun", value)
	case s.Outcome != Pending:
		wrong = fmt.Sprintf("%s: told twice: %s (%v), then %v", value, s.Outcome, s.Err, err)
	case err == nil:
		s.Outcome, s.Partition, s.Offset = Delivered, got.Partition, got.Offset
	case no && !maybe:
		s.Outcome, s.Err = Failed, err
	case maybe && !no:
		s.Outcome, s.Err = Unknown, err
	default:
		s.Outcome, s.Err = Unknown, err // the weakest promise, for the rest of the judgement
		wrong = fmt.Sprintf("%s: neither failed nor unknown: %v", value, err)
	}
	if s != nil && s.Ended.IsZero() {
		s.Ended = time.Now()
	}
	if wrong != "" {
		h.broken = append(h.broken, wrong)
	}
	return wrong
}

// name returns the part of a message's value by which it is known.
func name(value []byte) string {
	s, _, _ := strings.Cut(string(value), " ")
	return s
}

// Unordered excepts what was under way in a span from the order of its key: a broker
// that refuses to authenticate with a bare code 58 makes the engine fail what is
// queued, since whenever that may be, and what is sent again then comes behind what
// followed it.
func (h *History) Unordered(from, to time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loose = append(h.loose, span{from, to})
}

func (h *History) ordered(s *Sent) bool {
	return !slices.ContainsFunc(h.loose, func(l span) bool { return !s.Ended.Before(l.from) && !s.Began.After(l.to) })
}

// Sends returns all that was begun, by value. They change as the sends end.
func (h *History) Sends() map[string]*Sent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sends
}

// Count returns how many sends ended in each way.
func (h *History) Count() map[Outcome]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := make(map[Outcome]int)
	for _, s := range h.sends {
		n[s.Outcome]++
	}
	return n
}

// Check reports every promise that the log breaks: what was acknowledged is there
// once, where it was said to be, and in the order of its key; what failed is not
// there; what is unknown is there at most once; nothing else is. The order is that in
// each partition by itself: where partitions are added a key moves to another.
func (h *History) Check(records []*kgo.Record) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	broken := slices.Clone(h.broken)
	say := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	seen := make(map[string][]*kgo.Record)
	for _, r := range records {
		value := name(r.Value)
		seen[value] = append(seen[value], r)
		if h.sends[value] == nil {
			say("%.40q at %s/%d/%d was never sent", value, r.Topic, r.Partition, r.Offset)
		}
	}
	var inOrder []*Sent
	for value, s := range h.sends {
		found := seen[value]
		switch {
		case s.Outcome == Pending:
			say("%s has no outcome", value)
		case s.Outcome == Delivered && len(found) != 1, s.Outcome == Failed && len(found) != 0, len(found) > 1:
			say("%s is %s (%v), and %d times in the log%s", value, s.Outcome, s.Err, len(found), places(found))
		case s.Outcome == Delivered && (found[0].Offset != s.Offset || found[0].Partition != s.Partition):
			say("%s was acknowledged at %d/%d and is at %d/%d", value, s.Partition, s.Offset, found[0].Partition, found[0].Offset)
		case s.Outcome == Delivered && h.ordered(s):
			inOrder = append(inOrder, s)
		}
	}
	slices.SortFunc(inOrder, func(a, b *Sent) int { return a.Number - b.Number })
	type line struct {
		key       string
		partition int32
	}
	last := make(map[line]*Sent)
	for _, s := range inOrder {
		at := line{s.Key, s.Partition}
		if before := last[at]; before != nil && before.Offset > s.Offset {
			say("%s/%d is at %d, behind %s/%d at %d", s.Key, s.Number, s.Offset, s.Key, before.Number, before.Offset)
		}
		last[at] = s
	}
	return broken
}

func places(found []*kgo.Record) string {
	var b strings.Builder
	for _, r := range found {
		fmt.Fprintf(&b, ", at %d/%d by producer %d epoch %d", r.Partition, r.Offset, r.ProducerID, r.ProducerEpoch)
	}
	return b.String()
}
