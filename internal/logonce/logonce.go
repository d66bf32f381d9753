// Package logonce keeps the log of a client short: what goes wrong is said once a minute
// while it lasts, what somebody should mend once an hour, and 30 lines a minute in all.
// It starts no goroutine.
package logonce

import (
	"context"
	"log/slog"
	"regexp"
	"sync"
	"time"
)

// A pacedHandler keeps the log of one client to 30 lines a minute, whatever goes wrong
// and however often: beyond that, lines are for debugging. The next one says how many.
type pacedHandler struct {
	slog.Handler
	of   *slog.Logger // the user's
	pace *linePace    // shared with what With returns
}

// A linePace is a bucket of linesAtOnce lines, into which a line drips every lineEvery:
// in no minute more than 30 are taken out of it.
type linePace struct {
	mu      sync.Mutex
	full    time.Time // when it will be, if no more is taken
	leftOut int
}

const (
	linesAtOnce = 20
	lineEvery   = 6 * time.Second
)

// Paced returns a logger for one client that hands on to log.
func Paced(log *slog.Logger) *slog.Logger {
	if log == nil {
		return nil
	}
	return slog.New(&pacedHandler{log.Handler(), log, &linePace{}})
}

// take reports whether a line may be written now, and how many before it were not.
func (p *linePace) take() (leftOut int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.full.Before(now) {
		p.full = now
	}
	if p.full.Sub(now) > (linesAtOnce-1)*lineEvery {
		p.leftOut++
		return 0, false
	}
	p.full = p.full.Add(lineEvery)
	leftOut, p.leftOut = p.leftOut, 0
	return leftOut, true
}

// Handle hands r on, unless there were too many of late.
func (h *pacedHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level <= slog.LevelDebug {
		return h.Handler.Handle(ctx, r)
	}
	leftOut, ok := h.pace.take()
	switch {
	case !ok && !h.Handler.Enabled(ctx, slog.LevelDebug):
		return nil
	case !ok:
		r.Level = slog.LevelDebug
	case leftOut > 0:
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out_before", leftOut))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (h *pacedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &pacedHandler{h.Handler.WithAttrs(attrs), h.of, h.pace}
}

// WithGroup is slog.Handler's.
func (h *pacedHandler) WithGroup(name string) slog.Handler {
	return &pacedHandler{h.Handler.WithGroup(name), h.of, h.pace}
}

// RepeatAfter is when a warning is said again.
const RepeatAfter = time.Minute

// Recently remembers what has been said, to say it once a minute. It is safe for concurrent
// use, and its zero value is ready.
type Recently struct{ said times[string] }

var (
	// ownAddress matches this end of a connection, whose port is another each time.
	ownAddress = regexp.MustCompile(`\S+->`)
	// timesInText match how long ago something was, and when, which is another each time.
	timesInText = regexp.MustCompile(`\b([0-9.]+(ns|µs|ms|s|m|h| days))+\b|\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?`)
)

// Timeless returns text without what changes although nothing else has: two texts
// about one state are the same then.
func Timeless(text string) string {
	return timesInText.ReplaceAllString(ownAddress.ReplaceAllString(text, "->"), "#")
}

// Already reports whether text, but for what Timeless leaves out, has been said within
// RepeatAfter. If not, it is now.
func (r *Recently) Already(text string) bool {
	return r.said.within(Timeless(text), RepeatAfter)
}

// A times is when each of several things was said last.
type times[K comparable] struct {
	mu   sync.Mutex
	last map[K]time.Time // guarded by mu
}

// within reports whether what was said in the time before now. If not, it is now.
func (t *times[K]) within(what K, before time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if at, ok := t.last[what]; ok && now.Sub(at) < before {
		return true
	}
	const limit = 1000 // whoever can make up texts gets them repeated, but no more memory
	if t.last == nil || len(t.last) >= limit {
		t.last = make(map[K]time.Time)
	}
	t.last[what] = now
	return false
}

// A warning is what somebody was told who reads log.
type warning struct {
	log  *slog.Logger
	text string
}

// warned is when each was said last, by whichever client.
var warned times[warning]

// warnAgainAfter is when a warning about the configuration is said again.
const warnAgainAfter = time.Hour

// Warn warns of what lasts, such as a file that others may change: once an hour,
// however many clients with this logger come across it.
func Warn(log *slog.Logger, text string) {
	if !log.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	w := warning{log, text}
	if h, ok := log.Handler().(*pacedHandler); ok {
		w.log = h.of
	}
	if !warned.within(w, warnAgainAfter) {
		log.Warn(text)
	}
}
