package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
)

// An engineLog hands kgo's log on. kgo's Info is a debugging aid to users of this
// package, and its values may hold what brokers said. kgo also warns of every try to
// connect, several times a second while a broker is away: what has just been said, or
// is told in another way, is for debugging, too.
type engineLog struct {
	log  *slog.Logger
	said logonce.Recently

	mu      sync.Mutex      // guards trouble
	trouble map[string]span // by text: what kgo tries again
}

func (l *engineLog) Level() kgo.LogLevel {
	ctx := context.Background()
	switch {
	case l.log.Enabled(ctx, slog.LevelDebug):
		return kgo.LogLevelDebug
	case l.log.Enabled(ctx, slog.LevelWarn):
		return kgo.LogLevelWarn
	case l.log.Enabled(ctx, slog.LevelError):
		return kgo.LogLevelError
	}
	return kgo.LogLevelNone
}

func (l *engineLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	said := []string{msg} // and of what and whom, but not for the how manieth time
	told := hasPrefix(msg, kgoToldElsewhere)
	for i, v := range keyvals {
		var text string
		switch v := v.(type) {
		case error:
			text = errs.Reason(v)
			_, dial := errors.AsType[*dialError](v)
			told = told || dial || errors.Is(v, errs.Authentication) // Health and sasl.State tell
		case string:
			text = errs.Clean(v)
		case nil, bool, int, int16, int32, int64, uint64, float64, time.Duration, time.Time:
			continue
		default:
			keyvals[i] = errs.Clean(fmt.Sprint(v))
			continue
		}
		keyvals[i] = text
		said = append(said, text)
	}
	to := slog.LevelDebug
	if level <= kgo.LogLevelWarn && !told {
		to = l.judge(level, msg, strings.Join(said, " "))
	}
	l.log.Log(context.Background(), to, "gracedb: kafka: "+msg, keyvals...)
}

// judge returns the level at which users are told what the engine says at level.
func (l *engineLog) judge(level kgo.LogLevel, msg, said string) slog.Level {
	lasts := level == kgo.LogLevelError && (!hasPrefix(msg, kgoTriesAgain) || l.lasts(said))
	switch {
	case lasts && !l.said.Already("error "+said):
		return slog.LevelError
	case !lasts && !l.said.Already(said):
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// lasts reports whether what is said now was said first a second ago or more, and has
// been said since without a long pause.
func (l *engineLog) lasts(said string) bool {
	const pause = 30 * time.Second
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	t, known := l.trouble[logonce.Timeless(said)]
	if !known || now.Sub(t.last) > pause {
		t.first = now
	}
	t.last = now
	const limit = 1000 // whoever can make up texts gets no more memory
	if l.trouble == nil || len(l.trouble) >= limit {
		l.trouble = make(map[string]span)
	}
	l.trouble[logonce.Timeless(said)] = t
	return now.Sub(t.first) >= time.Second
}

// A span is when something was said first and last.
type span struct{ first, last time.Time }
