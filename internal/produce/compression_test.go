package produce

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/testrace"
)

// compressible returns a batch that zstd makes much smaller, and dense one like the
// base64 text of a gzip file.
func compressible(size int) []byte { return bytes.Repeat([]byte("0.25 1.5e-23 "), size/13+1)[:size] }

func dense(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	return base64.StdEncoding.AppendEncode(nil, data)[:size]
}

// The rule: far away what is over one window. (What does not fit is the sender's to see.)
func TestCodecRule(t *testing.T) {
	for _, tt := range []struct {
		name      string
		roundTrip time.Duration
		size      int
		want      bool
	}{
		{"nothing known", 0, 900_000, false},
		{"beside the broker", 200 * time.Microsecond, 800_000, false},
		{"another rack", 1999 * time.Microsecond, 800_000, false},
		{"another town", 2 * time.Millisecond, 800_000, true},
		{"ocean", 150 * time.Millisecond, 800_000, true},
		{"ocean, one window", 150 * time.Millisecond, 13_999, false},
		{"ocean, more", 150 * time.Millisecond, 14_000, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := newCompressor()
			if err != nil {
				t.Fatal(err)
			}
			if tt.roundTrip > 0 {
				c.observeRTT(tt.roundTrip)
			}
			if got := c.wants(tt.size); got != tt.want {
				t.Fatalf("compressed: %v, want %v", got, tt.want)
			}
			src := compressible(tt.size)
			back, err := kgo.DefaultDecompressor().Decompress(c.compress(nil, src), kgo.CodecZstd)
			if err != nil || !bytes.Equal(back, src) {
				t.Errorf("gives back %d bytes, %v", len(back), err)
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
		c, err := newCompressor()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range tt.samples {
			c.observeRTT(d)
		}
		if got := c.wants(100_000); got != tt.far {
			t.Errorf("%s: compressed: %v", tt.name, got)
		}
	}
}

// Base64 text shrinks even where what it stands for does not, and what does not
// shrink is left as it is.
func TestCodecDense(t *testing.T) {
	c, err := newCompressor()
	if err != nil {
		t.Fatal(err)
	}
	text := dense(400_000)
	if out := c.compress(nil, text); out == nil || len(out) > len(text)*77/100 {
		t.Errorf("base64: %d of %d bytes", len(out), len(text))
	}
	random := make([]byte, 400_000)
	if _, err := base64.StdEncoding.Decode(random, text); err != nil {
		t.Fatal(err)
	}
	random = random[:300_000]
	if out := c.compress(nil, random); out != nil {
		t.Errorf("random: %d bytes", len(out))
	}
}

// Once it is warm, compressing allocates nothing.
func TestCodecAllocations(t *testing.T) {
	if testrace.Enabled {
		t.Skip("pools forget on purpose under the race detector")
	}
	c, err := newCompressor()
	if err != nil {
		t.Fatal(err)
	}
	src := compressible(400_000)
	dst := make([]byte, 0, 1<<20)
	if n := testing.AllocsPerRun(20, func() { c.compress(dst, src) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
