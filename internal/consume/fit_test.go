package consume

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/recordbatch"
)

// batchAt returns a batch at an offset that claims so many records.
func batchAt(offset int64, claims int32, codec kgo.CompressionCodecType, records []byte) []byte {
	b := kmsg.RecordBatch{
		FirstOffset: offset, Length: int32(49 + len(records)), Magic: 2, Attributes: int16(codec), ProducerID: -1,
		LastOffsetDelta: max(claims-1, 0), NumRecords: claims, Records: records,
	}
	raw := recordbatch.Batch(b.AppendTo(nil))
	raw.Seal()
	return raw
}

// oldAt returns a message as they were before Kafka 0.11.
func oldAt(offset int64) []byte {
	m := kmsg.MessageV1{Offset: offset, MessageSize: 22, Magic: 1}
	raw := m.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[12:], crc32.ChecksumIEEE(raw[16:]))
	return raw
}

var oneRecord = []byte{12, 0, 0, 0, 1, 1, 0}

// decode has kgo decode what a broker answers of one partition to a Consumer, or to others. It
// returns how much memory is made for it, beside the answer.
func decode(t *testing.T, consumer bool, records []byte) (fp kgo.FetchPartition, next, made int64) {
	t.Helper()
	answer := kmsg.FetchResponseTopicPartition{RecordBatches: slices.Clone(records)}
	if consumer {
		newFit()(answer.RecordBatches)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fp, next = kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t"}, &answer, newBudget(nil), nil)
	runtime.ReadMemStats(&after)
	return fp, next, int64(after.TotalAlloc - before.TotalAlloc)
}

// Whatever the batches of an answer claim, little is made of it, and there is a way on: what is
// not decoded of an answer that is true comes with those that follow.
func TestFetchesFit(t *testing.T) {
	packed, err := func() ([]byte, error) { // one record, which inflates to 10 kB
		value := make([]byte, 10_000)
		r := kmsg.Record{Value: value}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		return fixedZstd(r.AppendTo(nil))
	}()
	if err != nil {
		t.Fatal(err)
	}
	each := func(n int, f func(i int) []byte) []byte {
		var all []byte
		for i := range n {
			all = append(all, f(i)...)
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		records []byte
		least   int // records that kgo has of the first answer
	}{
		{"true", each(500, func(i int) []byte { return batchAt(int64(i), 1, 0, oneRecord) }), 500},
		{"plain batches that claim 5000 more than they hold", each(300, func(int) []byte { return batchAt(0, 5001, 0, bytes.Repeat(oneRecord, 800)) }), 1},
		{"compressed ones", each(300, func(int) []byte { return batchAt(0, 5001, kgo.CodecZstd, packed) }), 1},
		{"very many batches", each(15_000, func(i int) []byte { return batchAt(int64(i), 1, 0, oneRecord) }), maxBatches},
		{"very many batches without records", each(15_000, func(i int) []byte { return batchAt(int64(i), 0, 0, nil) }), 0},
		{"very many messages of an old form", each(15_000, func(i int) []byte { return oldAt(int64(i)) }), maxBatches},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, before := decode(t, false, tt.records)
			fp, next, made := decode(t, true, tt.records)
			t.Logf("%d KiB of batches: %d records, %d KiB are made; unbounded, %d KiB", len(tt.records)>>10, len(fp.Records), made>>10, before>>10)
			if fp.Err != nil || len(fp.Records) < tt.least || next == 0 {
				t.Errorf("%d records, next %d, %v", len(fp.Records), next, fp.Err)
			}
			if made > 2*heaviestBatch { // under the race detector each array is made twice
				t.Errorf("%d MiB are made", made>>20)
			}
		})
	}
}

func fixedZstd(b []byte) ([]byte, error) {
	c, err := kgo.DefaultCompressor(kgo.ZstdCompression())
	if err != nil {
		return nil, err
	}
	packed, _ := c.Compress(new(bytes.Buffer), b)
	return packed, nil
}

// Of a batch nothing is changed but what kgo is to make of it.
func TestFitChangesLittle(t *testing.T) {
	damaged := batchAt(7, 5000, 0, oneRecord)
	damaged[len(damaged)-1] ^= 1
	for _, tt := range []struct {
		name        string
		batch, want []byte
	}{
		{"plain", batchAt(7, 1, 0, oneRecord), batchAt(7, 1, codecPlain, oneRecord)},
		{"compressed", batchAt(7, 1, kgo.CodecLz4, oneRecord), batchAt(7, 1, kgo.CodecLz4, oneRecord)},
		{"without records", batchAt(7, 0, 0, nil), batchAt(7, 0, 0, nil)},
		{"of a negative number of records", batchAt(7, -1, 0, oneRecord), batchAt(7, -1, codecPlain, oneRecord)},
		{"damaged", damaged, damaged},
		{"of an old form", oldAt(7), oldAt(7)},
		{"cut", batchAt(7, 1, 0, oneRecord)[:65], batchAt(7, 1, 0, oneRecord)[:65]},
	} {
		got := slices.Clone(tt.batch)
		new(fit).part(got)
		if !bytes.Equal(got, tt.want) {
			t.Errorf("%s: %x, want %x", tt.name, got, tt.want)
		}
	}
	many := batchAt(7, maxClaimed+5000, kgo.CodecZstd, oneRecord)
	new(fit).part(many)
	if b := recordbatch.Batch(many); b.Count() != maxClaimed || !b.IsIntact() {
		t.Errorf("claims %d, intact %v", b.Count(), b.IsIntact())
	}
}
