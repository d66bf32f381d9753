package consume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// This file inflates batches, each into no more than it is allowed to take. kgo's own
// Decompressor takes that limit for the one of a zstd window, too, and refuses a message
// of five bytes whose frame declares 32 MiB.

// errTooLarge is what inflates to more than it may.
var errTooLarge = errors.New("it inflates to more than it may")

// An inflater is used by one goroutine at a time.
type inflater struct {
	zstd *zstd.Decoder
	gzip *gzip.Reader
	lz4  *lz4.Reader
}

// largestWindow is what a zstd frame may declare. It costs nothing: DecodeAll looks back
// into what it returns.
const largestWindow = 1 << 30

// inflate returns what src inflates to, in memory of its own, if that has no more than
// limit bytes.
func (f *inflater) inflate(src []byte, codec kgo.CompressionCodecType, limit int) ([]byte, error) {
	switch codec {
	case kgo.CodecNone, codecPlain:
		if len(src) > limit {
			return nil, errTooLarge
		}
		return src, nil
	case kgo.CodecSnappy:
		return inflateSnappy(src, limit)
	case kgo.CodecZstd:
		return f.inflateZstd(src, limit)
	case kgo.CodecGzip:
		if f.gzip == nil {
			f.gzip = new(gzip.Reader)
		}
		if err := f.gzip.Reset(bytes.NewReader(src)); err != nil {
			return nil, err
		}
		return readUpTo(f.gzip, limit)
	case kgo.CodecLz4:
		if f.lz4 == nil {
			f.lz4 = lz4.NewReader(nil)
		}
		f.lz4.Reset(bytes.NewReader(src))
		defer f.lz4.Reset(nil)
		return readUpTo(f.lz4, limit)
	}
	return nil, fmt.Errorf("unknown compression codec %d", codec)
}

// scratches are buffers for what does not tell its size; the collector takes those that
// are not used.
var scratches = sync.Pool{New: func() any { return new(scratch) }}

// A scratch is a buffer that grows.
type scratch struct{ b []byte }

const firstScratch = 1 << 20

// grow makes s four times as large, up to limit, keeping what is in its first n bytes: what
// it was is garbage, of which there is to be less than with doubling. It reports whether
// there was room to grow.
func (s *scratch) grow(n, limit int) bool {
	if len(s.b) >= limit {
		return false
	}
	b := make([]byte, min(max(4*len(s.b), firstScratch), limit))
	copy(b, s.b[:n])
	s.b = b
	return true
}

// readUpTo returns what r yields until its end.
func readUpTo(r io.Reader, limit int) ([]byte, error) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	limit++ // one more shows that it is too large
	for n := 0; ; {
		if n >= len(s.b) && !s.grow(n, limit) || n >= limit {
			return nil, errTooLarge
		}
		read, err := r.Read(s.b[n:min(len(s.b), limit)])
		n += read
		switch {
		case n >= limit:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return slices.Clone(s.b[:n]), nil
		case err != nil:
			return nil, err
		}
	}
}

func (f *inflater) inflateZstd(src []byte, limit int) ([]byte, error) {
	if f.zstd == nil {
		var err error
		f.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderMaxMemory(largestWindow), zstd.WithDecoderMaxWindow(largestWindow))
		if err != nil {
			return nil, err
		}
	}
	var head zstd.Header
	if err := head.Decode(src); err == nil && head.HasFCS && !head.Skippable {
		if head.FrameContentSize > uint64(limit) {
			return nil, errTooLarge
		}
		out, err := f.zstd.DecodeAll(src, make([]byte, 0, head.FrameContentSize))
		if !errors.Is(err, zstd.ErrDecoderSizeExceeded) { // or there is another frame behind it
			return out, err
		}
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	if len(s.b) == 0 {
		s.grow(0, limit)
	}
	for {
		out, err := f.zstd.DecodeAll(src, s.b[:0:min(len(s.b), limit)])
		switch {
		case err == nil:
			return slices.Clone(out), nil
		case !errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return nil, err
		case !s.grow(0, limit):
			return nil, errTooLarge
		}
	}
}

