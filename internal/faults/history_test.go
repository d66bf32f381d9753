package faults

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	judge "github.com/gracedb-go/gracedb/internal/history"
)

const (
	pending   = judge.Pending
	delivered = judge.Delivered
	failed    = judge.Failed
	unknown   = judge.Unknown
)

type outcome = judge.Outcome

// A history is what callers were told of the messages that they sent.
type history struct{ shared *judge.History }

func newHistory() *history { return &history{judge.New()} }

func (h *history) begin(key string) gracedb.Message { return h.shared.Begin(key) }

func (h *history) beginUnkeyed(name string) gracedb.Message { return h.shared.BeginUnkeyed(name) }

func (h *history) end(t testing.TB, sent, got gracedb.Message, err error) {
	t.Helper()
	if wrong := h.shared.End(sent, got, err); wrong != "" {
		t.Error(wrong)
	}
}

func (h *history) unordered(from, to time.Time) { h.shared.Unordered(from, to) }

func (h *history) count() map[judge.Outcome]int { return h.shared.Count() }

func (h *history) check(records []*kgo.Record) []string { return h.shared.Check(records) }

func (h *history) checkLogs(logs ...judge.Log) []string { return h.shared.CheckLogs(logs...) }

// sends returns every message by its value.
func (h *history) sends() map[string]*judge.Sent { return h.shared.Sends() }
