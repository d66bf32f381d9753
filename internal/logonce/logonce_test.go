package logonce

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A client writes 30 lines in any minute at most, whatever is to be said, and says how
// many it left out.
func TestLogIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written []time.Time
		leftOut := 0
		log := Paced(slog.New(handlerFunc(func(r slog.Record) {
			written = append(written, time.Now())
			r.Attrs(func(a slog.Attr) bool {
				if a.Key == "left_out_before" {
					leftOut += int(a.Value.Int64())
				}
				return true
			})
		})))
		const all = 20 * 600
		for i := range all {
			log.With("n", i).Warn("trouble", "i", i)
			time.Sleep(50 * time.Millisecond)
		}
		for i := range written {
			n := 0
			for _, at := range written[i:] {
				if at.Sub(written[i]) < time.Minute {
					n++
				}
			}
			if n > 30 {
				t.Fatalf("%d lines in the minute after %v", n, written[i].Sub(written[0]))
			}
		}
		if n := len(written); n < 100 || n+leftOut < all-200 || n+leftOut > all {
			t.Errorf("%d lines, which tell of %d more, of %d", n, leftOut, all)
		}
		time.Sleep(2 * time.Minute)
		before := len(written)
		for range 20 {
			log.Error("trouble")
		}
		if n := len(written) - before; n != 20 {
			t.Errorf("%d lines at once after a pause, want 20", n)
		}
	})
}

type handlerFunc func(slog.Record)

func (handlerFunc) Enabled(_ context.Context, l slog.Level) bool    { return l > slog.LevelDebug }
func (f handlerFunc) Handle(_ context.Context, r slog.Record) error { f(r); return nil }
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f handlerFunc) WithGroup(string) slog.Handler                 { return f }

func TestTimeless(t *testing.T) {
	for _, pair := range [][2]string{
		{"its token expired 4s ago (2026-11-30T10:00:00Z)", "its token expired 2h5m ago (2026-11-30T10:00:01Z)"},
		{"expired 49h ago", "expired 4 days ago"},
		{"read tcp 10.0.0.1:3000->10.0.0.2:9092: reset", "read tcp 10.0.0.1:4000->10.0.0.2:9092: reset"},
	} {
		if a, b := Timeless(pair[0]), Timeless(pair[1]); a != b {
			t.Errorf("%q and %q differ", a, b)
		}
	}
	if Timeless("broker kafka1:9092 refused") == Timeless("broker kafka2:9092 refused") {
		t.Error("two brokers are one")
	}
}
