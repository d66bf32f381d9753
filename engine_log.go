package gracedb

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
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
	said := []string{msg} // and of what and whom, but not for the how manieth time
	for i, v := range keyvals {
		var text string
		switch v := v.(type) {
		case error:
			text = cleanText(v.Error())
		case string:
			text = cleanText(v)
		default:
			continue
		}
		keyvals[i] = text
		said = append(said, text)
	}
	to := slog.LevelDebug
	switch {
	case level > kgo.LogLevelWarn, strings.HasPrefix(msg, notAsked), l.said.already(strings.Join(said, " ")):
	case level == kgo.LogLevelError:
		to = slog.LevelError
	case level == kgo.LogLevelWarn:
		to = slog.LevelWarn
	}
	l.log.Log(context.Background(), to, "gracedb: kafka: "+msg, keyvals...)
}

// notAsked is how kgo puts it that a Produce answer leaves out what parseRequest did.
const notAsked = "broker did not reply to all topics / partitions"

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

// A warning is what somebody was told who reads log.
type warning struct {
	log  *slog.Logger
	text string
}

// warned is when each was said last, by whichever client.
var warned struct {
	mu sync.Mutex
	at map[warning]time.Time
}

// warnAgainAfter is when a warning about the configuration is said again.
const warnAgainAfter = time.Hour

// warnOnce warns of what lasts, such as a file that others may change: once an hour,
// however many clients with this logger come across it.
func warnOnce(log *slog.Logger, text string) {
	if !log.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	w, now := warning{log, text}, time.Now()
	warned.mu.Lock()
	at, known := warned.at[w]
	fresh := !known || now.Sub(at) >= warnAgainAfter
	if fresh {
		const limit = 1000 // whoever can make up texts gets them repeated, but no more memory
		if warned.at == nil || len(warned.at) >= limit {
			warned.at = make(map[warning]time.Time)
		}
		warned.at[w] = now
	}
	warned.mu.Unlock()
	if fresh {
		log.Warn(text)
	}
}
