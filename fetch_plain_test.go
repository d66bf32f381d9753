package gracedb_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrace"
)

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
