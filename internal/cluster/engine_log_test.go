package cluster

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

	"github.com/gracedb-go/gracedb/internal/sasl"
)

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
		auth := sasl.NewState(slog.New(handlerFunc(func(slog.Record) { lines++ })), 0)
		w := NewHealth(auth.Log, auth)
		dials := 0
		dial, err := Config{Plaintext: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
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
		if is, text := w.Trouble(); dials > 0 || lines > 0 || is != nil {
			t.Errorf("%d dials, %d lines, trouble %q", dials, lines, text)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not tried") {
			t.Errorf("the error is %v", err)
		}
	})
}

type handlerFunc func(slog.Record)

func (handlerFunc) Enabled(_ context.Context, l slog.Level) bool    { return l > slog.LevelDebug }
func (f handlerFunc) Handle(_ context.Context, r slog.Record) error { f(r); return nil }
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f handlerFunc) WithGroup(string) slog.Handler                 { return f }
