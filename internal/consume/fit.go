package consume

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/recordbatch"
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

// A fit makes an answer to Fetch fit into what a Consumer may hold.
type fit struct {
	batches int
	claimed int64
}

// newFit returns what an answer is changed by.
func newFit() func([]byte) { return new(fit).part }

// part changes, in place, what an answer holds of one partition: batches that are not
// compressed are to go through the budget, too, and where all that is of this answer claims
// more records than kgo may make, the rest is as if the broker had cut it. The first batch
// of an answer stays, so that there is always a way on.
func (f *fit) part(records []byte) {
	for len(records) > recordbatch.LeastLen {
		b, ok := recordbatch.Cut(records)
		if !ok {
			return // as kgo does
		}
		f.batches++
		claims := int64(1)
		if b.IsCurrent() {
			claims = min(int64(max(b.Count(), 0)), maxClaimed)
		}
		f.claimed += claims
		if f.batches > 1 && f.claimed > maxClaimed || f.batches > maxBatches {
			b.SetLength(beyondAll)
			return
		}
		if b.IsCurrent() && (codecOf(b) == kgo.CodecNone || b.Count() > maxClaimed) {
			amend(b)
		}
		records = records[len(b):]
	}
}

// amend makes kgo ask the budget for a batch, and lowers what it claims to what the budget
// refuses, too, if the batch holds it. A batch whose checksum is wrong stays as it is.
func amend(b recordbatch.Batch) {
	if len(b) == recordbatch.HeadLen || !b.IsIntact() {
		return
	}
	if codecOf(b) == kgo.CodecNone {
		b.SetCodec(byte(codecPlain))
	}
	if b.Count() > maxClaimed {
		b.SetCount(maxClaimed)
	}
	b.Seal()
}

func codecOf(b recordbatch.Batch) kgo.CompressionCodecType {
	return kgo.CompressionCodecType(b.Codec())
}
