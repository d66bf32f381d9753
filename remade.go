package gracedb

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file is about topics that are deleted and made anew under their name. Brokers tell
// them apart by their ids; the engine goes on with the old one, of which brokers know
// nothing any more, until it is made to begin anew. Before version 10 of OffsetCommit,
// which came with Kafka 4.0, a group's position is stored by the topic's name: what is done
// of the old topic then passes for the position in the new one.

// noTopicID is the id of a topic that brokers older than ids tell of.
var noTopicID [16]byte

// afreshFor is how long after a topic was seen to be made anew the position that a group
// has stored in it may still be one in the old topic. All members see it within two rounds
// of followTopics; whoever does not reach a broker is no member after sessionTimeout.
const afreshFor = 3 * sessionTimeout

// notReturned returns the offsets from which on a topic's messages were not returned by Poll,
// and will not be: of a group's member, of the partitions that it has. What Poll still has
// of other Consumers it returns. An offset may be noOffset.
func (t *topicPosition) notReturned(ofGroup bool) map[int32]int64 {
	from := make(map[int32]int64)
	for id, part := range t.partitions {
		switch {
		case ofGroup && part.owned:
			from[id] = part.returned
		case !ofGroup && part.next != noOffset:
			from[id] = part.next
		}
	}
	return from
}

// isOld reports whether messages of a topic with this id are of one that is not there
// any more.
func (t *topicPosition) isOld(id [16]byte) bool { return slices.Contains(t.former, id) }

// remake makes now the topic that is read from its beginning, says what is lost of the
// one before, and keeps what is done of that out of the group's position.
func (c *Consumer) remake(ctx context.Context, topic string, now topicState) {
	c.mu.Lock()
	t := c.positions.topic(topic)
	was, lost := t.state, t.unread
	if t.unread = nil; lost == nil {
		lost = t.notReturned(c.group != "")
	}
	for _, part := range t.partitions {
		part.forget()
	}
	if was.id != noTopicID {
		t.former = append(t.former, was.id)
	}
	t.consume(now) // what is done of the old one is not marked from here on
	if c.group != "" {
		for _, part := range now.partitions {
			t.at(part.id).remadeAt = time.Now()
		}
	}
	c.mu.Unlock()
	if len(was.partitions) == 0 {
		return // it is there for the first time
	}
	if c.group != "" {
		c.beginAfresh(ctx, topic, now, lost) // before whoever is told ends, and is started again
	}
	if c.group == "" || len(lost) > 0 {
		c.say(errs.New([]error{errs.Consumer}, "kafka: topic %s was deleted and made anew; what was not read of the old one%s is lost; continuing at the beginning",
			topic, fromOffsets(lost, len(was.partitions))))
	} else {
		c.cluster.log.Info("gracedb: kafka: a topic was deleted and made anew, of which this member of the group had nothing to read", "group", c.group, "topic", topic)
	}
}

// beginsAfresh reports, once, whether a partition of a group is read from the beginning
// because its topic was made anew, whatever position is stored.
func (part *partition) beginsAfresh() bool {
	since := part.remadeAt
	part.remadeAt = time.Time{}
	return !since.IsZero() && time.Since(since) < afreshFor
}

// fromOffsets says from where on something is lost.
func fromOffsets(from map[int32]int64, partitions int) string {
	var texts []string
	for _, part := range slices.Sorted(maps.Keys(from)) {
		text := fmt.Sprintf("offset %d", from[part])
		if from[part] < 0 {
			text = "the first message"
		}
		if partitions > 1 {
			text += fmt.Sprintf(" of partition %d", part)
		}
		texts = append(texts, text)
	}
	if texts == nil {
		return ""
	}
	return ", from " + shortList(texts) + ","
}

// beginAfresh stores the beginning of a topic that was made anew as the group's position
// in the partitions that this member had, over what it may have stored there as done of the
// old one.
func (c *Consumer) beginAfresh(ctx context.Context, topic string, now topicState, had map[int32]int64) {
	begin := make(map[string]map[int32]kgo.EpochOffset)
	for part := range had {
		if int(part) < len(now.partitions) {
			set(begin, topic, part, kgo.EpochOffset{Epoch: -1, Offset: 0})
		}
	}
	if len(begin) == 0 {
		return
	}
	// The engine stores what is marked once a second, and when it is made to forget the
	// topic. After this nothing is marked.
	c.handMarks() // if somebody is about to
	c.cluster.client.SetOffsets(begin)
	member, generation := c.cluster.client.GroupMetadata()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := c.commitAs(ctx, member, generation, map[string]topicState{topic: now}, begin); err != nil {
		// Not if the partitions come back to this member, or to one that has seen it, too.
		c.cluster.log.Debug("gracedb: kafka: the beginning of a topic that was made anew could not be stored yet", "group", c.group, "topic", topic, "err", errs.Reason(err))
	}
}

// settleRemade does for topics that were made anew what follow would do in its next round,
// before the group's position is stored for the last time.
func (c *Consumer) settleRemade(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if !c.beginRound(ctx) {
		return
	}
	defer c.endRound()
	c.mu.Lock()
	known := c.positions.states()
	c.mu.Unlock()
	if len(known) == 0 {
		return
	}
	states, err := c.cluster.topics(ctx, slices.Sorted(maps.Keys(known))...)
	if err != nil {
		return
	}
	for topic, was := range known {
		now := states[topic]
		if now.err == nil && now.id != noTopicID && was.id != noTopicID && now.id != was.id && !c.isFormer(topic, now.id) {
			c.remake(ctx, topic, now)
		}
	}
}

func (c *Consumer) isFormer(topic string, id [16]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.positions.topic(topic).isOld(id)
}
