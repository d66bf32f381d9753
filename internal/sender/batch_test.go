package sender

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kzstd "github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// moment is of whole milliseconds, as records' times are.
var moment = time.UnixMilli(1_757_000_000_123)

// batchesOf returns records in all shapes that the wire knows.
func batchesOf() map[string][]*Record {
	many := make([]*Record, 3000)
	for i := range many {
		many[i] = &Record{Key: []byte("S190425z"), Value: fmt.Append(nil, i), Time: moment.Add(time.Duration(i%7-3) * time.Hour)}
	}
	return map[string][]*Record{
		"one":              {{Key: []byte("k"), Value: []byte("v"), Time: moment}},
		"nothing":          {{Time: moment}},
		"empty, not nil":   {{Key: []byte{}, Value: []byte{}, Time: moment}},
		"before 1970":      {{Value: []byte("v"), Time: time.UnixMilli(-1)}},
		"back in time":     {{Time: moment}, {Time: moment.Add(-100 * 365 * 24 * time.Hour)}, {Time: moment.Add(time.Millisecond)}},
		"large":            {{Key: bytes.Repeat([]byte("k"), 300), Value: bytes.Repeat([]byte("0.25 "), 50_000), Time: moment}},
		"at 63 and 64":     {{Value: make([]byte, 63), Time: moment}, {Value: make([]byte, 64), Time: moment}},
		"at 8191 and 8192": {{Value: make([]byte, 8191), Time: moment}, {Value: make([]byte, 8192), Time: moment}},
		"headers": {{Time: moment, Headers: []kgo.RecordHeader{
			{Key: "a", Value: []byte("1")},
			{Key: "a", Value: []byte("2")},
			{Value: []byte("no name")},
			{Key: "nil", Value: nil},
			{Key: "empty", Value: []byte{}},
			{Key: strings.Repeat("n", 200), Value: make([]byte, 9000)},
		}}, {Time: moment}},
		"many": many,
	}
}

// sealedBatch is a batch of a partition that nobody drives.
func sealedBatch(records []*Record) *batch {
	s := &Sender{life: closedLife, id: -1}
	t := &topic{sender: s, name: "igwn.gracedb", id: [16]byte{1, 2, 3}}
	p := &partition{topic: t, topicID: t.id, id: 7, producerID: 4000, epoch: 3, sequence: math.MaxInt32 - 1}
	b := &batch{part: p, records: records, prepared: true}
	for _, r := range records {
		r.size = r.wireSize()
		b.size += r.size
	}
	p.inFlight = []*batch{b}
	return b
}

var zstdEncoder, _ = kzstd.NewWriter(nil, kzstd.WithEncoderConcurrency(1))

// compressed makes b go compressed.
func compressed(b *batch) *batch {
	zipped := zstdEncoder.EncodeAll(appendPlain(nil, b.records), nil)
	b.payload = &zipped
	return b
}

// wireOf returns b as kgo writes it, in a request of this version.
func wireOf(b *batch, version int16) []byte {
	req := newProduceRequest(b)
	req.SetVersion(version)
	return req.AppendTo([]byte("kgo's own head"))[len("kgo's own head"):]
}

// TestBatchRoundTrip has kgo's decoder, which checks the checksum, read what a consumer would
// get of each batch.
func TestBatchRoundTrip(t *testing.T) {
	for name, records := range batchesOf() {
		for _, zip := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, compressed %v", name, zip), func(t *testing.T) {
				b := sealedBatch(records)
				if zip {
					compressed(b)
				}
				var req kmsg.ProduceRequest
				req.SetVersion(9)
				if err := req.ReadFrom(wireOf(b, 9)); err != nil {
					t.Fatal(err)
				}
				wire := req.Topics[0].Partitions[0].Records
				if len(wire) != b.sentSize {
					t.Errorf("%d bytes, sentSize is %d", len(wire), b.sentSize)
				}
				if !zip && len(wire) != batchHeader+b.plainLen() {
					t.Errorf("%d bytes, plainLen is %d", len(wire), b.plainLen())
				}
				if !zip && int64(len(wire)) > batchHeader+b.size {
					t.Errorf("%d bytes, and the size that is at most is %d", len(wire), b.size)
				}
				checkHead(t, wire, records, zip)

				fetched := kmsg.NewFetchResponseTopicPartition()
				fetched.RecordBatches, fetched.HighWatermark = wire, int64(len(records))
				got, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "igwn.gracedb"}, &fetched, kgo.DefaultDecompressor(), nil)
				if got.Err != nil {
					t.Fatal(got.Err)
				}
				if len(got.Records) != len(records) {
					t.Fatalf("%d records, want %d", len(got.Records), len(records))
				}
				for i, r := range got.Records {
					want := records[i]
					if diff := cmp.Diff(want.Key, r.Key) + cmp.Diff(want.Value, r.Value); diff != "" {
						t.Fatalf("record %d: %s", i, diff)
					}
					if !r.Timestamp.Equal(want.Time) || r.Offset != int64(i) || r.ProducerID != 4000 || r.ProducerEpoch != 3 {
						t.Fatalf("record %d: %+v", i, r)
					}
					headers := append([]kgo.RecordHeader(nil), r.Headers...) // nil if there are none
					if diff := cmp.Diff(want.Headers, headers); diff != "" {
						t.Fatalf("record %d: %s", i, diff)
					}
				}
			})
		}
	}
}

