package gracedb

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file reads what goes over a Producer's connections: Produce requests, and the
// answers to them.

// A sentBatch is where a batch goes, and which of its producer's it is.
type sentBatch struct {
	topicPart
	producer int64
	epoch    int16
	sequence int32 // of its first message
}

// A topicPart is a partition of a topic.
type topicPart struct {
	topic     string // its id, as far as brokers have them
	partition int32
}

// follows reports whether b was sent after a, and is of no use without it. Sequence
// numbers begin again after the largest.
func (b sentBatch) follows(a sentBatch) bool {
	ahead := (b.sequence - a.sequence) & math.MaxInt32
	return b.topicPart == a.topicPart && b.producer == a.producer && b.epoch == a.epoch && ahead > 0 && ahead < math.MaxInt32/2
}

// parseRequest reads the head of a request, and which batches it brings. It returns
// the frame to send, which names no partition without a batch: the engine leaves one
// so if it drops the batch while it writes, and Kafka never answers that (seen with
// 4.3.1), nor anything behind it. Of a partition that is not in the answer the engine
// sends again what it still has.
func parseRequest(frame []byte) (r sentRequest, send []byte, ok bool) {
	if len(frame) < 4 {
		return r, frame, false
	}
	b := kbin.Reader{Src: frame[4:]}
	key := kmsg.Key(b.Int16())
	r = sentRequest{version: b.Int16(), correlation: b.Int32()}
	if key != kmsg.Produce || !b.Ok() {
		return r, frame, b.Ok()
	}
	b.NullableString() // the client's id
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(r.version)
	if req.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	if req.ReadFrom(b.Src) != nil {
		r.batches = make([]sentBatch, 1) // some; it is not ours to complain
		return r, frame, true
	}
	named := 0
	for i := range req.Topics {
		t := &req.Topics[i]
		named += len(t.Partitions)
		t.Partitions = slices.DeleteFunc(t.Partitions, func(p kmsg.ProduceRequestTopicPartition) bool { return p.Records == nil })
		for _, p := range t.Partitions {
			r.batches = append(r.batches, parseBatch(topicPart{topicKeyOf(r.version, t.Topic, t.TopicID), p.Partition}, p.Records))
		}
	}
	if named == len(r.batches) {
		return r, frame, true
	}
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.ProduceRequestTopic) bool { return len(t.Partitions) == 0 })
	head := frame[:len(frame)-len(b.Src)]
	send = req.AppendTo(slices.Clone(head))
	binary.BigEndian.PutUint32(send, uint32(len(send)-4))
	return r, send, true
}

// topicKeyOf returns what a request of a version calls a topic: since KIP-516
// that is its id.
func topicKeyOf(version int16, name string, id [16]byte) string {
	if version >= 13 {
		return string(id[:])
	}
	return name
}

// parseBatch reads the head of a record batch of version 2.
func parseBatch(at topicPart, records []byte) sentBatch {
	var batch kmsg.RecordBatch
	_ = batch.ReadFrom(records) // one that ends early has no number, and follows none
	return sentBatch{at, batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence}
}

// batchCodes returns the codes in the answer to r, by partition; none if it is not that.
func batchCodes(body []byte, r sentRequest) map[topicPart]int16 {
	b := kbin.Reader{Src: body}
	correlation := b.Int32()
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(r.version)
	if resp.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	if correlation != r.correlation || !b.Ok() || resp.ReadFrom(b.Src) != nil {
		return nil
	}
	codes := make(map[topicPart]int16, len(r.batches))
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			codes[topicPart{topicKeyOf(r.version, t.Topic, t.TopicID), p.Partition}] = p.ErrorCode
		}
	}
	return codes
}
