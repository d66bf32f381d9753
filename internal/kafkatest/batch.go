package kafkatest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Where a record batch (version 2) has its fields.
const (
	batchLength   = 8 // of what is behind it
	batchMagic    = 16
	batchChecksum = 17 // of all behind it
	batchAttrs    = 21
	batchDelta    = 23 // the last record's offset, counted from the first's
	batchFirst    = 27 // timestamp
	batchMax      = 35 // timestamp
	batchProducer = 43
	batchEpoch    = 51
	batchSequence = 53
	batchCount    = 57
	batchLeast    = 61
)

// The bits of a batch's attributes.
const (
	codecBits        = 0x07
	appendTimeBit    = 0x08
	transactionalBit = 0x10
	controlBit       = 0x20
)

// The decoders for zstd and for the rest. They are not made in a bubble of synctest,
// whose channels nobody may close after it, as a finalizer of kgo's does.
var (
	inflater, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(4), zstd.WithDecoderMaxMemory(256<<20))
	inflaters   = kgo.DefaultDecompressor()
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A batch is a record batch that a client has sent.
type batch struct {
	raw          []byte // a part of the request
	attrs        int16
	delta, count int32
	first        int64 // timestamp, from which the records' are counted
	producer     int64
	epoch        int16
	sequence     int32
	maxTimestamp int64 // that the log has: the records' largest, or the time of the append
	inflated     int   // bytes that it has uncompressed
}

func (b *batch) lastSequence() int32 { return addSequence(b.sequence, b.delta) }

// A rejection is why a batch is not appended.
type rejection struct {
	err     *kerr.Error
	message string // if any record is to blame
	records []kmsg.ProduceResponseTopicPartitionErrorRecord
}

func reject(err *kerr.Error) *rejection { return &rejection{err: err} }

// A limits is what a topic takes.
type limits struct {
	name                string // topic-partition, as in Kafka's texts
	bytes               int    // max.message.bytes
	compact             bool   // cleanup.policy
	appendTime          bool   // message.timestamp.type is LogAppendTime
	uncompressed        bool   // compression.type
	beforeMax, afterMax int64  // message.timestamp.….max.ms
	now                 int64  // milliseconds
}

// readBatch reads what is sent to one partition, in the order in which Kafka looks at
// it: ProduceRequest.validateRecords, UnifiedLog.analyzeAndValidateRecords,
// LogValidator.
func readBatch(raw []byte, l *limits) (*batch, *rejection) {
	if len(raw) < batchLeast || raw[batchMagic] != 2 {
		return nil, reject(kerr.InvalidRecord)
	}
	length := int64(int32(binary.BigEndian.Uint32(raw[batchLength:]))) + 12
	switch {
	case length < batchLeast:
		return nil, reject(kerr.CorruptMessage)
	case length != int64(len(raw)):
		return nil, reject(kerr.InvalidRecord) // no whole batch, or more than one
	case binary.BigEndian.Uint64(raw) != 0:
		return nil, reject(kerr.InvalidRecord) // first offset
	case len(raw) > l.bytes:
		return nil, reject(kerr.MessageTooLarge)
	case binary.BigEndian.Uint32(raw[batchChecksum:]) != crc32.Checksum(raw[batchAttrs:], castagnoli):
		return nil, reject(kerr.CorruptMessage)
	}
	b := &batch{
		raw:   raw,
		attrs: int16(binary.BigEndian.Uint16(raw[batchAttrs:])), delta: int32(binary.BigEndian.Uint32(raw[batchDelta:])),
		first:    int64(binary.BigEndian.Uint64(raw[batchFirst:])),
		producer: int64(binary.BigEndian.Uint64(raw[batchProducer:])), epoch: int16(binary.BigEndian.Uint16(raw[batchEpoch:])),
		sequence: int32(binary.BigEndian.Uint32(raw[batchSequence:])), count: int32(binary.BigEndian.Uint32(raw[batchCount:])),
	}
	if b.count <= 0 || b.delta != b.count-1 || b.attrs&controlBit != 0 || b.producer >= 0 && b.sequence < 0 {
		return nil, reject(kerr.InvalidRecord)
	}
	if r := b.readRecords(l); r != nil {
		return nil, r
	}
	// The log has the batch inflated, and its limit is looked at once more.
	if l.uncompressed && b.inflated > l.bytes {
		return nil, reject(kerr.MessageTooLarge)
	}
	return b, nil
}

