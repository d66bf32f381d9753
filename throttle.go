package gracedb

import (
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
	w.until[addr] = time.Now().Add(pause)
	w.mu.Unlock()
	if !w.said.already(addr + ": throttle") {
		w.log.Warn("gracedb: kafka: a broker throttles this client (its quota): nothing is sent to it meanwhile", "broker", cleanText(addr), "for", pause)
	}
}

// throttles says which brokers have asked for a pause that lasts. It is called with the
// lock held.
func (w *authWatch) throttles() string {
	now := time.Now()
	maps.DeleteFunc(w.until, func(_ string, until time.Time) bool { return !until.After(now) })
	var who []string
	for _, addr := range slices.Sorted(maps.Keys(w.until)) {
		who = append(who, fmt.Sprintf("%s for another %v", cleanText(addr), w.until[addr].Sub(now).Round(time.Millisecond)))
	}
	if who == nil {
		return ""
	}
	return "throttled by " + shortList(who)
}
