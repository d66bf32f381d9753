package kafkatest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A sent batch is what a hand-written producer sends.
type sent struct {
	producer  int64
	epoch     int16
	sequence  int32
	records   int // that many, with key and value
	times     []int64
	keyless   []int // records without a key
	codec     int16
	partition int32
	acks      int16
	value     []byte
}

func one(producer int64, epoch int16, sequence int32) sent {
	return sent{producer: producer, epoch: epoch, sequence: sequence, records: 1}
}

func (s sent) raw(t testing.TB) []byte {
	t.Helper()
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		Magic: 2, ProducerID: s.producer, ProducerEpoch: s.epoch, FirstSequence: s.sequence, PartitionLeaderEpoch: -1,
		NumRecords: int32(s.records), LastOffsetDelta: int32(s.records) - 1, FirstTimestamp: now, MaxTimestamp: now, Attributes: s.codec,
	}
	keyless := map[int]bool{}
	for _, i := range s.keyless {
		keyless[i] = true
	}
	for i := range s.records {
		r := kmsg.Record{Key: []byte("k"), Value: s.value, OffsetDelta: int32(i)}
		if keyless[i] {
			r.Key = nil
		}
		if i < len(s.times) {
			r.TimestampDelta64 = s.times[i] - now
			batch.MaxTimestamp = max(batch.MaxTimestamp, s.times[i])
		}
		r.Length = int32(len(r.AppendTo(nil))) - 1
		batch.Records = r.AppendTo(batch.Records)
	}
	if s.codec != 0 {
		c, err := kgo.DefaultCompressor(kgo.GzipCompression())
		if err != nil {
			t.Fatal(err)
		}
		batch.Records, _ = c.Compress(new(bytes.Buffer), batch.Records)
	}
	return seal(batch.AppendTo(nil))
}

// seal puts a batch's length and checksum into it.
func seal(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[batchLength:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[batchChecksum:], crc32.Checksum(raw[batchAttrs:], castagnoli))
	return raw
}

// request returns a Produce request for topic, as it is now.
func (s sent) request(t testing.TB, c *Cluster) *kmsg.ProduceRequest {
	t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.TimeoutMillis = 1000
	if req.Acks = s.acks; s.acks == 0 {
		req.Acks = -1
	}
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	if info := c.Kfake().TopicInfo(topic); info != nil {
		rt.TopicID = info.TopicID
	}
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = s.partition, s.raw(t)
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// to sends it to a broker, and returns what is answered for the partition.
func (s sent) to(t testing.TB, c *Cluster, cl *kgo.Client, node int32) kmsg.ProduceResponseTopicPartition {
	t.Helper()
	return ask(t, cl, node, s.request(t, c)).Topics[0].Partitions[0]
}

func ask(t testing.TB, cl *kgo.Client, node int32, req *kmsg.ProduceRequest) *kmsg.ProduceResponse {
	t.Helper()
	resp, err := cl.Broker(int(node)).Request(t.Context(), asItIs{req})
	if err != nil {
		t.Fatal(err)
	}
	return resp.(*kmsg.ProduceResponse)
}

// kgo puts acks of its own into a request that is not of a type like this.
type asItIs struct{ *kmsg.ProduceRequest }

// wantCode checks what is answered.
func wantCode(t testing.TB, what string, p kmsg.ProduceResponseTopicPartition, want *kerr.Error, offset int64) {
	t.Helper()
	if err := kerr.ErrorForCode(p.ErrorCode); !errors.Is(err, want) && (want != nil || err != nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	if p.BaseOffset != offset {
		t.Errorf("%s: offset %d, want %d", what, p.BaseOffset, offset)
	}
}

// Producer ids are counted from 0, and those of transactions are kfake's. An idempotent
// producer that names the id that it has gets another one.
func TestProducerIDs(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Topics: map[string]int{topic: 1}}
	next := int64(0)
	for range 2 { // and again after a restart
		bubble(t, cfg, func(t *testing.T, c *Cluster, cl *kgo.Client) {
			next++ // of the client that bubble has produced with
			for range 3 {
				req := kmsg.NewPtrInitProducerIDRequest()
				req.ProducerID, req.ProducerEpoch = next-1, 3
				resp, err := req.RequestWith(t.Context(), cl)
				if err != nil || resp.ErrorCode != 0 {
					t.Fatal(err, resp)
				}
				if resp.ProducerID != next || resp.ProducerEpoch != 0 {
					t.Errorf("producer %d epoch %d, want %d epoch 0", resp.ProducerID, resp.ProducerEpoch, next)
				}
				next++
			}
		})
	}
}

// What is refused has no part in the state of its producer, and is looked at in Kafka's
// order: the replicas, then the batch, then the producer. So an answer to a batch that is
// sent again does not say that it was not appended before.
func TestOrderOfChecks(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		batch := sent{producer: 7, records: 2, value: make([]byte, 2000)}
		wantCode(t, "first", batch.to(t, c, cl, 0), nil, 1)
		before := c.ShrinkISR(topic)
		wantCode(t, "too few replicas", batch.to(t, c, cl, 0), kerr.NotEnoughReplicas, -1)
		wantCode(t, "too few replicas, next", one(7, 0, 2).to(t, c, cl, 0), kerr.NotEnoughReplicas, -1)
		next := one(7, 0, 2)
		next.acks = 1
		wantCode(t, "acks=1", next.to(t, c, cl, 0), nil, 3)
		before.Remove()
		c.Inject(Fault{Do: ErrorResponse, Err: kerr.NotEnoughReplicas, Keys: produces})
		wantCode(t, "too few replicas, injected", one(7, 0, 3).to(t, c, cl, 0), kerr.NotEnoughReplicas, -1)
		c.Fail(kfake.Fault{Keys: produces, Err: kerr.NotEnoughReplicasAfterAppend})
		wantCode(t, "after the append", one(7, 0, 3).to(t, c, cl, 0), kerr.NotEnoughReplicasAfterAppend, 4)
		c.Fail(kfake.Fault{Keys: produces, Err: kerr.NotEnoughReplicasAfterAppend})
		wantCode(t, "after the append, again", one(7, 0, 3).to(t, c, cl, 0), kerr.NotEnoughReplicasAfterAppend, 4)
		c.Inject(Fault{Do: ErrorResponse, Err: kerr.NotLeaderForPartition, Keys: produces})
		wantCode(t, "deposed after the append", one(7, 0, 4).to(t, c, cl, 0), kerr.NotLeaderForPartition, 5)
		c.Fail(kfake.Fault{Keys: produces, Err: kerr.NotEnoughReplicasAfterAppend})
		wantCode(t, "after the append, out of order", one(7, 0, 9).to(t, c, cl, 0), kerr.OutOfOrderSequenceNumber, -1)
		c.Fail(kfake.Fault{Keys: produces, Err: kerr.TopicAuthorizationFailed, Count: 2})
		wantCode(t, "no right, again", one(7, 0, 4).to(t, c, cl, 0), kerr.TopicAuthorizationFailed, -1)
		wantCode(t, "no right, out of order", one(7, 0, 9).to(t, c, cl, 0), kerr.TopicAuthorizationFailed, -1)
		alter(t, c, "max.message.bytes", "1000")
		wantCode(t, "too large since, again", batch.to(t, c, cl, 0), kerr.MessageTooLarge, -1)
		damaged := one(7, 0, 4).request(t, c)
		damaged.Topics[0].Partitions[0].Records[batchLeast+3]++
		wantCode(t, "damaged, again", ask(t, cl, 0, damaged).Topics[0].Partitions[0], kerr.CorruptMessage, -1)
		wantCode(t, "the last, again", one(7, 0, 4).to(t, c, cl, 0), nil, 5)
		if n := len(values(t, c, topic)); n != 6 {
			t.Errorf("%d records in the log, want 6", n)
		}
	})
}

