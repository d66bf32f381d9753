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

// A Log is what a topic holds, or held until it was deleted.
type Log []*kgo.Record

// A span is a time from one moment to another.
type span struct{ from, to time.Time }

// A Sent is one message.
type Sent struct {
	Key       string
	Number    int  // among those of its key, in the order of the calls
	Unkeyed   bool // it was sent without a key, so that its order is not promised
	Refused   bool // brokers take it in no company
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
	m := h.begin(Sent{Key: key})
	m.Key = []byte(key)
	return m
}

// BeginUnkeyed is Begin for a message without a key. Its name takes the place of one in
// what is reported.
func (h *History) BeginUnkeyed(name string) gracedb.Message {
	return h.begin(Sent{Key: name, Unkeyed: true})
}

// Refuse notes of a message that was begun that brokers must refuse it, whatever else is
// sent with it: it must end failed, or unknown where the refusal is lost.
func (h *History) Refuse(m gracedb.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sends[name(m.Value)].Refused = true
}

func (h *History) begin(s Sent) gracedb.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Number, s.Began = h.keys[s.Key], time.Now()
	h.keys[s.Key]++
	value := fmt.Sprintf("%s/%d", s.Key, s.Number)
	h.sends[value] = &s
	return gracedb.Message{Value: []byte(value)}
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
func (h *History) Check(records []*kgo.Record) []string { return h.CheckLogs(records) }

// A place is where a record was found.
type place struct {
	*kgo.Record
	log int
}

// CheckLogs is Check for a topic that was deleted and made anew: each time it had
// another log. What was acknowledged is in one of them, and nothing is twice in the
// same. It may be in two of them: whoever has lost an acknowledgement together with the
// log cannot know.
func (h *History) CheckLogs(logs ...Log) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	broken := slices.Clone(h.broken)
	say := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	seen := make(map[string][]place)
	for i, log := range logs {
		for _, r := range log {
			value := name(r.Value)
			seen[value] = append(seen[value], place{r, i})
			if h.sends[value] == nil {
				say("%.40q at %s/%d/%d was never sent", value, r.Topic, r.Partition, r.Offset)
			}
		}
	}
	lines := make(map[line][]*Sent)
	for value, s := range h.sends {
		found := seen[value]
		at := slices.IndexFunc(found, func(f place) bool { return f.Offset == s.Offset && f.Partition == s.Partition })
		switch {
		case s.Outcome == Pending:
			say("%s has no outcome", value)
		case s.Outcome == Delivered && len(found) == 0, s.Outcome == Failed && len(found) != 0, twiceInOne(found):
			say("%s is %s (%v), and %d times in the log%s", value, s.Outcome, s.Err, len(found), places(found))
		case s.Refused && len(found) > 0:
			say("%s is %s, and in the log%s, where brokers should have refused it", value, s.Outcome, places(found))
		case s.Outcome == Delivered && at < 0:
			say("%s was acknowledged at %d/%d and is elsewhere%s", value, s.Partition, s.Offset, places(found))
		case s.Outcome == Delivered && !s.Unkeyed && h.ordered(s):
			l := line{s.Key, s.Partition, found[at].log}
			lines[l] = append(lines[l], s)
		}
	}
	for _, sent := range lines {
		slices.SortFunc(sent, func(a, b *Sent) int { return a.Number - b.Number })
		for i, s := range sent[1:] {
			if before := sent[i]; before.Offset > s.Offset {
				say("%s/%d is at %d, behind %s/%d at %d", s.Key, s.Number, s.Offset, s.Key, before.Number, before.Offset)
			}
		}
	}
	return broken
}

// A line is messages whose order is promised.
type line struct {
	key       string
	partition int32
	log       int
}

func twiceInOne(found []place) bool {
	for i, f := range found {
		if slices.ContainsFunc(found[:i], func(o place) bool { return o.log == f.log }) {
			return true
		}
	}
	return false
}

func places(found []place) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, ", at %d/%d by producer %d epoch %d", f.Partition, f.Offset, f.ProducerID, f.ProducerEpoch)
		if f.log > 0 {
			fmt.Fprintf(&b, " in log %d", f.log)
		}
	}
	return b.String()
}