// readRecords looks at each record.
func (b *batch) readRecords(l *limits) *rejection {
	records := b.raw[batchLeast:]
	if codec := b.attrs & codecBits; codec != 0 {
		var err error
		if codec == 4 {
			records, err = inflater.DecodeAll(records, nil)
		} else {
			records, err = inflaters.Decompress(records, kgo.CompressionCodecType(codec))
		}
		if err != nil {
			return reject(kerr.CorruptMessage)
		}
	}
	b.inflated, b.maxTimestamp = batchLeast+len(records), math.MinInt64
	var refused []kmsg.ProduceResponseTopicPartitionErrorRecord
	badTime := false
	in := kbin.Reader{Src: records}
	for i := range b.count {
		r := kbin.Reader{Src: in.Span(int(in.Varint()))}
		r.Int8() // attributes
		timestamp := b.first + r.Varlong()
		offset := r.Varint()
		key := r.VarintBytes()
		r.VarintBytes() // value
		for n := r.Varint(); n > 0 && r.Ok(); n-- {
			r.VarintBytes() // key
			r.VarintBytes() // value
		}
		if !in.Ok() || !r.Ok() || len(r.Src) > 0 || offset != i {
			return reject(kerr.InvalidRecord)
		}
		b.maxTimestamp = max(b.maxTimestamp, timestamp)
		if text, late := l.refuses(b, timestamp, int64(offset), key == nil); text != "" {
			badTime = badTime || late
			refused = append(refused, kmsg.ProduceResponseTopicPartitionErrorRecord{RelativeOffset: i, ErrorMessage: &text})
		}
	}
	if len(in.Src) > 0 {
		return reject(kerr.InvalidRecord)
	}
	if l.appendTime {
		b.maxTimestamp = l.now
	}
	switch {
	case badTime:
		return &rejection{kerr.InvalidTimestamp, "One or more records have been rejected due to invalid timestamp", refused}
	case refused != nil:
		return &rejection{kerr.InvalidRecord, rejectedRecords(refused), refused}
	}
	return nil
}

// refuses returns Kafka's text about a record that the topic does not take, and whether
// it is about its time; nothing if it does.
func (l *limits) refuses(b *batch, timestamp, offset int64, keyless bool) (text string, time bool) {
	switch {
	case l.compact && keyless:
		return "Compacted topic cannot accept message without key in topic partition " + l.name, false
	case !l.appendTime && timestamp != -1:
		if timestamp-l.now > l.afterMax || l.now-timestamp > l.beforeMax {
			return fmt.Sprintf("Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]",
				timestamp, offset, l.now-l.beforeMax, l.now+l.afterMax), true
		}
	case b.attrs&appendTimeBit != 0:
		return fmt.Sprintf("Invalid timestamp type in message with offset %d. Producer should not set timestamp type to LogAppendTime.", offset), true
	}
	return "", false
}

// rejectedRecords is the text about a batch with records that are not taken, as
// Kafka prints its objects.
func rejectedRecords(refused []kmsg.ProduceResponseTopicPartitionErrorRecord) string {
	var texts []string
	for _, r := range refused[:min(3, len(refused))] {
		texts = append(texts, fmt.Sprintf("RecordError(batchIndex=%d, message='%s')", r.RelativeOffset, *r.ErrorMessage))
	}
	return fmt.Sprintf("One or more records have been rejected due to %d record errors in total, and only showing the first three errors at most: [%s]",
		len(refused), strings.Join(texts, ", "))
}

// forLog returns the batch as kfake is to see it. Its producer is not named: kfake keeps
// an own account of producers, which is not Kafka's.
func (b *batch) forLog(l *limits) []byte {
	if b.attrs&transactionalBit != 0 {
		return b.raw // kfake's
	}
	if l.appendTime {
		binary.BigEndian.PutUint16(b.raw[batchAttrs:], uint16(b.attrs|appendTimeBit))
	}
	binary.BigEndian.PutUint64(b.raw[batchMax:], uint64(b.maxTimestamp))
	binary.BigEndian.PutUint64(b.raw[batchProducer:], math.MaxUint64)
	binary.BigEndian.PutUint16(b.raw[batchEpoch:], math.MaxUint16)
	binary.BigEndian.PutUint32(b.raw[batchSequence:], math.MaxUint32)
	binary.BigEndian.PutUint32(b.raw[batchChecksum:], crc32.Checksum(b.raw[batchAttrs:], castagnoli))
	return b.raw
}
