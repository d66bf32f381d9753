package sender

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/recordbatch"
)

// A batch is a record batch of version 2 (KIP-98): what one Produce request brings to one
// partition. Its records, in their order, are as good as one to a broker: all are in the
// log, or none.
//
// All of it is guarded by topic.mu. What is in a batch that was written does not change, and
// is read without the lock.
type batch struct {
	part    *partition
	records []*Record
	size    int64 // the most that it may measure without its head and uncompressed
	// withdrawn is how many of the records are settled since they were withdrawn; none once
	// the batch was written.
	withdrawn int

	// sequenced is set at the first write, which gives the batch its place among those of its
	// producer; it never changes afterwards.
	sequenced  bool
	producerID int64
	epoch      int16
	sequence   int32

	// payload is the records compressed; or nil if they go as they are. It is made before the
	// batch is issued, so that kgo's only writer to a broker waits for no compression.
	payload  *[]byte
	prepared bool      // payload is as the records want it
	encoding bool      // a goroutine makes payload
	reading  bool      // and reads the records for that
	leaving  []*Record // records that were withdrawn while they were read
	stale    bool      // a record was withdrawn since

	// Of the try that is on its way, or was last.
	issued   bool
	began    time.Time
	written  bool // kgo has asked for the bytes
	over     bool
	answer   *kmsg.ProduceResponseTopicPartition
	err      error // the answer's code as a *kerr.Error, or why there is no answer
	sentSize int   // bytes of the batch on the wire

	doubt bool    // after some earlier try: it may be in the log
	since instant // when it was written first
}

// facts returns what judge is to know.
func (b *batch) facts(closing bool) facts {
	f := facts{
		written: b.written, doubt: b.doubt, answered: b.answer != nil,
		records: len(b.records), compressed: b.payload != nil || len(b.records) == 1 && b.records[0].compress,
		closing: closing, gone: b.part.gone, forgotten: b.isForgotten(),
	}
	if _, refused := errors.AsType[*noID](b.err); refused {
		f.answered = true
	}
	if f.answered {
		f.code = b.err
		f.named = len(b.named())
	}
	return f
}

// isForgotten reports whether b may be in the log, and was written first so long ago that
// brokers may not recognise it any more.
func (b *batch) isForgotten() bool { return b.doubt && b.since.age() > rememberedFor }

// named returns which records the answer names, by their place, with what it says of each.
// A broker may name what is not there.
func (b *batch) named() map[int]string {
	if b.answer == nil || !isOfRecords(b.err) {
		return nil
	}
	named := make(map[int]string, min(len(b.answer.ErrorRecords), len(b.records)))
	for _, r := range b.answer.ErrorRecords {
		if at := int(r.RelativeOffset); at >= 0 && at < len(b.records) {
			named[at] = ""
			if r.ErrorMessage != nil {
				named[at] = *r.ErrorMessage
			}
		}
	}
	return named
}

// remove notes that r, which has just been settled, is not to be written. Its place is
// closed later, for all such records at once: a batch may hold thousands, which are
// withdrawn one after the other while callers wait for the lock.
func (b *batch) remove(r *Record) {
	b.withdrawn++
	b.size -= r.size
	b.stale = b.stale || b.encoding
	if b.payload != nil {
		b.prepared = false
		b.free()
	}
}

// isEmpty reports whether nobody wants any of the records.
func (b *batch) isEmpty() bool { return len(b.records) == b.withdrawn }

// tidy closes the places of withdrawn records. Nobody may be reading them.
func (b *batch) tidy() {
	if b.withdrawn > 0 {
		b.records = slices.DeleteFunc(b.records, func(r *Record) bool { return r.state == settled })
		b.withdrawn = 0
	}
}

// free gives back payload.
func (b *batch) free() {
	if b.payload != nil {
		putBuffer(b.payload)
		b.payload = nil
	}
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

// largestKept keeps the memory of rare, huge batches from staying for ever.
const largestKept = 4 << 20

func putBuffer(b *[]byte) {
	if cap(*b) <= largestKept {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// plainLen is how long the records are uncompressed.
func (b *batch) plainLen() int {
	first := b.records[0].Time.UnixMilli()
	n := 0
	for i, r := range b.records {
		body := r.bodyLen(r.Time.UnixMilli()-first, int32(i))
		n += kbin.VarintLen(int32(body)) + body
	}
	return n
}

// appendPlain appends the records uncompressed.
func appendPlain(dst []byte, records []*Record) []byte {
	first := records[0].Time.UnixMilli()
	for i, r := range records {
		dst = r.appendTo(dst, r.Time.UnixMilli()-first, int32(i))
	}
	return dst
}

// lastTime is the largest timestamp of the records, in milliseconds.
func (b *batch) lastTime() int64 {
	last := b.records[0].Time.UnixMilli()
	for _, r := range b.records {
		last = max(last, r.Time.UnixMilli())
	}
	return last
}

// Attributes of a record batch.
const zstd = 4

// appendTo appends the batch as it is on the wire, of n bytes after its head. As its
// records and its sequence do not change once it was written, each try sends the same.
func (b *batch) appendTo(dst []byte, n int) []byte {
	at := len(dst)
	first := b.records[0].Time.UnixMilli()
	last := b.lastTime()
	attributes := int16(0)
	if b.payload != nil {
		attributes = zstd
	}
	dst = kbin.AppendInt64(dst, 0)                                          // base offset: the broker's to say
	dst = kbin.AppendInt32(dst, int32(batchHeader-recordbatch.LengthEnd+n)) // length of what follows
	dst = kbin.AppendInt32(dst, -1)                                         // leader epoch: the broker's to say
	dst = append(dst, recordbatch.Magic, 0, 0, 0, 0)                        // version, and room for the checksum
	dst = kbin.AppendInt16(dst, attributes)
	dst = kbin.AppendInt32(dst, int32(len(b.records)-1))
	dst = kbin.AppendInt64(dst, first)
	dst = kbin.AppendInt64(dst, last)
	dst = kbin.AppendInt64(dst, b.producerID)
	dst = kbin.AppendInt16(dst, b.epoch)
	dst = kbin.AppendInt32(dst, b.sequence)
	dst = kbin.AppendInt32(dst, int32(len(b.records)))
	if b.payload != nil {
		dst = append(dst, *b.payload...)
	} else {
		dst = appendPlain(dst, b.records)
	}
	recordbatch.Batch(dst[at:]).Seal()
	return dst
}