// checkHead looks at the head, which kgo's decoder does not hand on.
func checkHead(t *testing.T, wire []byte, records []*Record, zip bool) {
	t.Helper()
	var head kmsg.RecordBatch
	if err := head.ReadFrom(wire); err != nil {
		t.Fatal(err)
	}
	last := records[0].Time
	for _, r := range records {
		if r.Time.After(last) {
			last = r.Time
		}
	}
	want := kmsg.RecordBatch{
		Length: int32(len(wire) - 12), PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(records) - 1),
		CRC:            int32(crc32.Checksum(wire[21:], crc32.MakeTable(crc32.Castagnoli))),
		FirstTimestamp: records[0].Time.UnixMilli(), MaxTimestamp: last.UnixMilli(),
		ProducerID: 4000, ProducerEpoch: 3, FirstSequence: math.MaxInt32 - 1, NumRecords: int32(len(records)),
		Records: wire[batchHeader:],
	}
	if zip {
		want.Attributes = 4 // zstd
	}
	if diff := cmp.Diff(want, head); diff != "" {
		t.Error(diff)
	}
}

// TestRequestVersions holds what AppendTo puts together to what kmsg writes of the same, in
// all versions that carry record batches of version 2.
func TestRequestVersions(t *testing.T) {
	for name, records := range batchesOf() {
		for version := int16(3); version <= 13; version++ {
			b := sealedBatch(records)
			if version%2 == 0 {
				compressed(b)
			}
			wire := wireOf(b, version)
			if again := wireOf(b, version); !bytes.Equal(wire, again) {
				t.Errorf("%s, version %d: another try has other bytes", name, version)
			}
			got := kmsg.NewPtrProduceRequest()
			got.SetVersion(version)
			if err := got.ReadFrom(wire); err != nil {
				t.Fatalf("%s, version %d: %v", name, version, err)
			}
			want := kmsg.NewPtrProduceRequest()
			want.SetVersion(version)
			want.Acks, want.TimeoutMillis = -1, int32(replicaTimeout/time.Millisecond)
			topic, part := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
			part.Partition, part.Records = 7, got.Topics[0].Partitions[0].Records
			topic.Topic, topic.TopicID = "igwn.gracedb", [16]byte{1, 2, 3}
			topic.Partitions = []kmsg.ProduceRequestTopicPartition{part}
			want.Topics = []kmsg.ProduceRequestTopic{topic}
			if !bytes.Equal(want.AppendTo(nil), wire) {
				t.Errorf("%s, version %d: not as kmsg writes it", name, version)
			}
		}
	}
	if newest := kmsg.NewPtrProduceRequest().MaxVersion(); newest != 13 {
		t.Errorf("kmsg knows version %d: see what is behind a batch's records there", newest)
	}
}

// TestRequestOfNothing: what was withdrawn while kgo came to write it leaves a request that
// brokers parse, and that holds no partition.
func TestRequestOfNothing(t *testing.T) {
	for version := int16(3); version <= 13; version++ {
		b := sealedBatch([]*Record{{Time: moment}})
		b.remove(b.records[0])
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(version)
		if err := req.ReadFrom(wireOf(b, version)); err != nil || len(req.Topics) > 0 {
			t.Errorf("version %d: %v, %d topics", version, err, len(req.Topics))
		}
		if b.written || b.sequenced {
			t.Errorf("version %d: counts as written", version)
		}
	}
}

func TestSequenceAfter(t *testing.T) {
	for _, row := range []struct {
		sequence int32
		n        int
		want     int32
	}{
		{0, 1, 1},
		{0, 0, 0},
		{5, 1000, 1005},
		{math.MaxInt32 - 1, 1, math.MaxInt32},
		{math.MaxInt32, 1, 0},
		{math.MaxInt32 - 1, 2, 0},
		{math.MaxInt32 - 1, 3, 1},
		{math.MaxInt32, 3000, 2999},
	} {
		if got := sequenceAfter(row.sequence, row.n); got != row.want {
			t.Errorf("%d records after %d: %d, want %d", row.n, row.sequence, got, row.want)
		}
		// As Kafka has it, in DefaultRecordBatch.incrementSequence.
		kafka := int64(row.sequence) + int64(row.n)
		if kafka > math.MaxInt32 {
			kafka = int64(row.n) - (math.MaxInt32 - int64(row.sequence)) - 1
		}
		if int64(row.want) != kafka {
			t.Errorf("%d records after %d: Kafka has %d", row.n, row.sequence, kafka)
		}
	}
}

// TestSequenceWraps: the batch behind one that crosses the largest sequence has the right one.
func TestSequenceWraps(t *testing.T) {
	first := sealedBatch([]*Record{{Time: moment}, {Time: moment}, {Time: moment}}) // at MaxInt32-1
	s := first.part
	second := &batch{part: s, records: []*Record{{Time: moment}}, prepared: true}
	for i, b := range []*batch{first, second} {
		wire := wireOf(b, 9)
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(9)
		if err := req.ReadFrom(wire); err != nil {
			t.Fatal(err)
		}
		records := req.Topics[0].Partitions[0].Records
		sequence := int32(binary.BigEndian.Uint32(records[53:]))
		if want := []int32{math.MaxInt32 - 1, 1}[i]; sequence != want {
			t.Errorf("batch %d has sequence %d, want %d", i, sequence, want)
		}
	}
}

// TestRequestTimeout: an answer is waited for as long as the slowest network takes for the request.
func TestRequestTimeout(t *testing.T) {
	b := sealedBatch([]*Record{{Time: moment, Value: make([]byte, 3_200_000)}})
	if got := time.Duration(newProduceRequest(b).Timeout()) * time.Millisecond; got < 100*time.Second || got > 101*time.Second {
		t.Errorf("%v for 3.2 MB, want 100 s: 32 kB a second", got)
	}
	var _ kmsg.TimeoutRequest = newProduceRequest(b)
}
