package consume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
)

// This file keeps the promise that nothing published after NewConsumer or Subscribe is missed.
// kgo's own AtEnd is no help: kgo asks a broker for the end some time later. So a Consumer takes
// a snapshot:
//  1. ListOffsets tells where each partition ends now or, with FromBeginning, where it begins or,
//     with Since, its first message from then on (offsets.go);
//  2. without a group kgo is told to begin at exactly these offsets;
//  3. with a group they are committed, where the group has committed nothing (commitStart).
// With FromBeginning kgo's AtStart would do, if it did not hide that messages at the beginning are
// deleted before they are read.

// positions is what a Consumer knows of its topics and of their partitions. consumer.mu guards
// all of it.
type positions struct {
	pending []string                  // topics that a lazy Consumer has subscribed and that are not yet in position
	topics  map[string]*topicPosition // by name; see topic
	losses  int                       // how often this member of the group has lost partitions
}

// A topicPosition is what a Consumer knows of one topic. It outlives the topic: one that is
// deleted may come back.
type topicPosition struct {
	consumed   bool                 // it is in position
	state      cluster.Topic        // what brokers said of it last, once it is consumed
	missing    int                  // in how many rounds of followTopics in a row brokers did not show it
	told       map[string]bool      // errors that Poll has returned and that last
	former     [][16]byte           // ids of the topics of this name that were deleted
	unread     map[int32]int64      // what Poll had not returned when kgo was made to forget the topic; nil if kgo has it
	partitions map[int32]*partition // by number; see at
}

// A partition is where a Consumer is in one partition. An offset that is not known is
// noOffset.
type partition struct {
	start     *kgo.EpochOffset // in the snapshot: an offset, or -1 for the end of an epoch; nil if the snapshot has none
	resumedAt int64            // where kgo was told to begin or to go on last
	next      int64            // the offset that is expected of kgo next
	returned  int64            // the offset behind the last message that Poll has returned
	done      kgo.EpochOffset  // behind the last message that the caller is done with
	unmarked  bool             // kgo has not been told of done
	late      bool             // it had no leader that could say where its start is by time: kgo asks when it has one
	sought    *kgo.EpochOffset // where Seek has moved it, until Poll returns a message of it; or nil
	soughtAt  time.Time        // when it did
	owned     bool             // this member of the group has it
	lostAt    int              // positions.losses when this member lost it last
	remadeAt  time.Time        // when its topic was seen to be made anew; zero once kgo was told to begin at 0
	held      *unreadable      // the batch that kgo cannot read, at which it is paused; or nil
}

// noOffset is an offset that is not known.
const noOffset = -1

func newPositions() positions { return positions{topics: make(map[string]*topicPosition)} }

// topic returns what is known of a topic; "" is for errors that name none.
func (p *positions) topic(name string) *topicPosition {
	t := p.topics[name]
	if t == nil {
		t = &topicPosition{told: make(map[string]bool), partitions: make(map[int32]*partition)}
		p.topics[name] = t
	}
	return t
}

// at returns what is known of a partition.
func (p *positions) at(topic string, id int32) *partition { return p.topic(topic).at(id) }

func (t *topicPosition) at(id int32) *partition {
	part := t.partitions[id]
	if part == nil {
		part = new(partition)
		part.forget()
		t.partitions[id] = part
	}
	return part
}

// forget makes part one of which no position is known.
func (part *partition) forget() {
	part.start, part.sought, part.late = nil, nil, false
	part.done = kgo.EpochOffset{Epoch: -1, Offset: noOffset}
	part.reset(noOffset)
}

// reset notes where kgo was told to begin or to go on.
func (part *partition) reset(next int64) { part.resumedAt, part.next, part.returned = next, next, next }

// rewind notes that kgo goes on at an offset that it had been past: what was done behind it,
// or before the snapshot, is not there any more.
func (part *partition) rewind(next int64) {
	part.reset(next)
	part.done.Offset = min(part.done.Offset, next)
	if part.start != nil {
		part.start.Offset = min(part.start.Offset, next)
	}
}

