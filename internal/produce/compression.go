package produce

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A compressor decides for each batch whether it is compressed: far away, where that saves
// round trips while TCP opens its window, and wherever a broker might not take the
// batch as it is, since brokers count it compressed. Near the broker compressing
// costs more than the network saves. The table behind the rule stands in
// BENCHMARKS.md. Where a batch has to be compressed to fit, the sender sees to it.
type compressor struct {
	encoders sync.Pool

	mu        sync.Mutex       // guards recent and next
	recent    [8]time.Duration // the latest round trips; 0 is none yet
	next      int
	roundTrip atomic.Int64 // the least of recent, in nanoseconds
}

const (
	// compressFromRTT is the round trip from which a batch is compressed: with the broker's
	// own time to answer, that is where large events take as long either way. Small
	// ones gain from 0.5 ms on, but so short a time is also what a busy machine adds.
	compressFromRTT = 2 * time.Millisecond
	// compressFromSize is the size under which a connection that was idle sends the batch
	// in its first window, 10 packets, anyway. Events are rare: it always was.
	compressFromSize = 14_000
)

func newCompressor() (*compressor, error) {
	c := &compressor{}
	e, err := newEncoder()
	c.encoders.Put(e)
	return c, err
}

// newEncoder returns an encoder, which takes its memory at its first use. Events need
// zstd's entropy coder, and everywhere: the base64 text of a gzip file shrinks to 76 %
// by it, but not at all by lz4, snappy, or zstd's lower levels as they come, which
// spare it what repeats nothing. Levels above the first take longer than they save.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10))
}

// far reports whether brokers are far away.
func (c *compressor) far() bool { return time.Duration(c.roundTrip.Load()) >= compressFromRTT }

// wants reports whether a batch of n bytes that would fit as it is goes compressed.
func (c *compressor) wants(n int) bool { return n >= compressFromSize && c.far() }

// compress appends src, compressed, to dst; or returns nil if it does not get smaller.
func (c *compressor) compress(dst, src []byte) []byte {
	e, _ := c.encoders.Get().(*zstd.Encoder)
	if e == nil {
		e, _ = newEncoder() // which has succeeded once
	}
	defer c.encoders.Put(e)
	before := len(dst)
	if out := e.EncodeAll(src, slices.Grow(dst, e.MaxEncodedSize(len(src)))); len(out)-before < len(src) {
		return out
	}
	return nil
}

// observeRTT notes a round trip to a broker. It counts only if the latest others were
// no shorter: a broker or this process may be slow to answer, but no network is
// faster than it is.
func (c *compressor) observeRTT(roundTrip time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent[c.next] = max(roundTrip, 1)
	c.next = (c.next + 1) % len(c.recent)
	least := roundTrip
	for _, d := range c.recent {
		if d > 0 {
			least = min(least, d)
		}
	}
	c.roundTrip.Store(int64(least))
}

// OnBrokerE2E is kgo's hook. What a connection begins with is measured, so that the
// first batch on it finds the round trip known. Produce requests take as long as
// their size and the replicas want; those that are empty are measured by who sends
// them.
func (c *compressor) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if kmsg.Key(key) != kmsg.Produce && e2e.Err() == nil {
		c.observeRTT(e2e.DurationE2E())
	}
}
