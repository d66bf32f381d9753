package gracedb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrace"
)

var codecs = map[string]kgo.CompressionCodec{
	"zstd": kgo.ZstdCompression(), "gzip": kgo.GzipCompression(), "lz4": kgo.Lz4Compression(), "snappy": kgo.SnappyCompression(),
	"none": kgo.NoCompression(),
}

// A repeated compresses the first batch, and takes all others for the same.
type repeated struct {
	codec  kgo.CompressionCodec
	packed []byte
	as     kgo.CompressionCodecType
}

// Compress is kgo's Compressor.
func (r *repeated) Compress(dst *bytes.Buffer, src []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	if r.codec == kgo.NoCompression() {
		return src, kgo.CodecNone
	}
	if r.packed == nil {
		c, err := kgo.DefaultCompressor(r.codec)
		if err != nil {
			panic(err)
		}
		packed, as := c.Compress(dst, src, flags...)
		r.packed, r.as = bytes.Clone(packed), as
	}
	return r.packed, r.as
}

// largest is the figure of ConsumerConfig: 64 MiB beyond the largest message.
const largest = 64<<20 + 15<<20

// What a Consumer holds is bounded, however much its batches inflate to. All of them are
// read, each once and in order.
func TestConsumerMemory(t *testing.T) {
	const size = 14 << 20
	batches := 12
	if testrace.Enabled {
		batches = 7 // still more than may be held; each takes seconds to inflate
	}
	for name, codec := range codecs {
		if codec == kgo.NoCompression() {
			batches = min(batches, 7) // each is 14 MiB on its way, too
		}
		for partitions, group := range map[int]string{1: "", 100: "g"} {
			t.Run(fmt.Sprintf("%s, %d partitions, group=%s", name, partitions, group), func(t *testing.T) {
				cl := startCluster(t, kafkatest.Config{MaxMessageBytes: 15 << 20, Topics: map[string]int{testTopic: partitions}})
				bombard(t, cl, codec, batches, size, partitions)
				before := liveHeap()
				c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
				next := make(map[int32]int64)
				most := int64(0)
				for range batches {
					m := poll(t, c)
					if m.Offset != next[m.Partition] || len(m.Value) != size {
						t.Fatalf("partition %d offset %d with %d bytes, want %d", m.Partition, m.Offset, len(m.Value), next[m.Partition])
					}
					next[m.Partition]++
					most = max(most, liveHeap()-before)
				}
				t.Logf("%d MiB", most>>20)
				if most > largest {
					t.Errorf("%d MiB are held", most>>20)
				}
			})
		}
	}
}

// bombard appends batches that inflate to size, in turn to each partition.
func bombard(t testing.TB, cl *kafkatest.Cluster, codec kgo.CompressionCodec, batches, size, partitions int) {
	t.Helper()
	value := make([]byte, size)
	var records []*kgo.Record
	for i := range batches {
		records = append(records, &kgo.Record{Topic: testTopic, Partition: int32(i % partitions), Value: value})
	}
	produceWith(t, cl, []kgo.Opt{kgo.WithCompressor(&repeated{codec: codec}), kgo.ProducerBatchMaxBytes(15 << 20)}, records...)
}

// liveHeap waits until fetches that are on their way have come, and returns what is in use.
func liveHeap() int64 {
	time.Sleep(5 * time.Millisecond)
	runtime.GC()
	runtime.GC()                                            // what pools hold
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}} // without what became garbage since
	metrics.Read(live)
	return int64(live[0].Value.Uint64())
}

// A window compresses as zstd streams of the levels 20 to 22 are: with a window of that
// size, and no content size in the frame.
type window int

