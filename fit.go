package gracedb

import (
	"encoding/binary"
	"hash/crc32"
	"net"

	"github.com/twmb/franz-go/pkg/kgo"
)

// This file is what a Consumer does to an answer to Fetch before kgo decodes it. kgo asks
// its Decompressor, which is the budget, only for batches that are compressed, and makes a
// record for each that the head of a batch claims before it looks for one.

const (
	// maxClaimed is how many records the batches of an answer may claim together: as many as
	// the heaviest batch that is read has at most.
	maxClaimed = heaviestBatch / decodedRecord
	// maxBatches is how many batches of an answer kgo decodes, or messages of a form older
	// than Kafka 0.11, of which each is one. It takes about a microsecond for each.
	maxBatches = 10_000
	// codecPlain is what a batch that is not compressed says to kgo. Kafka has no such codec.
	codecPlain = kgo.CompressionCodecType(7)
	// beyondAll is a length that no answer has: kgo takes a batch of it for one that the
	// broker has cut, as brokers may at the end of an answer, and asks for it again.
	beyondAll = 1 << 30
)

// fitting has what comes on a connection of a Consumer made to fit.
func fitting(conn net.Conn) net.Conn {
	conn.(*framedConn).fits = true
	return conn
}

// A fit makes an answer to Fetch fit into what a Consumer may hold.
type fit struct {
	batches int
	claimed int64
}

// part changes, in place, what an answer holds of one partition: batches that are not
// compressed are to go through the budget, too, and where all that is of this answer claims
// more records than kgo may make, the rest is as if the broker had cut it. The first batch
// of an answer stays, so that there is always a way on.
func (f *fit) part(records []byte) {
	for len(records) > oldHead {
		size := uint64(binary.BigEndian.Uint32(records[8:])) + 12
		if size > uint64(len(records)) || size < oldHead {
			return // as kgo does
		}
		b := records[:size]
		f.batches++
		claims := int64(1)
		if isBatch(b) {
			claims = min(int64(max(claim(b), 0)), maxClaimed)
		}
		f.claimed += claims
		if f.batches > 1 && f.claimed > maxClaimed || f.batches > maxBatches {
			binary.BigEndian.PutUint32(b[8:], beyondAll)
			return
		}
		if isBatch(b) && (codecOf(b) == kgo.CodecNone || claim(b) > maxClaimed) {
			amend(b)
		}
		records = records[size:]
	}
}

// amend makes kgo ask the budget for a batch, and lowers what it claims to what the budget
// refuses, too, if the batch holds it. A batch whose checksum is wrong stays as it is.
func amend(b []byte) {
	if len(b) == batchHead || !isIntact(b) {
		return
	}
	if codecOf(b) == kgo.CodecNone {
		b[22] |= byte(codecPlain)
	}
	if claim(b) > maxClaimed {
		binary.BigEndian.PutUint32(b[57:], maxClaimed)
	}
	binary.BigEndian.PutUint32(b[17:], checksum(b))
}

// isBatch reports whether b is a batch as there are since Kafka 0.11.
func isBatch(b []byte) bool { return len(b) >= batchHead && b[16] == 2 }

// claim returns how many records a batch says that it has.
func claim(b []byte) int32 { return int32(binary.BigEndian.Uint32(b[57:])) }

func codecOf(b []byte) kgo.CompressionCodecType { return kgo.CompressionCodecType(b[22] & 7) }

func isIntact(b []byte) bool { return checksum(b) == binary.BigEndian.Uint32(b[17:]) }

func checksum(b []byte) uint32 { return crc32.Checksum(b[21:], castagnoli) }
