package recordbatch

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// encoded returns a batch of three records as franz-go writes it.
func encoded(t *testing.T) Batch {
	t.Helper()
	records := []byte("records")
	raw := kmsg.RecordBatch{
		FirstOffset: 40, Length: int32(HeadLen - LengthEnd + len(records)), PartitionLeaderEpoch: 3, Magic: Magic,
		Attributes: 4 | transactional, LastOffsetDelta: 2, FirstTimestamp: 1, MaxTimestamp: 2,
		ProducerID: 77, ProducerEpoch: 5, FirstSequence: 6, NumRecords: 3, Records: records,
	}
	b, ok := Cut(append(raw.AppendTo(nil), "what follows"...))
	if !ok {
		t.Fatal("no batch")
	}
	b.Seal()
	return b
}

// The head is where franz-go's kmsg has it.
func TestHead(t *testing.T) {
	b := encoded(t)
	for what, ok := range map[string]bool{
		"current": b.IsCurrent(), "intact": b.IsIntact(), "first": b.FirstOffset() == 40, "next": b.NextOffset() == 43,
		"magic": b.Magic() == 2, "count": b.Count() == 3, "codec": b.Codec() == 4, "transactional": b.IsTransactional(),
		"control": !b.IsControl(), "producer": b.ProducerID() == 77, "records": bytes.Equal(b.Records(), []byte("records")),
	} {
		if !ok {
			t.Errorf("wrong: %s", what)
		}
	}
	var read kmsg.RecordBatch
	if err := read.ReadFrom(b); err != nil || uint32(read.CRC) != b.checksum() {
		t.Errorf("kmsg reads the checksum %x: %v", read.CRC, err)
	}
	b.SetCount(9)
	if b.IsIntact() || b.Count() != 9 {
		t.Error("a batch that was changed is intact")
	}
	if b.Seal(); !b.IsIntact() {
		t.Error("a batch that was sealed is not intact")
	}
}

// What is cut off, or gives a length that is none, is no batch.
func TestCut(t *testing.T) {
	b := encoded(t)
	for n := range b {
		if _, ok := Cut(b[:n]); ok {
			t.Errorf("%d bytes of %d are a batch", n, len(b))
		}
	}
	for _, length := range []uint32{0, LeastLen - LengthEnd - 1, 1 << 31, 1<<32 - 1} {
		b.SetLength(length)
		if got, ok := Cut(b); ok {
			t.Errorf("length %d: a batch of %d bytes", length, len(got))
		}
	}
	old := append(make([]byte, LeastLen), "message"...)
	old[magicAt] = 1
	Batch(old).SetLength(uint32(len(old) - LengthEnd))
	binary.BigEndian.PutUint32(old[oldSumAt:], 0x12345678)
	if b, ok := Cut(old); !ok || b.IsCurrent() || b.IsIntact() || b.NextOffset() != 1 {
		t.Errorf("a message of the old form: %v", b)
	}
}
