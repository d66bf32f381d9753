package kafkatest

import (
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Where a record batch (version 2) has its fields.
const (
	batchChecksum = 17 // of all behind it
	batchAttrs    = 21
	batchProducer = 43
	batchLeast    = 61
)

// ownProducers gives each partition a producer of its own, in the frame of a Produce
// request. Kafka keeps an idempotent producer's epoch and sequence numbers by
// partition; kfake keeps the epoch for all of them, and refuses a batch that is sent
// again under the old epoch to one partition because another has seen the new.
//
// Those of another generation are not known any more.
func (r *request) ownProducers(generation uint32) {
	if r.key != int16(kmsg.Produce) {
		return
	}
	req, err := r.decode()
	if err != nil {
		return // kfake says what is wrong
	}
	for _, t := range req.(*kmsg.ProduceRequest).Topics {
		for _, p := range t.Partitions {
			b := p.Records // a part of r.frame
			if len(b) < batchLeast {
				continue
			}
			id := int64(binary.BigEndian.Uint64(b[batchProducer:]))
			checksum := crc32.Checksum(b[batchAttrs:], castagnoli)
			if id < 0 || binary.BigEndian.Uint32(b[batchChecksum:]) != checksum {
				continue
			}
			h := fnv.New64a()
			_, _ = h.Write(b[batchProducer : batchProducer+8])
			_, _ = h.Write([]byte(t.Topic))
			_, _ = h.Write(t.TopicID[:])
			_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(p.Partition)))
			_, _ = h.Write(binary.BigEndian.AppendUint32(nil, generation))
			binary.BigEndian.PutUint64(b[batchProducer:], h.Sum64()>>1)
			binary.BigEndian.PutUint32(b[batchChecksum:], crc32.Checksum(b[batchAttrs:], castagnoli))
		}
	}
}

// ForgetProducers makes brokers forget all idempotent producers, as Kafka does when they
// have been silent for a day (producer.id.expiration.ms): the next batch of each is
// taken, whatever its number.
func (c *Cluster) ForgetProducers() { c.forgotten.Add(1) }

// namesNoBatch reports whether r is a Produce request with a partition that has no
// batch, not even an empty one.
func (r *request) namesNoBatch() bool {
	if r.key != int16(kmsg.Produce) {
		return false
	}
	req, err := r.decode()
	if err != nil {
		return false
	}
	for _, t := range req.(*kmsg.ProduceRequest).Topics {
		for _, p := range t.Partitions {
			if p.Records == nil {
				return true
			}
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
