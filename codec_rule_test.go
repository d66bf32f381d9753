package gracedb

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// compressible returns a batch that zstd makes much smaller, and dense one like the
// base64 text of a gzip file.
func compressible(size int) []byte { return bytes.Repeat([]byte("0.25 1.5e-23 "), size/13+1)[:size] }

func dense(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	return base64.StdEncoding.AppendEncode(nil, data)[:size]
}

// The rule: far away what is over one window, and anywhere what may not fit.
func TestCodecRule(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name      string
		roundTrip time.Duration
		size      int
		limit     int64
		want      kgo.CompressionCodecType
	}{
		{"nothing known", 0, 900_000, 0, kgo.CodecNone},
		{"nothing known, may not fit", 0, 1_000_000, 0, kgo.CodecZstd},
		{"beside the broker", 200 * time.Microsecond, 800_000, mib, kgo.CodecNone},
		{"another rack", 1999 * time.Microsecond, 800_000, mib, kgo.CodecNone},
		{"another town", 2 * time.Millisecond, 800_000, mib, kgo.CodecZstd},
		{"ocean", 150 * time.Millisecond, 800_000, mib, kgo.CodecZstd},
		{"ocean, one window", 150 * time.Millisecond, 13_999, mib, kgo.CodecNone},
		{"ocean, more", 150 * time.Millisecond, 14_000, mib, kgo.CodecZstd},
		{"near, over the limit", 0, mib, mib, kgo.CodecZstd},
		{"near, just under the limit", 0, mib - 4<<10, mib, kgo.CodecNone},
		{"near, too close to the limit", 0, mib - 4<<10 + 1, mib, kgo.CodecZstd},
		{"near, high limit", 0, 5 * mib, 10 * mib, kgo.CodecNone},
		{"near, low limit", 0, 20_000, 20_000, kgo.CodecZstd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := newCodec()
			if err != nil {
				t.Fatal(err)
			}
			if tt.roundTrip > 0 {
				c.measured(tt.roundTrip)
			}
			if tt.limit > 0 {
				c.learn(tt.limit)
			}
			src := compressible(tt.size)
			out, got := c.Compress(new(bytes.Buffer), src)
			if got != tt.want {
				t.Fatalf("codec %d, want %d", got, tt.want)
			}
			back, err := kgo.DefaultDecompressor().Decompress(out, got)
			if err != nil || !bytes.Equal(back, src) {
				t.Errorf("gives back %d bytes, %v", len(back), err)
			}
			if out, got := c.Compress(new(bytes.Buffer), src, kgo.CompressDisableZstd); got != kgo.CodecNone || !bytes.Equal(out, src) {
				t.Errorf("codec %d for a broker that knows no zstd", got)
			}
		})
	}
}

// A slow answer is not a far broker: only several in a row are, and one that is fast
// proves the contrary.
func TestCodecRoundTrip(t *testing.T) {
	const near, slow, far = 200 * time.Microsecond, 100 * time.Millisecond, 40 * time.Millisecond
	for _, tt := range []struct {
		name    string
		samples []time.Duration
		far     bool
	}{
		{"none", nil, false},
		{"near", []time.Duration{near}, false},
		{"far", []time.Duration{far}, true},
		{"slow start", []time.Duration{slow, near}, false},
		{"one slow", []time.Duration{near, near, near, near, slow}, false},
		{"seven slow", []time.Duration{near, slow, slow, slow, slow, slow, slow, slow}, false},
		{"moved away", []time.Duration{near, near, far, far, far, far, far, far, far, far}, true},
		{"came near", []time.Duration{far, far, far, far, far, near}, false},
		{"too short for the clock", []time.Duration{far, 0, far}, false},
	} {
		c, err := newCodec()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range tt.samples {
			c.measured(d)
		}
		if _, got := c.Compress(new(bytes.Buffer), compressible(100_000)); (got == kgo.CodecZstd) != tt.far {
			t.Errorf("%s: codec %d", tt.name, got)
		}
	}
}

// Base64 text shrinks even where what it stands for does not, and what does not
// shrink is left as it is.
func TestCodecDense(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	c.measured(time.Second)
	text := dense(400_000)
	if out, got := c.Compress(new(bytes.Buffer), text); got != kgo.CodecZstd || len(out) > len(text)*77/100 {
		t.Errorf("base64: %d of %d bytes, codec %d", len(out), len(text), got)
	}
	random := make([]byte, 400_000)
	if _, err := base64.StdEncoding.Decode(random, text); err != nil {
		t.Fatal(err)
	}
	random = random[:300_000]
	if out, got := c.Compress(new(bytes.Buffer), random); got != kgo.CodecNone || &out[0] != &random[0] {
		t.Errorf("random: %d bytes, codec %d", len(out), got)
	}
}

// Once it is warm, compressing allocates nothing.
func TestCodecAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("pools forget on purpose under the race detector")
	}
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	c.measured(time.Second)
	src := compressible(400_000)
	var dst bytes.Buffer
	if n := testing.AllocsPerRun(20, func() {
		dst.Reset()
		c.Compress(&dst, src)
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
