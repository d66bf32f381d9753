package cluster

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is what the answers look like whose counts are judged, field by field as in
// Kafka's protocol guide, and where others have their throttle time.

// A part is a field of an answer.
type part struct {
	is   partKind
	size int64   // of a fixed one
	of   []part  // of each element of an array
	cost int64   // what the engine makes of an element, in bytes
	what counted // of an array
}

type partKind int

const (
	fixed    partKind = iota
	throttle          // 4 bytes, in ms
	text              // a string
	batches           // bytes: what a Fetch brings of a partition
	array
	tags  // the tagged fields of a flexible version
	tag   // the number of one
	value // what it holds
)

// A counted is what an array is of, if that is bounded.
type counted int

const (
	anything counted = iota
	brokers
	topics
	partitions
	kindsCounted
)

// A shape is what follows the request's number in an answer, as far as it is of interest;
// nothing if it is not.
type shape struct {
	of       []part
	flexible bool
}

// A shapeKey is a request and its version.
type shapeKey struct {
	key     kmsg.Key
	version int16
}

var shapes sync.Map // of shapeKey to shape, which nobody changes

// shapeOf returns the shape of the answer to r.
func shapeOf(r sentHead) shape {
	key := shapeKey{r.key, r.version}
	if known, ok := shapes.Load(key); ok {
		return known.(shape)
	}
	of, flexible := newShape(r)
	s := shape{of, flexible}
	if of != nil {
		shapes.Store(key, s)
	}
	return s
}

func newShape(r sentHead) (shape []part, flexible bool) {
	answer := kmsg.ResponseForKey(int16(r.key))
	if answer == nil || r.version < 0 || r.version > answer.MaxVersion() {
		return nil, false
	}
	answer.SetVersion(r.version)
	flexible = answer.IsFlexible()
	v := r.version
	switch r.key {
	case kmsg.ApiVersions: // the engine minds no throttle time in it
		return nil, false
	case kmsg.Fetch:
		shape = fetchShape(v)
	case kmsg.Produce:
		shape = produceShape(v)
	case kmsg.Metadata:
		shape = metadataShape(v)
	default:
		if _, ok := answer.(kmsg.ThrottleResponse); !ok || v < throttleSince(r.key) {
			return nil, false
		}
		shape = []part{{is: throttle}}
	}
	if flexible {
		return append([]part{{is: tags}}, shape...), true // of the header
	}
	return shape, false
}

// throttleSince returns the first version of an answer that begins with a throttle time.
func throttleSince(key kmsg.Key) int16 {
	switch key {
	case kmsg.JoinGroup, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch:
		return 2
	case kmsg.OffsetCommit, kmsg.OffsetFetch:
		return 3
	case kmsg.FindCoordinator, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.SyncGroup, kmsg.DescribeGroups, kmsg.ListGroups:
		return 1
	case kmsg.InitProducerID, kmsg.DescribeConfigs, kmsg.ConsumerGroupHeartbeat:
		return 0
	}
	return 1 << 14 // not known
}

// parts returns those that a version has.
func parts(all ...func() (part, bool)) []part {
	var has []part
	for _, f := range all {
		if f, ok := f(); ok {
			has = append(has, f)
		}
	}
	return has
}

func when(has bool, f part) func() (part, bool) { return func() (part, bool) { return f, has } }

// abortedCost is what kgo makes of an aborted transaction, with a list of those of its producer.
const abortedCost = 200

func fetchShape(v int16) []part {
	flexible := v >= 12
	aborted := part{is: array, cost: abortedCost, of: parts(when(true, part{size: 16}), when(flexible, part{is: tags}))}
	partition := parts(
		when(true, part{size: 4 + 2 + 8}),
		when(v >= 4, part{size: 8}), when(v >= 5, part{size: 8}),
		when(v >= 4, aborted),
		when(v >= 11, part{size: 4}),
		when(true, part{is: batches}),
		when(flexible, part{is: tags}),
	)
	topic := parts(
		when(v < 13, part{is: text}), when(v >= 13, part{size: 16}),
		when(true, part{is: array, what: partitions, cost: 256, of: partition}),
		when(flexible, part{is: tags}),
	)
	return parts(
		when(v >= 1, part{is: throttle}), when(v >= 7, part{size: 2 + 4}),
		when(true, part{is: array, what: topics, cost: 96, of: topic}),
		when(flexible, part{is: tags}),
	)
}

func produceShape(v int16) []part {
	flexible := v >= 9
	record := part{is: array, cost: 48, of: parts(when(true, part{size: 4}), when(true, part{is: text}), when(flexible, part{is: tags}))}
	partition := parts(
		when(true, part{size: 4 + 2 + 8}),
		when(v >= 2, part{size: 8}), when(v >= 5, part{size: 8}),
		when(v >= 8, record), when(v >= 8, part{is: text}),
		when(flexible, part{is: tags}),
	)
	topic := parts(
		when(v < 13, part{is: text}), when(v >= 13, part{size: 16}),
		when(true, part{is: array, what: partitions, cost: 160, of: partition}),
		when(flexible, part{is: tags}),
	)
	return parts(
		when(true, part{is: array, what: topics, cost: 96, of: topic}),
		when(v >= 1, part{is: throttle}),
		when(flexible, part{is: tags}),
	)
}

func metadataShape(v int16) []part {
	flexible := v >= 9
	broker := parts(
		when(true, part{size: 4}), when(true, part{is: text}), when(true, part{size: 4}),
		when(v >= 1, part{is: text}),
		when(flexible, part{is: tags}),
	)
	nodes := part{is: array, cost: 4, of: []part{{size: 4}}}
	partition := parts(
		when(true, part{size: 2 + 4 + 4}), when(v >= 7, part{size: 4}),
		when(true, nodes), when(true, nodes), when(v >= 5, nodes),
		when(flexible, part{is: tags}),
	)
	topic := parts(
		when(true, part{size: 2}), when(true, part{is: text}),
		when(v >= 10, part{size: 16}), when(v >= 1, part{size: 1}),
		when(true, part{is: array, what: partitions, cost: 144, of: partition}),
		when(v >= 8, part{size: 4}),
		when(flexible, part{is: tags}),
	)
	return parts(
		when(v >= 3, part{is: throttle}),
		when(true, part{is: array, what: brokers, cost: 128, of: broker}),
		when(v >= 2, part{is: text}), when(v >= 1, part{size: 4}),
		when(true, part{is: array, what: topics, cost: 96, of: topic}),
		when(v >= 8 && v <= 10, part{size: 4}), when(v >= 13, part{size: 2}),
		when(flexible, part{is: tags}),
	)
}