// An offsetMap is offsets by topic and partition, as kgo takes them.
type offsetMap = map[string]map[int32]kgo.EpochOffset

func set[V any](m map[string]map[int32]V, topic string, partition int32, v V) {
	if m[topic] == nil {
		m[topic] = make(map[int32]V)
	}
	m[topic][partition] = v
}

// has reports whether topic is subscribed.
func (p *positions) has(topic string) bool {
	t := p.topics[topic]
	return t != nil && t.consumed || slices.Contains(p.pending, topic)
}

// consumed returns the names of the topics that are in position.
func (p *positions) consumed() []string {
	var names []string
	for name, t := range p.topics {
		if t.consumed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// states returns what brokers have said of the topics that are in position.
func (p *positions) states() map[string]cluster.Topic {
	states := make(map[string]cluster.Topic)
	for name, t := range p.topics {
		if t.consumed {
			states[name] = t.state
		}
	}
	return states
}

// consume notes that a topic is in position, and what brokers said of it.
func (t *topicPosition) consume(state cluster.Topic) { t.consumed, t.state = true, state }

// isNews reports whether this error of a topic has not been told since the topic last
// worked.
func (t *topicPosition) isNews(what string) bool {
	if t.told[what] {
		return false
	}
	t.told[what] = true
	return true
}

// works ends all errors of a topic.
func (t *topicPosition) works() { clear(t.told) }

// ahead says what is to be read next, for an error that is of no one partition.
func (p *positions) ahead() string {
	const most = 3
	var next []string
	for _, topic := range slices.Sorted(maps.Keys(p.topics)) {
		parts := p.topics[topic].partitions
		for _, id := range slices.Sorted(maps.Keys(parts)) {
			if parts[id].next != noOffset {
				next = append(next, fmt.Sprintf("topic %s partition %d offset %d", topic, id, parts[id].next))
			}
		}
	}
	switch more := len(next) - most; {
	case len(next) == 0:
		return ""
	case more > 0:
		next = append(next[:most], fmt.Sprintf("%d more", more))
	}
	return "; next to be read: " + strings.Join(next, ", ")
}

// position puts topics into position and starts to consume them. If it fails, it can
// be called again.
func (c *Consumer) position(ctx context.Context, topics []string) error {
	states, err := c.cluster.FindTopics(ctx, kmsg.ACLOperationRead, topics...)
	if err != nil {
		return err
	}
	starts, err := c.offsetsFrom(ctx, states, topics, c.from)
	if err != nil {
		return err
	}
	if c.from == latest {
		startAtEndOfEpoch(starts, states, topics)
	}
	if c.group != "" {
		if err := c.commitStart(ctx, states, topics, starts); err != nil {
			return err
		}
	}
	direct := make(map[string]map[int32]kgo.Offset)
	c.mu.Lock()
	for _, topic := range topics {
		c.cluster.LogLeaders(cluster.Topic{}, states[topic])
		t := c.positions.topic(topic)
		t.consume(states[topic])
		for _, part := range states[topic].Partitions {
			at := kgo.NewOffset().AtStart()
			if c.from >= 0 && part.Leader < 0 {
				at = kgo.NewOffset().AfterMilli(c.from)
				t.at(part.ID).late = true
			}
			if start, ok := starts[topic][part.ID]; ok {
				at = kgoOffset(start)
				t.at(part.ID).start = &start
				if c.group == "" && start.Offset >= 0 {
					t.at(part.ID).reset(start.Offset)
				}
			}
			set(direct, topic, part.ID, at)
		}
	}
	c.mu.Unlock() // kgo may wait for a broker below
	if c.group == "" {
		c.cluster.KGO.AddConsumePartitions(direct)
	} else {
		c.cluster.KGO.AddConsumeTopics(topics...)
	}
	return nil
}