// A batch is remembered although its acknowledgement met a connection that was gone, and
// forgotten with the log that it is in, by ForgetProducers, and a day after its time.
func TestWhatIsRemembered(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Topics: map[string]int{topic: 1}, Versions: kversion.V3_9_0()}
	bubble(t, cfg, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		c.LoseAcks(1, CutResponse)
		if _, err := cl.Broker(0).Request(t.Context(), one(7, 0, 0).request(t, c)); err == nil {
			t.Fatal("acknowledged")
		}
		wantCode(t, "again", one(7, 0, 0).to(t, c, cl, 0), nil, 1)
	})
	bubble(t, cfg, func(t *testing.T, c *Cluster, cl *kgo.Client) { // 1 record more
		again := one(7, 0, 0)
		wantCode(t, "after a restart", again.to(t, c, cl, 0), nil, 1)
		c.ForgetProducers()
		wantCode(t, "when forgotten", again.to(t, c, cl, 0), nil, 3)
		if err := c.DeleteTopic(topic); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "without the topic", again.to(t, c, cl, 0), kerr.UnknownTopicOrPartition, -1)
		if err := c.CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "by name to another topic", again.to(t, c, cl, 0), nil, 0)
		time.Sleep(23*time.Hour + 50*time.Minute)
		wantCode(t, "most of a day later", again.to(t, c, cl, 0), nil, 0)
		time.Sleep(20 * time.Minute)
		wantCode(t, "a day later", again.to(t, c, cl, 0), nil, 1)
		old := sent{producer: 8, records: 1, times: []int64{time.Now().AddDate(0, 0, -2).UnixMilli()}}
		wantCode(t, "of two days ago", old.to(t, c, cl, 0), nil, 2)
		wantCode(t, "of two days ago, again", old.to(t, c, cl, 0), nil, 2)
		time.Sleep(11 * time.Minute)
		wantCode(t, "of two days ago, and later", old.to(t, c, cl, 0), nil, 3)
	})
}

// Nobody is told what became of a request with acks=0; an error ends the connection.
func TestAcksNone(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		none := kgo.RequiredAcks(kgo.NoAck())
		quiet := client(t, c, as(c, testauth.Claims{}), none, kgo.DisableIdempotentWrite())
		defer quiet.Close()
		for range 3 {
			produce(t, quiet, "x")
		}
		time.Sleep(time.Second)
		if n := len(values(t, c, topic)); n != 4 {
			t.Errorf("%d records, want 4", n)
		}
	})
}