// Compress is kgo's Compressor.
func (w window) Compress(dst *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	e, err := zstd.NewWriter(dst, zstd.WithWindowSize(int(w)), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	half := len(src) / 2
	for _, part := range [][]byte{src[:half], src[half:]} {
		if _, err := e.Write(part); err != nil {
			panic(err)
		}
		if err := e.Flush(); err != nil {
			panic(err)
		}
	}
	if err := e.Close(); err != nil {
		panic(err)
	}
	return dst.Bytes(), kgo.CodecZstd
}

// A small message is read whatever window its zstd frame declares, up to the 128 MiB that
// brokers and Java's clients write, and takes no more memory for it.
func TestConsumerZstdWindow(t *testing.T) {
	for _, mib := range []int{8, 16, 32, 128} {
		t.Run(fmt.Sprint(mib, " MiB"), func(t *testing.T) {
			cl := startCluster(t, kafkatest.Config{})
			c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}})
			event := bytes.Repeat([]byte("an event file "), 1000)
			produceWith(t, cl, []kgo.Opt{kgo.WithCompressor(window(mib << 20))}, record(testTopic, 0, string(event)), record(testTopic, 0, "after"))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if m := poll(t, c); !bytes.Equal(m.Value, event) {
				t.Errorf("%d bytes", len(m.Value))
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
				t.Errorf("%d MiB were allocated", n>>20)
			}
			if m := poll(t, c); string(m.Value) != "after" {
				t.Errorf("%q", m.Value)
			}
		})
	}
}

// Batches that wait for room are not asked for on and on while the caller is busy.
func TestConsumerAsksForNoMoreThanItHolds(t *testing.T) {
	cl := startCluster(t, kafkatest.Config{MaxMessageBytes: 15 << 20, Topics: map[string]int{testTopic: 3}})
	bombard(t, cl, kgo.ZstdCompression(), 12, 14<<20, 3)
	c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, FromBeginning: true})
	poll(t, c)
	time.Sleep(200 * time.Millisecond)
	_, before := cl.Bytes()
	time.Sleep(time.Second)
	if _, after := cl.Bytes(); after-before > 100<<10 {
		t.Errorf("%d KiB were fetched while nothing was polled", (after-before)>>10)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 11 {
		if _, err := c.Poll(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// A batch of very many small messages takes many times its size once it is decoded. It is
// passed over as if it inflated to as much.
func TestConsumerManySmallMessages(t *testing.T) {
	small := []byte{12, 0, 0, 0, 1, 1, 0} // no key, no value, no headers
	cl := startCluster(t, kafkatest.Config{})
	produceWith(t, cl, []kgo.Opt{kgo.WithCompressor(fixed(bytes.Repeat(small, 400_000)))}, record(testTopic, 0, string(make([]byte, 100<<10))))
	produceRaw(t, cl, record(testTopic, 0, "after"))
	before := liveHeap()
	c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, FromBeginning: true})
	_, err := c.Poll(t.Context())
	wantErr(t, err, kinds(gracedb.ErrConsumer), nil, testTopic, "partition 0 offset 0", "decoded")
	if m := poll(t, c); string(m.Value) != "after" {
		t.Errorf("%q", m.Value)
	}
	if n := liveHeap() - before; n > largest {
		t.Errorf("%d MiB are held", n>>20)
	}
}

// So is one that is not compressed.
func TestConsumerManySmallPlainMessages(t *testing.T) {
	const n = 200_000 // 36 MiB when they are decoded
	cl := startCluster(t, kafkatest.Config{MaxMessageBytes: 15 << 20})
	produceRaw(t, cl, record(testTopic, 0, "before"))
	var many []byte
	for i := range int32(n) {
		r := kmsg.Record{OffsetDelta: i}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		many = r.AppendTo(many)
	}
	produceBatch(t, cl, n, many)
	produceRaw(t, cl, record(testTopic, 0, "after"))
	before := liveHeap()
	c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, FromBeginning: true})
	if m := poll(t, c); string(m.Value) != "before" {
		t.Errorf("%q", m.Value)
	}
	_, err := c.Poll(t.Context())
	wantErr(t, err, kinds(gracedb.ErrConsumer), nil, testTopic, "partition 0 offset 1", "decoded")
	if m := poll(t, c); string(m.Value) != "after" || m.Offset != n+1 {
		t.Errorf("%q at %d", m.Value, m.Offset)
	}
	if n := liveHeap() - before; n > largest {
		t.Errorf("%d MiB are held", n>>20)
	}
}

