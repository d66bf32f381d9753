package gracedb

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// This file is about the pauses that brokers ask for when a client is over its quota
// (KIP-219). The engine sends nothing on that connection meanwhile.

// throttledFor says that a broker has asked for a longer pause than is kept.
func (w *authWatch) throttledFor(addr string, asked time.Duration) {
	if w.said.already(addr + ": throttle") {
		return
	}
	w.log.Warn("gracedb: kafka: a broker throttles this client (its quota, or a fault) for longer than is kept; then another connection is made",
		"broker", cleanText(addr), "asked", asked, "kept", maxThrottle)
}

// OnBrokerThrottle is kgo's hook.
func (w *authWatch) OnBrokerThrottle(meta kgo.BrokerMetadata, pause time.Duration, _ bool) {
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	w.mu.Lock()
	if len(w.until) >= maxAddresses {
		clear(w.until)
	}
	w.until[addr] = throttling{meta.NodeID, time.Now().Add(pause)}
	close(w.throttled)
	w.throttled = make(chan struct{})
	sub := w.claims.Subject
	w.mu.Unlock()
	if !w.said.already(addr + ": throttle") {
		w.log.Warn("gracedb: kafka: a broker throttles this client (a quota of its sub or client.id): nothing is sent to it meanwhile",
			"broker", cleanText(addr), "sub", cleanText(sub), "for", pause)
	}
}

// A throttling is the pause that a broker has asked for.
type throttling struct {
	node int32
	end  time.Time
}

// throttledUntil returns when the pause ends that a broker has asked for, which is in the
// past if there is none, and a channel that is closed when any asks for one. It may be of
// another connection than that of messages.
func (w *authWatch) throttledUntil(node int32) (end time.Time, news <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.until {
		if t.node == node && t.end.After(end) {
			end = t.end
		}
	}
	return end, w.throttled
}

// outlasts reports whether the pause that a broker has asked for is longer than ctx.
func (w *authWatch) outlasts(ctx context.Context, node int32) bool {
	end, _ := w.throttledUntil(node)
	deadline, ok := ctx.Deadline()
	return ok && end.After(deadline)
}

// isThrottled reports whether a pause that a broker has asked for lasts.
func (w *authWatch) isThrottled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.throttles() != ""
}

// throttleError says that what a broker has asked for is longer than a call can wait.
func (l *link) throttleError(what string) error {
	l.watch.mu.Lock()
	text := l.watch.throttles()
	l.watch.mu.Unlock()
	return fail([]error{ErrConnection, l.kind}, "kafka: %s: %s, which is longer than is waited for", what, text)
}

// throttles says which brokers have asked for a pause that lasts. It is called with the
// lock held.
func (w *authWatch) throttles() string {
	now := time.Now()
	maps.DeleteFunc(w.until, func(_ string, t throttling) bool { return !t.end.After(now) })
	var who []string
	for _, addr := range slices.Sorted(maps.Keys(w.until)) {
		who = append(who, fmt.Sprintf("%s for another %v", cleanText(addr), w.until[addr].end.Sub(now).Round(time.Millisecond)))
	}
	if who == nil {
		return ""
	}
	text := "throttled by " + shortList(who)
	if w.claims.Subject != "" {
		text += " (a quota of " + cleanText(w.claims.Subject) + " or of its client.id)"
	}
	return text
}
