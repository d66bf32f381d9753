package kafkatest

import (
	"slices"
	"sync"
	"time"
)

// A quota is producer_byte_rate of each subject (KIP-13), enforced as KIP-219 has it:
// what is sent is appended and acknowledged at once, with the time for which the
// connection is then not read. Another connection is.
type quota struct {
	mu      sync.Mutex
	rate    float64 // bytes a second; none if zero
	samples map[string][]sample
}

// A sample is what a subject has sent within a second.
type sample struct {
	begin time.Time
	bytes int
}

// quota.window.size.seconds and quota.window.num.
const (
	quotaWindow  = time.Second
	quotaWindows = 11
)

// SetProduceQuota limits what each subject may send, in bytes a second over the last 10
// to 11 seconds; 0 ends it. How long somebody who has sent too much is throttled has no
// limit: who sends 100 times as much as is allowed in a second, in one request, waits
// for 90 seconds.
func (c *Cluster) SetProduceQuota(bytesPerSecond float64) {
	c.quota.mu.Lock()
	defer c.quota.mu.Unlock()
	c.quota.rate, c.quota.samples = bytesPerSecond, map[string][]sample{}
}

// throttle counts what a subject has sent, and returns for how long it is throttled
// (there, ClientQuotaManager and Rate).
func (q *quota) throttle(subject string, bytes int) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rate == 0 {
		return 0
	}
	now := time.Now()
	all := slices.DeleteFunc(q.samples[subject], func(s sample) bool { return now.Sub(s.begin) >= quotaWindows*quotaWindow })
	if n := len(all); n == 0 || now.Sub(all[n-1].begin) >= quotaWindow {
		all = append(all, sample{begin: now})
	}
	all[len(all)-1].bytes += bytes
	q.samples[subject] = all
	sum := 0
	for _, s := range all {
		sum += s.bytes
	}
	elapsed := now.Sub(all[0].begin)
	if least := (quotaWindows - 1) * quotaWindow; elapsed < least {
		elapsed = least + elapsed%quotaWindow // the windows before count as empty ones
	}
	excess := float64(sum)/elapsed.Seconds() - q.rate
	return max(0, time.Duration(excess/q.rate*float64(elapsed))).Round(time.Millisecond)
}

// quiet lets nothing more be read from the connection for d.
func (c *conn) quiet(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := time.Now().Add(d); until.After(c.throttled) {
		c.throttled = until
	}
}