// A fixed makes the same of every batch, in zstd.
type fixed []byte

// Compress is kgo's Compressor.
func (f fixed) Compress(*bytes.Buffer, []byte, ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	return e.EncodeAll(f, nil), kgo.CodecZstd
}

// What kgo has dropped because a leader moved takes no room for ever.
func TestConsumerRoomAfterLeaderMoves(t *testing.T) {
	cfg := kafkatest.Config{Brokers: 2, MaxMessageBytes: 15 << 20, Topics: map[string]int{testTopic: 1}}
	virtually(t, cfg, func(t *testing.T, cl *kafkatest.Cluster) {
		if err := cl.MoveLeader(testTopic, 0, 0); err != nil {
			t.Fatal(err)
		}
		const n = 4
		bombard(t, cl, kgo.ZstdCompression(), n, 14<<20, 1)
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, FromBeginning: true})
		for i := range n {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			m, err := c.Poll(ctx)
			cancel()
			if err != nil || m.Offset != int64(i) {
				t.Fatalf("%d: offset %d, %v", i, m.Offset, err)
			}
			if i == 0 {
				time.Sleep(time.Second) // the next one is fetched
				if err := cl.MoveLeader(testTopic, 0, 1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second) // the caller works on it
			}
		}
	})
}

// producePlain appends n records like r to each partition, in batches of up to size bytes that
// are not compressed.
func producePlain(t testing.TB, cl *kafkatest.Cluster, partitions, n, size int, r kgo.Record) {
	t.Helper()
	client, err := cl.Client(kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(int32(size)),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(n), kgo.ProducerLinger(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for part := range int32(partitions) {
		for range n {
			next := r
			next.Topic, next.Partition = testTopic, part
			client.Produce(t.Context(), &next, nil)
		}
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// produceBatch appends n records as one batch that is not compressed.
func produceBatch(t testing.TB, cl *kafkatest.Cluster, n int32, records []byte) {
	t.Helper()
	client, err := cl.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := kmsg.RecordBatch{
		Length: int32(49 + len(records)), Magic: 2, PartitionLeaderEpoch: -1, LastOffsetDelta: n - 1,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: n, Records: records,
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 1000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = testTopic, cl.Kfake().TopicInfo(testTopic).TopicID
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = raw
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Messages of a few bytes, and such with a thousand headers, take many times their size once
// they are decoded. Where batches are not compressed, too, a Consumer holds no more of them
// than of others, from several brokers together, and reads all, each once and in order.
func TestConsumerPlainSmallMessages(t *testing.T) {
	headers := make([]kgo.RecordHeader, 1000)
	for _, tt := range []struct {
		name       string
		brokers, n int // messages of each broker
		batch      int
		r          kgo.Record
	}{
		{"nothing in them", 1, 400_000, 1 << 20, kgo.Record{}},
		{"nothing in them, of three brokers", 3, 150_000, 1 << 20, kgo.Record{}},
		{"headers", 1, 4000, 1 << 20, kgo.Record{Headers: headers}},
		{"small batches, of two brokers", 2, 100_000, 100_000, kgo.Record{Value: []byte("x")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testrace.Enabled {
				tt.n /= 2
			}
			cl := startCluster(t, kafkatest.Config{Brokers: tt.brokers, Topics: map[string]int{testTopic: tt.brokers}})
			for part := range int32(tt.brokers) {
				if err := cl.MoveLeader(testTopic, part, part); err != nil {
					t.Fatal(err)
				}
			}
			producePlain(t, cl, tt.brokers, tt.n, tt.batch, tt.r)
			before := liveHeap()
			c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, FromBeginning: true})
			next := make(map[int32]int64)
			most := int64(0)
			for i := range tt.brokers * tt.n {
				m := poll(t, c)
				if m.Offset != next[m.Partition] {
					t.Fatalf("partition %d offset %d, want %d", m.Partition, m.Offset, next[m.Partition])
				}
				next[m.Partition]++
				if i%(tt.n/20) == 1 {
					most = max(most, liveHeap()-before)
				}
			}
			t.Logf("%d MiB", most>>20)
			if most > largest {
				t.Errorf("%d MiB are held", most>>20)
			}
		})
	}
}

// What an answer claims beyond what it holds costs no message: the batch that claims more is read
// as far as it can be, and what is behind it, too.
func TestConsumerBatchesThatClaimMore(t *testing.T) {
	withGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		claim := func(n uint32) func([]byte) {
			return func(b []byte) {
				binary.BigEndian.PutUint32(b[57:], n)
				binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
			}
		}
		for i := range 40 {
			rewrite(cl, map[int32]int64{0: int64(i)}, claim(5000))
			produceRaw(t, cl, record(testTopic, 0, fmt.Sprint(i)))
		}
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
		for i := range 40 {
			if m := poll(t, c); string(m.Value) != fmt.Sprint(i) {
				t.Fatalf("%s, want %d", m.Value, i)
			}
		}
	})
}

// The largest batch is read behind others, although a fetch asks for less than that: brokers return
// at least one, and some end behind the one that is too many.
func TestConsumerLargestFetch(t *testing.T) {
	cl := startCluster(t, kafkatest.Config{MaxMessageBytes: 15 << 20})
	produceWith(t, cl, []kgo.Opt{kgo.ProducerBatchMaxBytes(15 << 20), kgo.ProducerBatchCompression(kgo.NoCompression())},
		record(testTopic, 0, string(make([]byte, 5<<20-200))), record(testTopic, 0, string(make([]byte, 15<<20-200))), record(testTopic, 0, "after"))
	c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, FromBeginning: true})
	for i, size := range []int{5<<20 - 200, 15<<20 - 200, 5} {
		if m := poll(t, c); m.Offset != int64(i) || len(m.Value) != size {
			t.Errorf("%d bytes at %d, want %d at %d", len(m.Value), m.Offset, size, i)
		}
	}
}

