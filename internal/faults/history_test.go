package faults

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
)

// A history is what callers were told of the messages that they sent. The checker
// holds it against the log, as Jepsen does: each send ends ok, failed or unknown.
type history struct {
	mu    sync.Mutex
	sends map[string]*sent // by value
	keys  map[string]int   // how many were sent with a key
	loose []span           // when messages were sent whose order is not promised
}

// A span is a time from one moment to another.
type span struct{ from, to time.Time }

// A sent is one message.
type sent struct {
	key     string
	number  int // among those of its key, in the order of the calls
	began   time.Time
	outcome outcome
	at      gracedb.Message
	err     error
}

type outcome int

const (
	pending outcome = iota
	delivered
	failed
	unknown
)

func (o outcome) String() string {
	return [...]string{"pending", "delivered", "failed", "unknown"}[o]
}

func newHistory() *history {
	return &history{sends: make(map[string]*sent), keys: make(map[string]int)}
}

// begin returns the next message to send with a key. Calls with one key come from
// one goroutine, in the order of the sends.
func (h *history) begin(key string) gracedb.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.keys[key]
	h.keys[key]++
	value := fmt.Sprintf("%s/%d", key, n)
	h.sends[value] = &sent{key: key, number: n, began: time.Now()}
	return gracedb.Message{Key: []byte(key), Value: []byte(value)}
}

// end notes what the caller was told. A message that was refused before it was
// accepted is failed, too.
func (h *history) end(t testing.TB, sent, got gracedb.Message, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	value, _, _ := strings.Cut(string(sent.Value), " ") // padding
	s := h.sends[value]
	if s == nil || s.outcome != pending {
		t.Errorf("%.40s: told twice: %v, then %v", sent.Value, s, err)
		return
	}
	s.at, s.err = got, err
	switch no, maybe := errors.Is(err, gracedb.ErrDelivery), errors.Is(err, gracedb.ErrOutcomeUnknown); {
	case err == nil:
		s.outcome = delivered
	case no && !maybe:
		s.outcome = failed
	case maybe && !no:
		s.outcome = unknown
	default:
		t.Errorf("%s: neither failed nor unknown: %v", sent.Value, err)
	}
}

// unordered excepts what was sent in a span from the order of its key: a broker that
// refuses to authenticate with a bare code 58 makes the engine fail what is queued,
// and what is sent again then comes behind what followed it.
func (h *history) unordered(from, to time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loose = append(h.loose, span{from, to})
}

func (h *history) ordered(s *sent) bool {
	return !slices.ContainsFunc(h.loose, func(l span) bool { return !s.began.Before(l.from) && !s.began.After(l.to) })
}

// count returns how many sends ended in each way.
func (h *history) count() map[outcome]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := make(map[outcome]int)
	for _, s := range h.sends {
		n[s.outcome]++
	}
	return n
}

// check reports every promise that the log breaks: what was acknowledged is there
// once, where it was said to be, and in the order of its key; what failed is not
// there; what is unknown is there at most once; nothing else is.
func (h *history) check(records []*kgo.Record) (broken []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	say := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	seen := make(map[string][]*kgo.Record)
	for _, r := range records {
		value, _, _ := strings.Cut(string(r.Value), " ")
		seen[value] = append(seen[value], r)
		if h.sends[value] == nil {
			say("%.40q at %s/%d/%d was never sent", value, r.Topic, r.Partition, r.Offset)
		}
	}
	last := make(map[string]*sent)
	var inOrder []*sent
	for value, s := range h.sends {
		found := seen[value]
		switch {
		case s.outcome == pending:
			say("%s has no outcome", value)
		case s.outcome == delivered && len(found) != 1, s.outcome == failed && len(found) != 0, len(found) > 1:
			say("%s is %s (%v), and %d times in the log", value, s.outcome, s.err, len(found))
		case s.outcome == delivered && (found[0].Offset != s.at.Offset || found[0].Partition != s.at.Partition):
			say("%s was acknowledged at %d/%d and is at %d/%d", value, s.at.Partition, s.at.Offset, found[0].Partition, found[0].Offset)
		case s.outcome == delivered && h.ordered(s):
			inOrder = append(inOrder, s)
		}
	}
	slices.SortFunc(inOrder, func(a, b *sent) int { return a.number - b.number })
	for _, s := range inOrder {
		if before := last[s.key]; before != nil && before.at.Partition == s.at.Partition && before.at.Offset > s.at.Offset {
			say("%s/%d is at %d, behind %s/%d at %d", s.key, s.number, s.at.Offset, s.key, before.number, before.at.Offset)
		}
		last[s.key] = s
	}
	return broken
}

// The checker finds what it is there to find.
func TestHistory(t *testing.T) {
	record := func(value string, offset int64) *kgo.Record {
		return &kgo.Record{Topic: "t", Value: []byte(value), Offset: offset}
	}
	at := func(offset int64) gracedb.Message { return gracedb.Message{Offset: offset} }
	for _, tt := range []struct {
		name string
		ends []any // of k/0, k/1…: a Message, an error, or nil for none
		log  []*kgo.Record
		want int
	}{
		{"well", []any{at(0), at(1), gracedb.ErrDelivery, gracedb.ErrOutcomeUnknown, gracedb.ErrOutcomeUnknown}, []*kgo.Record{record("k/0", 0), record("k/1", 1), record("k/4", 2)}, 0},
		{"lost", []any{at(0)}, nil, 1},
		{"doubled", []any{at(0)}, []*kgo.Record{record("k/0", 0), record("k/0", 1)}, 1},
		{"elsewhere", []any{at(0)}, []*kgo.Record{record("k/0", 1)}, 1},
		{"failed and written", []any{gracedb.ErrDelivery}, []*kgo.Record{record("k/0", 0)}, 1},
		{"unknown and doubled", []any{gracedb.ErrOutcomeUnknown}, []*kgo.Record{record("k/0", 0), record("k/0", 1)}, 1},
		{"out of order", []any{at(1), at(0)}, []*kgo.Record{record("k/1", 0), record("k/0", 1)}, 1},
		{"never told", []any{nil}, nil, 1},
		{"never sent", nil, []*kgo.Record{record("k/0", 0)}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHistory()
			for _, end := range tt.ends {
				m := h.begin("k")
				switch end := end.(type) {
				case gracedb.Message:
					h.end(t, m, end, nil)
				case error:
					h.end(t, m, gracedb.Message{}, end)
				}
			}
			if broken := h.check(tt.log); len(broken) != tt.want {
				t.Errorf("%q", broken)
			}
		})
	}
}
