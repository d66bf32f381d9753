package gracedb

import (
	"context"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A partitioner places a keyed message where librdkafka's default,
// consistent_random, places it, so that an event keeps its partition whichever
// package sends it. Messages without a key stick to a random partition per batch.
type partitioner struct{}

func (partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	sticky := kgo.StickyKeyPartitioner(func(key []byte, partitions int) int {
		return int(crc32.ChecksumIEEE(key) % uint32(partitions))
	})
	return topicPartitioner{sticky.ForTopic(topic)}
}

type topicPartitioner struct{ kgo.TopicPartitioner }

// unplaceable is the context of a record that has no place: the engine fails it
// once it knows the topic.
var unplaceable = context.WithValue(context.Background(), unplaceableKey{}, true)

type unplaceableKey struct{}

func (t topicPartitioner) Partition(r *kgo.Record, partitions int) int {
	if r.Context == unplaceable {
		return -1
	}
	return t.TopicPartitioner.Partition(r, partitions)
}

func (t topicPartitioner) OnNewBatch() {
	if sticky, ok := t.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		sticky.OnNewBatch()
	}
}
