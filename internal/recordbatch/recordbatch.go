// Package recordbatch knows the head of a record batch, of the format that there is since
// Kafka 0.11 (KIP-98, magic 2), and as much as is needed of the message sets before it. It
// holds no state.
//
//	 0  base offset         int64
//	 8  length of the rest  int32
//	12  leader epoch        int32   (before: the checksum, IEEE, of all from the magic on)
//	16  magic               int8
//	17  checksum            uint32  (Castagnoli, of all behind it)
//	21  attributes          int16
//	23  last offset delta   int32
//	27  first timestamp     int64
//	35  max timestamp       int64
//	43  producer ID         int64
//	51  producer epoch      int16
//	53  base sequence       int32
//	57  number of records   int32
//	61  the records
package recordbatch

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	// HeadLen is the length of the head.
	HeadLen = 61
	// LeastLen is the length of what all formats have, up to the magic.
	LeastLen = 17
	// LengthEnd is where the length that a batch gives begins to count.
	LengthEnd = 12
	// Magic is the number of the format.
	Magic = 2

	lengthAt     = 8
	oldSumAt     = 12
	magicAt      = 16
	checksumAt   = 17
	attributesAt = 21
	lastDeltaAt  = 23
	producerAt   = 43
	countAt      = 57
)

// Attributes of a batch.
const (
	codecBits     = 7
	transactional = 1 << 4
	control       = 1 << 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Batch is a whole batch, of whatever format: LeastLen bytes at least. The methods that
// read what only Magic has are for a batch that IsCurrent.
type Batch []byte

// Cut returns the batch that b begins with; ok is false if there is none, or not all of it.
func Cut(b []byte) (batch Batch, ok bool) {
	if len(b) < LeastLen {
		return nil, false
	}
	size := uint64(binary.BigEndian.Uint32(b[lengthAt:])) + LengthEnd
	if size > uint64(len(b)) || size < LeastLen {
		return nil, false
	}
	return Batch(b[:size]), true
}

// FirstOffset is the offset of the first record.
func (b Batch) FirstOffset() int64 { return int64(binary.BigEndian.Uint64(b)) }

// Magic is the number of the format.
func (b Batch) Magic() byte { return b[magicAt] }

// IsCurrent reports whether b has the head that is described above.
func (b Batch) IsCurrent() bool { return len(b) >= HeadLen && b[magicAt] == Magic }

// NextOffset returns the offset behind the last record.
func (b Batch) NextOffset() int64 {
	next := b.FirstOffset() + 1
	if b.IsCurrent() {
		next += int64(int32(binary.BigEndian.Uint32(b[lastDeltaAt:])))
	}
	return next
}

// Count is how many records the batch says that it has.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[countAt:])) }

// SetCount changes Count.
func (b Batch) SetCount(n int32) { binary.BigEndian.PutUint32(b[countAt:], uint32(n)) }

// Codec is the compression of the records, by Kafka's number for it.
func (b Batch) Codec() byte { return b[attributesAt+1] & codecBits }

// SetCodec changes Codec, which is 0.
func (b Batch) SetCodec(codec byte) { b[attributesAt+1] |= codec }

// IsTransactional reports whether the batch is part of a transaction.
func (b Batch) IsTransactional() bool { return b.attributes()&transactional != 0 }

// IsControl reports whether the batch ends a transaction.
func (b Batch) IsControl() bool { return b.attributes()&control != 0 }

func (b Batch) attributes() uint16 { return binary.BigEndian.Uint16(b[attributesAt:]) }

// ProducerID is who wrote the batch.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[producerAt:])) }

// Records are what follows the head, compressed or not.
func (b Batch) Records() []byte { return b[HeadLen:] }

// SetLength changes the length that the batch gives.
func (b Batch) SetLength(n uint32) { binary.BigEndian.PutUint32(b[lengthAt:], n) }

// IsIntact reports whether the checksum is right: that of a message set, if the batch is
// one.
func (b Batch) IsIntact() bool {
	if b[magicAt] < Magic {
		return crc32.ChecksumIEEE(b[magicAt:]) == binary.BigEndian.Uint32(b[oldSumAt:])
	}
	return b.IsCurrent() && b.checksum() == binary.BigEndian.Uint32(b[checksumAt:])
}

// Seal writes the checksum.
func (b Batch) Seal() { binary.BigEndian.PutUint32(b[checksumAt:], b.checksum()) }

func (b Batch) checksum() uint32 { return crc32.Checksum(b[attributesAt:], castagnoli) }
