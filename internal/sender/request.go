package sender

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// replicaTimeout is how long a broker may wait for its replicas before it answers
	// REQUEST_TIMED_OUT, after which the same batch is sent again.
	replicaTimeout = 3 * time.Second
	// slowest is the rate, in bytes a millisecond, at which a network has to carry what was
	// written: an answer is waited for so much longer than kgo's RequestTimeoutOverhead.
	slowest = 32
)

// A produceRequest is one try of a batch.
//
// kgo asks a request for its bytes, by AppendTo, in the moment in which it writes them:
// after the connection is there and authenticated, after a throttle has ended, and after it
// has looked at the request's context for the last time. So a batch whose AppendTo was not
// called was certainly not sent. A batch whose AppendTo was called may have been. kgo
// 1.22.3 promises none of that; TestContract holds it to it.
type produceRequest struct {
	kmsg.ProduceRequest
	b       *batch
	timeout int32
}

// newProduceRequest is called with topic.mu held.
func newProduceRequest(b *batch) *produceRequest {
	r := &produceRequest{ProduceRequest: kmsg.NewProduceRequest(), b: b, timeout: int32(b.size / slowest)}
	r.Acks = -1 // all in-sync replicas
	r.TimeoutMillis = int32(replicaTimeout / time.Millisecond)
	return r
}

// Timeout is kmsg's TimeoutRequest: for how many milliseconds beside its own
// RequestTimeoutOverhead kgo waits for the answer.
func (r *produceRequest) Timeout() int32 { return r.timeout }

// AppendTo is kmsg's Request. kgo calls it again, for the same try, if it has then written
// nothing at all and has made another connection.
func (r *produceRequest) AppendTo(dst []byte) []byte {
	b := r.b
	wanted, plain := b.part.wrote(b)
	if !wanted {
		r.Topics = nil // brokers answer this, and write nothing
		return r.ProduceRequest.AppendTo(dst)
	}
	// No lock from here on: nothing changes a batch that was written, and its records are
	// their owners' again only when the try is over.
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID = b.part.topic.name, b.part.topicID // a version has one of them
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition = b.part.id
	topic.Partitions = []kmsg.ProduceRequestTopicPartition{part}
	r.Topics = []kmsg.ProduceRequestTopic{topic}

	n := plain
	if b.payload != nil {
		n = len(*b.payload)
	}
	dst = slices.Grow(dst, 256+len(topic.Topic)+batchHeader+n)
	dst = r.ProduceRequest.AppendTo(dst)
	// kmsg has written no records, and behind them the empty tags of partition, topic and
	// request. The records go in between, without a copy of their own.
	none, tags := 4, 0
	if r.IsFlexible() {
		none, tags = 1, 3
	}
	dst = dst[:len(dst)-tags-none]
	if r.IsFlexible() {
		dst = kbin.AppendUvarint(dst, uint32(batchHeader+n)+1)
	} else {
		dst = kbin.AppendInt32(dst, int32(batchHeader+n))
	}
	dst = b.appendTo(dst, n)
	return append(dst, make([]byte, tags)...)
}
