//go:build unix

package chaos

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/history"
)

// sums are what the report says.
type sums struct {
	start  time.Time
	steps  int
	kinds  map[kind]*effect
	first  time.Duration // worst time from the end of faults to an acknowledgement
	all    time.Duration // the same, in every lane
	sent   map[history.Outcome]int
	ways   map[string]map[history.Outcome]int // the same, by how it was sent
	broken int                                // promises, by the checker
	lost   int                                // acknowledged and not in the log
	double int                                // twice in the log
	lied   int                                // failed, and in the log
	there  int                                // unknown, and in the log
	missed int                                // by readers
	again  map[string]int
	lates  map[string]time.Duration
}

// An effect is what faults of a kind did, alone or with others.
type effect struct {
	times  int
	silent time.Duration // worst
	all    time.Duration
}

func newSums() *sums {
	return &sums{start: time.Now(), kinds: make(map[kind]*effect), again: make(map[string]int), lates: make(map[string]time.Duration)}
}

func (s *sums) step(what step, silent, first, all time.Duration) {
	s.steps++
	s.first, s.all = max(s.first, first), max(s.all, all)
	for _, f := range what.faults {
		e := s.kinds[f.kind]
		if e == nil {
			e = new(effect)
			s.kinds[f.kind] = e
		}
		e.times++
		e.silent, e.all = max(e.silent, silent), max(e.all, all)
	}
}

// judge holds the history against the log.
func (s *sums) judge(t *testing.T, l *load, records []*kgo.Record) {
	t.Helper()
	h := l.history
	broken := h.Check(records)
	s.sent, s.broken = h.Count(), len(broken)
	for i, b := range broken {
		if i == 40 {
			t.Logf("and %d more", len(broken)-i)
			break
		}
		t.Log(b)
	}
	if len(broken) > 0 && !*bare {
		t.Errorf("%d promises are broken", len(broken))
	}
	times := make(map[string]int)
	for _, r := range records {
		value, _, _ := strings.Cut(string(r.Value), " ")
		times[value]++
	}
	ways := make(map[string]string)
	s.ways = make(map[string]map[history.Outcome]int)
	for _, lane := range l.lanes {
		ways[lane.key] = lane.how
		s.ways[lane.how] = make(map[history.Outcome]int)
	}
	var why causes
	for value, sent := range h.Sends() {
		n := times[value]
		key, _, _ := strings.Cut(sent.Key, ".")
		if how, ok := ways[key]; ok {
			s.ways[how][sent.Outcome]++
		}
		switch {
		case n > 1:
			s.double++
		case n == 0 && sent.Outcome == history.Delivered:
			s.lost++
		case n == 1 && sent.Outcome == history.Failed:
			s.lied++
		case n == 1 && sent.Outcome == history.Unknown:
			s.there++
		}
		if sent.Outcome != history.Delivered {
			why.add(fmt.Errorf("%s: %w", sent.Outcome, sent.Err))
		}
	}
	why.print(t, "messages")
}

// causes are errors and how often each was seen.
type causes struct {
	mu sync.Mutex
	n  map[string]int
}

var ports = regexp.MustCompile(`\b(localhost|127\.0\.0\.1):\d+`)

func (c *causes) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[fmt.Sprintf("%.220s", ports.ReplaceAllString(err.Error(), "$1"))]++
}

func (c *causes) print(t *testing.T, of string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range slices.Sorted(maps.Keys(c.n)) {
		t.Logf("%s: %d times: %s", of, c.n[text], text)
	}
}

func (s *sums) late(call string, by time.Duration) { s.lates[call] = max(s.lates[call], by, 0) }

// called checks that nothing has hung past its ctx or its promise.
func (s *sums) called(t *testing.T, l *load) {
	t.Helper()
	l.unopened.print(t, "NewProducer")
	for call, by := range l.over {
		s.late(call, by)
	}
	for call, by := range s.lates {
		if by > room*100*time.Millisecond && !*bare {
			t.Errorf("%s: %v late, promised at most 100ms", call, by)
		}
	}
}

// print logs the sums as the tables of docs/reliability/runs.md, and writes them to -chaos.report.
func (s *sums) print(t *testing.T) {
	t.Helper()
	var b strings.Builder
	row := func(cells ...any) {
		for _, c := range cells {
			fmt.Fprintf(&b, "| %v ", c)
		}
		b.WriteString("|\n")
	}
	who := "gracedb"
	if *bare {
		who = "plain franz-go"
	}
	total := 0
	for _, n := range s.sent {
		total += n
	}
	b.WriteString("| | |\n|---|---|\n")
	row("who publishes, seed, time", fmt.Sprintf("%s, %d, %v", who, *seed, time.Since(s.start).Round(time.Second)))
	row("steps, of one or two faults", s.steps)
	row("messages sent", total)
	for _, o := range []history.Outcome{history.Delivered, history.Failed, history.Unknown, history.Pending} {
		row(o, s.sent[o])
	}
	row("acknowledged, not in the log", s.lost)
	row("twice in the log", s.double)
	row("failed, but in the log", s.lied)
	row("unknown, and in the log", s.there)
	row("promises broken, in all", s.broken)
	row("missed by consumers", s.missed)
	for _, name := range slices.Sorted(maps.Keys(s.again)) {
		row("read again by the "+name, s.again[name])
	}
	row("worst time from the end of a fault to the next acknowledgement", round(s.first))
	row("the same, of every sender", round(s.all))

	b.WriteString("\n| how it was sent | delivered | not written | unknown |\n|---|---|---|---|\n")
	for _, how := range slices.Sorted(maps.Keys(s.ways)) {
		w := s.ways[how]
		row(how, w[history.Delivered], w[history.Failed], w[history.Unknown])
	}
	b.WriteString("\n| a call with this bound | came later than that by at most |\n|---|---|\n")
	for _, call := range slices.Sorted(maps.Keys(s.lates)) {
		row(call, round(s.lates[call]))
	}
	b.WriteString("\n| fault | times | without an acknowledgement | from its end until every sender had one |\n|---|---|---|---|\n")
	for _, k := range slices.Sorted(maps.Keys(s.kinds)) {
		e := s.kinds[k]
		row(k, e.times, round(e.silent), round(e.all))
	}
	t.Log("\n" + b.String())
	if *report != "" {
		must(t, os.WriteFile(*report, []byte(b.String()), 0o644))
	}
}