// alter changes a topic's configuration.
func alter(t testing.TB, c *Cluster, name, value string) {
	t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	conf := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	conf.Name, conf.Value = name, &value
	r.Configs = append(r.Configs, conf)
	req.Resources = append(req.Resources, r)
	req.Version = 1
	if err := c.askAny(req); err != nil {
		t.Fatal(err)
	}
}

// What each batch is answered is what Kafka's ProducerStateManager, ProducerStateEntry
// and ProducerAppendInfo make of it.
func TestProducerState(t *testing.T) {
	type step struct {
		what   string
		sent   sent
		want   *kerr.Error
		offset int64
	}
	const last = math.MaxInt32
	three := func(sequence int32) sent {
		return sent{producer: 7, sequence: sequence, records: 3}
	}
	refused := func(what string, s sent, want *kerr.Error) step { return step{what, s, want, -1} }
	for name, steps := range map[string][]step{
		"in sequence": {
			{"first", one(7, 0, 0), nil, 1},
			{"second", three(1), nil, 2},
			{"third", one(7, 0, 4), nil, 5},
			{"second again", three(1), nil, 2},
			{"first again", one(7, 0, 0), nil, 1},
			refused("gap", one(7, 0, 6), kerr.OutOfOrderSequenceNumber),
			refused("part of the second", one(7, 0, 1), kerr.OutOfOrderSequenceNumber),
			{"fourth", one(7, 0, 5), nil, 6},
		},
		"the last five are remembered": {
			{"0", one(7, 0, 0), nil, 1},
			{"1", one(7, 0, 1), nil, 2},
			{"2", one(7, 0, 2), nil, 3},
			{"3", one(7, 0, 3), nil, 4},
			{"4", one(7, 0, 4), nil, 5},
			{"0 again", one(7, 0, 0), nil, 1},
			{"5", one(7, 0, 5), nil, 6},
			{"1 again", one(7, 0, 1), nil, 2},
			refused("0 once more", one(7, 0, 0), kerr.OutOfOrderSequenceNumber),
		},
		"nothing known": {{"any number", one(7, 3, 40), nil, 1}, {"the next", one(7, 3, 41), nil, 2}},
		"epochs": {
			{"epoch 1", one(7, 1, 0), nil, 1},
			refused("epoch 0", one(7, 0, 1), kerr.InvalidProducerEpoch),
			refused("epoch 2 not from 0", one(7, 2, 1), kerr.OutOfOrderSequenceNumber),
			{"which changes nothing", one(7, 1, 1), nil, 2},
			{"epoch 2", one(7, 2, 0), nil, 3},
			refused("the batch of epoch 1", one(7, 1, 1), kerr.InvalidProducerEpoch),
			{"epoch 2 again", one(7, 2, 0), nil, 3},
			{"epoch 9", one(7, 9, 0), nil, 4},
		},
		"all zero is a producer as any other": {
			{"unset", one(0, 0, 0), nil, 0}, // the batch "first" of the client that has id 0
		},
		"other producers, other partitions": {
			{"7", one(7, 0, 0), nil, 1},
			{"8", one(8, 0, 0), nil, 2},
			{"9", one(9, 5, 0), nil, 3},
			{"7 again", one(7, 0, 0), nil, 1},
			{"partition 1, epoch 1", sent{producer: 7, epoch: 1, records: 1, partition: 1}, nil, 0},
			{"partition 0, epoch 0", one(7, 0, 1), nil, 4},
		},
		"numbers begin again at 0": {
			{"last", one(7, 0, last), nil, 1}, {"0", one(7, 0, 0), nil, 2}, {"last again", one(7, 0, last), nil, 1},
		},
		"a batch over the end": {
			{"two before, two after", sent{producer: 7, sequence: last - 1, records: 4}, nil, 1},
			{"2", one(7, 0, 2), nil, 5},
			{"again", sent{producer: 7, sequence: last - 1, records: 4}, nil, 1},
		},
		"no producer": {{"first", one(-1, -1, -1), nil, 1}, {"second", one(-1, -1, -1), nil, 2}},
		"no sequence": {refused("-1", one(7, 0, -1), kerr.InvalidRecord)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{Topics: map[string]int{topic: 2}}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
				before := len(values(t, c, topic))
				offsets := map[[2]int64]bool{}
				for _, s := range steps {
					got := s.sent.to(t, c, cl, 0)
					wantCode(t, s.what, got, s.want, s.offset)
					if got.ErrorCode == 0 && s.sent.producer != 0 {
						for i := range s.sent.records {
							offsets[[2]int64{int64(s.sent.partition), got.BaseOffset + int64(i)}] = true
						}
					}
				}
				if n := len(values(t, c, topic)) - before; n != len(offsets) {
					t.Errorf("%d records were appended, want %d", n, len(offsets))
				}
			}, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		})
	}
}
