package gracedb

import (
	"bytes"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A codec decides for each batch whether it is compressed. Compressing costs more
// than a fast network saves (zstd in pure Go: 5.5 ms of 6.4 at 360 kB), but far
// away each halving saves a round trip while TCP opens its window, and brokers
// count the compressed batch against their limit. The table behind the rule
// stands in BENCHMARKS.md.
type codec struct {
	zstd kgo.Compressor

	roundTrip atomic.Int64 // nanoseconds, as measured last
	limit     atomic.Int64 // the largest batch that the broker takes, as far as known
}

const (
	// farAway is the round trip from which bytes cost more than compressing them.
	farAway = 4 * time.Millisecond
	// worthwhile is the size under which one round trip carries the batch anyway.
	worthwhile = 8 << 10
	// unknownLimit is safely under Kafka's default message.max.bytes, 1048588.
	unknownLimit = 1_000_000
)

func newCodec() (*codec, error) {
	zstd, err := kgo.DefaultCompressor(kgo.ZstdCompression().WithLevel(1))
	if err != nil {
		return nil, err
	}
	c := &codec{zstd: zstd}
	c.limit.Store(unknownLimit)
	return c, nil
}

// Compress is kgo's Compressor.
func (c *codec) Compress(dst *bytes.Buffer, src []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	far := time.Duration(c.roundTrip.Load()) >= farAway && len(src) >= worthwhile
	// 4 KiB for the batch's own header, and for a limit that is counted otherwise.
	if far || int64(len(src)) > c.limit.Load()-4<<10 {
		return c.zstd.Compress(dst, src, flags...)
	}
	return src, kgo.CodecNone
}

// learn notes a limit that a broker told, by its configuration or by a refusal.
func (c *codec) learn(limit int64) { c.limit.Store(limit) }

// measured notes a round trip to a broker.
func (c *codec) measured(roundTrip time.Duration) { c.roundTrip.Store(int64(roundTrip)) }

// limitText says what is known of the broker's limit.
func (c *codec) limitText() string {
	return strconv.FormatInt(c.limit.Load(), 10) + " bytes or less"
}
