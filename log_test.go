package gracedb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A client writes 30 lines in any minute at most, whatever is to be said, and says how
// many it left out.
func TestLogIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written []time.Time
		leftOut := 0
		log := pacedLog(slog.New(handlerFunc(func(r slog.Record) {
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
		if a, b := timeless(pair[0]), timeless(pair[1]); a != b {
			t.Errorf("%q and %q differ", a, b)
		}
	}
	if timeless("broker kafka1:9092 refused") == timeless("broker kafka2:9092 refused") {
		t.Error("two brokers are one")
	}
}

// What the engine tries again is an error only when that takes longer than a second;
// what is told in another way, nobody has to read twice.
func TestEngineLogLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var levels []slog.Level
		l := &engineLog{log: slog.New(handlerFunc(func(r slog.Record) { levels = append(levels, r.Level) }))}
		said := func(level kgo.LogLevel, msg string) slog.Level {
			levels = []slog.Level{slog.LevelDebug}
			l.Log(level, msg, "group", "g", "err", errors.New("UNKNOWN_MEMBER_ID"), "backoff", time.Second)
			return levels[len(levels)-1]
		}
		for _, step := range []struct {
			msg   string
			level kgo.LogLevel
			after time.Duration
			want  slog.Level
		}{
			{"group manage loop errored", kgo.LogLevelError, 0, slog.LevelWarn},
			{"group manage loop errored", kgo.LogLevelError, 500 * time.Millisecond, slog.LevelDebug},
			{"group manage loop errored", kgo.LogLevelError, 700 * time.Millisecond, slog.LevelError},
			{"group manage loop errored", kgo.LogLevelError, 20 * time.Second, slog.LevelDebug},
			{"group manage loop errored", kgo.LogLevelError, 29 * time.Second, slog.LevelDebug},
			{"group manage loop errored", kgo.LogLevelError, 29 * time.Second, slog.LevelError}, // once a minute
			{"group manage loop errored", kgo.LogLevelError, 5 * time.Minute, slog.LevelWarn},   // another time
			{"balance failed", kgo.LogLevelError, 0, slog.LevelError},
			{"join group failed", kgo.LogLevelWarn, 0, slog.LevelWarn},
			{"unable to open connection to broker", kgo.LogLevelWarn, 0, slog.LevelDebug},
			{"received OFFSET_OUT_OF_RANGE while consuming; either", kgo.LogLevelWarn, 0, slog.LevelDebug},
			{"connection opened to broker", kgo.LogLevelInfo, 0, slog.LevelDebug},
		} {
			time.Sleep(step.after)
			if got := said(step.level, step.msg); got != step.want {
				t.Errorf("%s after %v: %v, want %v", step.msg, step.after, got, step.want)
			}
		}
	})
}

// A connection that was asked for by a request whose ctx has ended says nothing of the
// network; nor does it hold up the next.
func TestNotDialed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := 0
		auth := newAuthState(slog.New(handlerFunc(func(slog.Record) { lines++ })), 0)
		w := newHealth(auth.log, auth)
		dials := 0
		dial, err := Cluster{Plaintext: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials++
			return nil, ctx.Err()
		}}.dialer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(2 * time.Second)
		_, err = dial(ended, "tcp", "localhost:1")
		w.OnBrokerConnect(kgo.BrokerMetadata{Host: "localhost", Port: 1}, 0, nil, fmt.Errorf("unable to dial: %w", err))
		if is, text := w.trouble(); dials > 0 || lines > 0 || is != nil {
			t.Errorf("%d dials, %d lines, trouble %q", dials, lines, text)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not tried") {
			t.Errorf("the error is %v", err)
		}
	})
}
