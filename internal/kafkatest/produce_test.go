package kafkatest

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A batch that is sent again under its own epoch is recognised, as Kafka does it,
// although the producer has gone on to another epoch in another partition.
func TestProducerStateOfEachPartition(t *testing.T) {
	c := start(t, Config{Topics: map[string]int{"gracedb-test.test": 2}})
	cl := client(t, c, as(c, testauth.Claims{Subject: "alice"}))
	produce := func(partition int32, epoch int16) (offset int64) {
		t.Helper()
		batch := kmsg.RecordBatch{Magic: 2, ProducerID: 7, ProducerEpoch: epoch, NumRecords: 1, PartitionLeaderEpoch: -1}
		record := kmsg.Record{Value: []byte("v")}
		record.Length = int32(len(record.AppendTo(nil))) - 1
		batch.Records = record.AppendTo(nil)
		raw := batch.AppendTo(nil)
		binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
		binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 1000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = "gracedb-test.test", c.Kfake().TopicInfo("gracedb-test.test").TopicID
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = partition, raw
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		got := resp.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
			t.Errorf("partition %d, epoch %d: %v", partition, epoch, err)
		}
		return got.BaseOffset
	}
	first := produce(0, 0)
	produce(1, 1)
	if again := produce(0, 0); again != first {
		t.Errorf("sent again, the batch is at %d, not at %d", again, first)
	}
	records, err := c.Records("gracedb-test.test")
	if err != nil || len(records) != 2 {
		t.Errorf("%d records, %v", len(records), err)
	}
}
