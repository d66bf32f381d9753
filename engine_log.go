package gracedb

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An engineLog hands kgo's log on. kgo's Info is a debugging aid to users of this
// package, and its values may hold what brokers said. kgo also warns of every try to
// connect, several times a second while a broker is away: what has just been said is
// for debugging, too.
type engineLog struct {
	log  *slog.Logger
	said recently
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
	same := []any{level, msg} // whenever this is said
	for i, v := range keyvals {
		switch v := v.(type) {
		case error:
			keyvals[i] = cleanText(v.Error())
		case string:
			keyvals[i] = cleanText(v)
		}
		if i%2 == 1 && keyvals[i-1] != "consecutive_errors" && keyvals[i-1] != "backoff" {
			same = append(same, keyvals[i-1], keyvals[i])
		}
	}
	to := slog.LevelDebug
	switch {
	case level > kgo.LogLevelWarn, l.said.already(fmt.Sprint(same...)):
	case level == kgo.LogLevelError:
		to = slog.LevelError
	case level == kgo.LogLevelWarn:
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "gracedb: kafka: "+msg, keyvals...)
}

// repeatAfter is when a warning is said again.
const repeatAfter = time.Minute

// recently remembers what has been said, to say it once a minute.
type recently struct {
	mu   sync.Mutex
	said map[string]time.Time
}

// ownAddress matches this end of a connection, whose port is another each time.
var ownAddress = regexp.MustCompile(`\S+->`)

// already reports whether text, but for ports of ours, has been said within
// repeatAfter. If not, it is now.
func (r *recently) already(text string) bool {
	text = ownAddress.ReplaceAllString(text, "->")
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if at, ok := r.said[text]; ok && now.Sub(at) < repeatAfter {
		return true
	}
	const limit = 1000 // whoever can make up texts gets them repeated, but no more memory
	if r.said == nil || len(r.said) >= limit {
		r.said = make(map[string]time.Time)
	}
	r.said[text] = now
	return false
}