// A larger answer is refused by its head.
func TestConsumerFetchTooLarge(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
		const length = 21<<20 + 1
		cl.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1})
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}})
		_, err := c.Poll(t.Context())
		wantErr(t, err, kinds(gracedb.ErrConsumer), nil, fmt.Sprint(length))
	})
}

// What a transaction has taken back is not handed over, and the places of what is not are
// not told as lost, not even when they are deleted.
func TestConsumerReadsCommitted(t *testing.T) {
	withGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group})
		transact(t, cl, "a", new(kgo.TryAbort), "aborted 1", "aborted 2")
		transact(t, cl, "b", new(kgo.TryCommit), "committed")
		got, errs := pollAll(t, c, 5*time.Second)
		if fmt.Sprint(got) != "[committed]" || len(errs) != 0 {
			t.Fatalf("%v, %v", got, errs)
		}
		transact(t, cl, "c", new(kgo.TryAbort), "aborted 3", "aborted 4")
		if got, errs := pollAll(t, c, 5*time.Second); len(got)+len(errs) != 0 {
			t.Errorf("%v, %v", got, errs)
		}
		const all = 8 // five messages, and an end of each transaction
		if err := cl.Trim(testTopic, 0, all); err != nil {
			t.Fatal(err)
		}
		produceRaw(t, cl, record(testTopic, 0, "after"))
		got, errs = pollAll(t, c, 5*time.Second)
		if fmt.Sprint(got) != "[after]" || len(errs) != 0 {
			t.Errorf("%v, %v", got, errs)
		}
	})
}

// An open transaction holds back what is behind it; an option reads all the same.
func TestConsumerOpenTransaction(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint("all=", all), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
				cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}}
				want := "[]"
				if all {
					cfg.Cluster.Opts = append(cfg.Cluster.Opts, kgo.FetchIsolationLevel(kgo.ReadUncommitted()))
					want = "[open behind]"
				}
				c := newConsumer(t, cfg)
				transact(t, cl, "a", nil, "open")
				produceRaw(t, cl, record(testTopic, 0, "behind"))
				if got, errs := pollAll(t, c, 5*time.Second); fmt.Sprint(got) != want || len(errs) != 0 {
					t.Errorf("%v, %v", got, errs)
				}
			})
		})
	}
}