// javaSnappy begins what Java's clients write: blocks of snappy, each behind its length.
var javaSnappy = []byte{130, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func inflateSnappy(src []byte, limit int) ([]byte, error) {
	const head = 16 // with two versions
	if len(src) <= head || !bytes.HasPrefix(src, javaSnappy) {
		return appendSnappy(nil, src, limit)
	}
	var out []byte
	for rest := src[head:]; len(rest) > 0; {
		if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
			return nil, errors.New("a block of snappy is cut off")
		}
		n := 4 + int(binary.BigEndian.Uint32(rest))
		var err error
		if out, err = appendSnappy(out, rest[4:n], limit); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	return out, nil
}

// appendSnappy appends what a block inflates to, if there are then no more than limit
// bytes.
func appendSnappy(out, block []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if n > limit-len(out) {
		return nil, errTooLarge
	}
	out = slices.Grow(out, n)
	// A block that tells its size needs no more room than that.
	if _, err := s2.Decode(out[len(out):len(out)+n], block); err != nil {
		return nil, err
	}
	return out[:len(out)+n], nil
}

// What is made of each batch, message and header, beside their contents.
const (
	decodedBatch  = 256
	decodedRecord = 184
	decodedHeader = 40
)

// errNoRecords is a batch that does not hold what a batch holds. kgo would ask for it
// again and again without a word.
var errNoRecords = errors.New("its messages do not decode")

// weigh returns how much memory the records of a batch take once kgo has decoded them, and
// how many there are. It looks no further where that is more than limit.
func weigh(in []byte, limit int) (cost, n int, err error) {
	if len(in) > 16 && in[0] == 0 && in[16] <= 1 {
		cost, n = weighOld(in)
		return cost, n, nil
	}
	cost = decodedBatch + len(in)
	for len(in) > 0 {
		length, head := binary.Varint(in)
		if head <= 0 || head > longestVarint || length < 0 || length > int64(len(in)-head) {
			return 0, 0, errNoRecords
		}
		headers, ok := countHeaders(in[head:head+int(length)], (limit-cost)/decodedHeader)
		if !ok {
			return 0, 0, errNoRecords
		}
		n++
		if cost += decodedRecord + headers*decodedHeader; cost > limit {
			return 0, 0, errTooLarge
		}
		in = in[head+int(length):]
	}
	return cost, n, nil
}

// countHeaders walks a record as kgo does, to its end, unless it has more headers than limit.
func countHeaders(in []byte, limit int) (n int, ok bool) {
	if len(in) == 0 {
		return 0, false
	}
	in = in[1:] // attributes
	ok = true
	number := func(most int) int64 { // of bytes
		v, n := binary.Varint(in)
		if n <= 0 || n > most || most == longestVarint && int64(int32(v)) != v {
			in, ok = nil, false
			return 0
		}
		in = in[n:]
		return v
	}
	text := func() { // which may be null
		length := number(longestVarint)
		switch {
		case length > int64(len(in)):
			in, ok = nil, false
		case length > 0:
			in = in[length:]
		}
	}
	number(binary.MaxVarintLen64) // of the time
	number(longestVarint)         // of the offset
	text()                        // key
	text()                        // value
	headers := number(longestVarint)
	if !ok || headers < 0 || headers > int64(len(in)/2) {
		return 0, false
	}
	if headers > int64(limit) {
		return int(headers), true
	}
	for range headers {
		text()
		text()
	}
	return int(headers), ok
}

// longestVarint is of how many bytes kgo takes a number of 32 bits at most.
const longestVarint = binary.MaxVarintLen32

// weighOld does the same with messages as they were before Kafka 0.11.
func weighOld(in []byte) (cost, n int) {
	const head, each = 12, 400
	cost = len(in)
	for len(in) > head {
		length := uint64(binary.BigEndian.Uint32(in[8:])) + head
		if length > uint64(len(in)) {
			break // as kgo does
		}
		n++
		cost += each
		in = in[length:]
	}
	return cost, n
}
