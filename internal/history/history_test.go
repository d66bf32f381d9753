package history

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
)

// ended returns a history of messages of one key that end so: with a Message that was
// delivered, an error, or not at all if it is nil.
func ended(ends []any) *History {
	h := New()
	for _, end := range ends {
		m := h.Begin("k")
		switch end := end.(type) {
		case gracedb.Message:
			h.End(m, end, nil)
		case error:
			h.End(m, gracedb.Message{}, end)
		}
	}
	return h
}

// The checker finds what it is there to find.
func TestHistory(t *testing.T) {
	record := func(value string, offset int64) *kgo.Record {
		return &kgo.Record{Topic: "t", Value: []byte(value), Offset: offset}
	}
	at := func(offset int64) gracedb.Message { return gracedb.Message{Offset: offset} }
	elsewhere := func(value string, offset int64) *kgo.Record {
		r := record(value, offset)
		r.Partition = 1
		return r
	}
	atElsewhere := func(offset int64) gracedb.Message { return gracedb.Message{Partition: 1, Offset: offset} }
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
		{"moved to another partition", []any{at(5), atElsewhere(0)}, []*kgo.Record{record("k/0", 5), elsewhere("k/1", 0)}, 0},
		{"out of order past another", []any{at(1), atElsewhere(0), at(0)}, []*kgo.Record{record("k/2", 0), record("k/0", 1), elsewhere("k/1", 0)}, 1},
		{"told neither", []any{gracedb.ErrKafka}, nil, 1},
		{"told both", []any{errors.Join(gracedb.ErrDelivery, gracedb.ErrOutcomeUnknown)}, nil, 1},
		{"never told", []any{nil}, nil, 1},
		{"never sent", nil, []*kgo.Record{record("k/0", 0)}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := ended(tt.ends)
			if broken := h.Check(tt.log); len(broken) != tt.want {
				t.Errorf("%q", broken)
			}
		})
	}
}

func TestHistoryToldTwice(t *testing.T) {
	h := New()
	m := h.Begin("k")
	m.Value = append(m.Value, " and padding"...)
	if wrong := h.End(m, m, nil); wrong != "" {
		t.Error(wrong)
	}
	if wrong := h.End(m, m, gracedb.ErrDelivery); wrong == "" {
		t.Error("nothing is wrong")
	}
	if broken := h.Check([]*kgo.Record{{Value: m.Value}}); len(broken) != 1 {
		t.Errorf("%q", broken)
	}
	if n := h.Count(); n[Delivered] != 1 || len(n) != 1 {
		t.Errorf("%v", n)
	}
}

// A topic that was made anew has several logs.
func TestHistoryLogs(t *testing.T) {
	record := func(value string, offset int64) *kgo.Record { return &kgo.Record{Value: []byte(value), Offset: offset} }
	at := func(offset int64) gracedb.Message { return gracedb.Message{Offset: offset} }
	for _, tt := range []struct {
		name string
		ends []any
		logs []Log
		want int
	}{
		{"in either", []any{at(0), at(0)}, []Log{{record("k/0", 0)}, {record("k/1", 0)}}, 0},
		{"in both", []any{at(0)}, []Log{{record("k/0", 0)}, {record("k/0", 1)}}, 0},
		{"unknown in both", []any{gracedb.ErrOutcomeUnknown}, []Log{{record("k/0", 0)}, {record("k/0", 1)}}, 0},
		{"in none", []any{at(0)}, []Log{{}, {}}, 1},
		{"twice in one", []any{at(0)}, []Log{{record("k/0", 0), record("k/0", 1)}, {}}, 1},
		{"failed, and in the first", []any{gracedb.ErrDelivery}, []Log{{record("k/0", 0)}, {}}, 1},
		{"elsewhere in both", []any{at(5)}, []Log{{record("k/0", 0)}, {record("k/0", 1)}}, 1},
		{"out of order in one", []any{at(1), at(0)}, []Log{{}, {record("k/1", 0), record("k/0", 1)}}, 1},
		{"order begins anew", []any{at(1), at(0)}, []Log{{record("k/0", 1)}, {record("k/1", 0)}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := ended(tt.ends)
			if broken := h.CheckLogs(tt.logs...); len(broken) != tt.want {
				t.Errorf("%q", broken)
			}
		})
	}
}

// Without a key there is no order.
func TestHistoryUnkeyed(t *testing.T) {
	h := New()
	for i := range 2 {
		m := h.BeginUnkeyed("n")
		if m.Key != nil {
			t.Errorf("key %q", m.Key)
		}
		h.End(m, gracedb.Message{Offset: int64(1 - i)}, nil)
	}
	if broken := h.Check([]*kgo.Record{{Value: []byte("n/1")}, {Value: []byte("n/0"), Offset: 1}}); len(broken) != 0 {
		t.Errorf("%q", broken)
	}
}

// What brokers must refuse is not in the log, whatever its sender was told.
func TestHistoryRefused(t *testing.T) {
	for _, err := range []error{nil, gracedb.ErrDelivery, gracedb.ErrOutcomeUnknown} {
		h := New()
		m := h.Begin("k")
		h.Refuse(m)
		h.End(m, m, err)
		if broken := h.Check([]*kgo.Record{{Value: m.Value}}); len(broken) != 1 {
			t.Errorf("%v: %q", err, broken)
		}
		if broken := h.Check(nil); (len(broken) != 0) != (err == nil) {
			t.Errorf("%v, not in the log: %q", err, broken)
		}
	}
}

// Only what was under way in a span has no order.
func TestHistoryUnordered(t *testing.T) {
	start := time.Now()
	for _, tt := range []struct {
		name     string
		from, to time.Duration
		want     int
	}{
		{"before", -2 * time.Hour, -time.Hour, 1},
		{"the beginning", -time.Hour, 0, 0},
		{"amid", time.Minute, 2 * time.Minute, 0},
		{"the end", time.Hour, 2 * time.Hour, 0},
		{"after", 2 * time.Hour, 3 * time.Hour, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := New()
			for i := range 2 {
				m := h.Begin("k")
				h.End(m, gracedb.Message{Offset: int64(1 - i)}, nil)
			}
			for _, s := range h.Sends() {
				s.Began, s.Ended = start, start.Add(time.Hour)
			}
			h.Unordered(start.Add(tt.from), start.Add(tt.to))
			if broken := h.Check([]*kgo.Record{{Value: []byte("k/1")}, {Value: []byte("k/0"), Offset: 1}}); len(broken) != tt.want {
				t.Errorf("%q", broken)
			}
		})
	}
}
