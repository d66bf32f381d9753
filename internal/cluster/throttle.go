package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file is about the pauses that brokers ask for when a client is over its quota
// (KIP-219). kgo sends nothing on that connection meanwhile.

// A throttling is the pause that a broker has asked for on one connection.
type throttling struct {
	node int32
	end  time.Time
}

// overThrottled logs that a broker has asked for a longer pause than is kept.
func (h *Health) overThrottled(addr string, asked time.Duration) {
	if h.Said.Already(addr + ": throttle") {
		return
	}
	h.log.Warn("gracedb: kafka: a broker throttles this client (its quota, or a fault) for longer than is kept; then another connection is made",
		"broker", errs.Clean(addr), "asked", asked, "kept", maxThrottle)
}

// OnBrokerThrottle is kgo's hook, called when an answer asks for a pause.
func (h *Health) OnBrokerThrottle(meta kgo.BrokerMetadata, pause time.Duration, _ bool) {
	addr := addressOf(meta)
	h.mu.Lock()
	if len(h.throttles) >= maxAddresses {
		clear(h.throttles)
	}
	h.throttles[addr] = throttling{meta.NodeID, time.Now().Add(pause)}
	close(h.throttled)
	h.throttled = make(chan struct{})
	h.mu.Unlock()
	if !h.Said.Already(addr + ": throttle") {
		h.log.Warn("gracedb: kafka: a broker throttles this client (a quota of its sub or client.id): nothing is sent to it meanwhile",
			"broker", errs.Clean(addr), "sub", errs.Clean(h.auth.Identity().Subject), "for", pause)
	}
}

// ThrottledUntil returns when the pause ends that a broker has asked for (a time in the past if
// there is none), and a channel that is closed when any broker asks for one. The pause may be of
// another connection than that of messages.
func (h *Health) ThrottledUntil(node int32) (end time.Time, news <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.throttles {
		if t.node == node && t.end.After(end) {
			end = t.end
		}
	}
	return end, h.throttled
}

// Outlasts reports whether the pause that a broker has asked for ends after ctx.
func (h *Health) Outlasts(ctx context.Context, node int32) bool {
	end, _ := h.ThrottledUntil(node)
	deadline, ok := ctx.Deadline()
	return ok && end.After(deadline)
}

// IsThrottled reports whether a pause that a broker has asked for lasts.
func (h *Health) IsThrottled() bool { return h.throttleText() != "" }

// throttleText says which brokers have asked for a pause that lasts; "" if none has.
func (h *Health) throttleText() string {
	sub := h.auth.Identity().Subject
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(h.throttles, func(_ string, t throttling) bool { return !t.end.After(now) })
	var who []string
	for _, addr := range slices.Sorted(maps.Keys(h.throttles)) {
		who = append(who, fmt.Sprintf("%s for another %v", errs.Clean(addr), h.throttles[addr].end.Sub(now).Round(time.Millisecond)))
	}
	if who == nil {
		return ""
	}
	text := "throttled by " + ShortList(who)
	if sub != "" {
		text += " (a quota of " + errs.Clean(sub) + " or of its client.id)"
	}
	return text
}

// ThrottleError says that what a broker has asked for is longer than a call can wait.
func (l *Client) ThrottleError(what string) error {
	return errs.New([]error{errs.Connection, l.kind}, "kafka: %s: %s, which is longer than is waited for", what, l.Health.throttleText())
}
