package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// A Health is what one client knows of the brokers' addresses: how the last connection to each
// went, when it answered last, and what pause it has asked for. kgo's hooks tell it, from
// whichever goroutine of kgo's; whoever has waited in vain asks it for the reason.
type Health struct {
	log  *slog.Logger
	auth *sasl.State      // told of refusals that the mechanism does not see
	Said logonce.Recently // of addresses

	mu        sync.Mutex // guards all below; auth's is not taken while it is held
	last      map[string]attempt
	heard     map[string]time.Time // when it answered last
	throttles map[string]throttling
	failed    chan struct{} // closed, and made anew, when connecting to an address fails
	throttled chan struct{} // closed, and made anew, when a broker asks for a pause
}

// An attempt is how a connection went.
type attempt struct {
	err error // nil: it was made
	at  time.Time
}

const (
	// staleAfter is how old a failure is that says nothing of now any more. An address that
	// somebody waits for is tried at least every dialTimeout.
	staleAfter = 2 * dialTimeout
	// maxAddresses is how many addresses are remembered: brokers say themselves what these are.
	maxAddresses = 1000
)

// NewHealth returns a Health that knows no address yet.
func NewHealth(log *slog.Logger, auth *sasl.State) *Health {
	return &Health{
		log: log, auth: auth,
		last: make(map[string]attempt), heard: make(map[string]time.Time), throttles: make(map[string]throttling),
		failed: make(chan struct{}), throttled: make(chan struct{}),
	}
}

func addressOf(meta kgo.BrokerMetadata) string {
	return net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
}

// OnBrokerConnect is kgo's hook, called when a connection is made and logged in, or when that
// has failed. A broker that refuses a login by code 58, without a challenge, does not reach
// the mechanism: only this hook sees it.
func (h *Health) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	addr := addressOf(meta)
	switch {
	case err == nil:
		h.mu.Lock()
		h.note(addr, nil)
		h.mu.Unlock()
		return
	case errors.Is(err, errs.Authentication):
		return // the mechanism has told the State
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, context.Canceled), errors.Is(err, errNotDialed):
		return // it says nothing of the address
	case sasl.IsRefusal(err):
		h.auth.Fail(errs.New([]error{errs.Authentication, err}, "kafka: broker %s refused to authenticate: %s (the reason is in the broker's log)", addr, errs.Reason(err)))
		return
	}
	h.mu.Lock()
	known := h.last[addr].err
	h.note(addr, err)
	close(h.failed)
	h.failed = make(chan struct{})
	h.mu.Unlock()
	if !h.Said.Already(addr+": "+err.Error()) || known == nil {
		h.log.Warn("gracedb: kafka: cannot connect", "broker", errs.Clean(addr), "err", errs.Reason(err))
	}
}

// note keeps how a connection went. h.mu is held.
func (h *Health) note(addr string, err error) {
	now := time.Now()
	if _, known := h.last[addr]; !known && len(h.last) >= maxAddresses {
		maps.DeleteFunc(h.last, func(_ string, a attempt) bool { return now.Sub(a.at) > staleAfter })
		if len(h.last) >= maxAddresses {
			clear(h.last)
		}
	}
	h.last[addr] = attempt{err, now}
}

// OnBrokerRead is kgo's hook, called after each answer. Where the answer is none that a broker
// gives, kgo takes the connection for broken, makes another and tells nobody: then this logs it.
func (h *Health) OnBrokerRead(meta kgo.BrokerMetadata, key int16, bytesRead int, _, _ time.Duration, err error) {
	const least = 8 // the size itself, and the number of the request
	addr := addressOf(meta)
	switch {
	case err == nil && bytesRead < least:
		err = fmt.Errorf("invalid response size %d", bytesRead-4)
	case err == nil:
		h.mu.Lock()
		if len(h.heard) >= maxAddresses {
			clear(h.heard)
		}
		h.heard[addr] = time.Now()
		h.mu.Unlock()
		return
	case IsConnectionError(err), kgo.IsRetryableBrokerErr(err), errors.Is(err, kgo.ErrClientClosed), errs.IsContext(err):
		return
	}
	// The size may be another each time.
	if request := kmsg.NameForKey(key); !h.Said.Already(addr + ": answer to " + request) {
		h.log.Warn("gracedb: kafka: an answer cannot be read", "broker", errs.Clean(addr), "request", request, "err", errs.Reason(err))
	}
}

// answered returns the addresses that have answered anything since then.
func (h *Health) answered(since time.Time) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var who []string
	for _, addr := range slices.Sorted(maps.Keys(h.heard)) {
		if !h.heard[addr].Before(since) {
			who = append(who, addr)
		}
	}
	return who
}

// Trouble returns what is known to be wrong between the client and the brokers, as kinds and
// text; nothing if nothing is.
func (h *Health) Trouble() (is []error, text string) {
	if cause := h.auth.Failure(); cause != nil {
		return []error{errs.Authentication, cause}, errs.Reason(cause)
	}
	is, texts := h.failures()
	throttles := h.throttleText()
	switch {
	case texts == nil && throttles == "":
		return nil, ""
	case texts == nil:
		return []error{errs.Connection}, throttles
	case throttles != "":
		throttles = "; " + throttles
	}
	return append(is, errs.Connection), "cannot connect to " + errs.Clean(strings.Join(texts, "; ")) + throttles
}

// failures returns which addresses could not be connected to of late, and why.
func (h *Health) failures() (is []error, texts []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, addr := range slices.Sorted(maps.Keys(h.last)) {
		a := h.last[addr]
		if a.err == nil || time.Since(a.at) > staleAfter {
			continue
		}
		is = append(is, a.err)
		text := errs.Reason(a.err)
		if dial, ok := errors.AsType[*dialError](a.err); ok {
			text = errs.Reason(dial) // without what kgo puts around it
		}
		if !strings.Contains(text, addr) {
			text = addr + ": " + text
		}
		texts = append(texts, text)
	}
	return is, texts
}

// allDown reports whether no address works, and each of addrs has been tried since then and
// failed for a reason that is certain, which silence is not. If not, it returns a channel that
// is closed when connecting to any address fails.
func (h *Health) allDown(addrs []string, since time.Time) (bool, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.last {
		if a.err == nil {
			return false, h.failed
		}
	}
	for _, addr := range addrs {
		if a := h.last[addr]; a.err == nil || isTimeout(a.err) || a.at.Before(since) {
			return false, h.failed
		}
	}
	return true, h.failed
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
