package consume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// This file is about topics that are deleted and made anew under the same name. Brokers tell the
// two apart by topic ids.
//  1. The old topic is deleted, and one of its name is made.
//  2. kgo (v1.22.2) goes on to fetch the old id, which brokers do not know any more.
//  3. followTopics sees the new id, and purges the topic from kgo and adds it again.
//
// Before version 10 of OffsetCommit, which came with Kafka 4.0, offsets are committed by the
// topic's name: what a member commits of the old topic between 1 and 3 counts for the new one.
// So after step 3 a member commits offset 0, and for remadeFor trusts no committed offset.

// noTopicID is the id in the answers of brokers that are older than topic ids.
var noTopicID [16]byte

// remadeFor is how long after this member saw a topic to be made anew another member may still
// commit an offset of the old one. A member that reaches a broker sees it within two rounds of
// followTopics; one that does not is no member any more after sessionTimeout.
const remadeFor = 3 * sessionTimeout

// unreturned returns, by partition, the offset from which on Poll will not return messages of the
// old topic; it may be noOffset. A member of a group drops what is buffered, and counts the
// partitions that it has. A Consumer without a group still returns what is buffered.
func (t *topicPosition) unreturned(ofGroup bool) map[int32]int64 {
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

// isFormer reports whether id is of a topic of this name that was deleted.
func (t *topicPosition) isFormer(id [16]byte) bool { return slices.Contains(t.former, id) }

// adoptRemade makes now the topic that is consumed, from its beginning, tells what of the old one is
// lost, and keeps offsets of the old one from being committed.
func (c *Consumer) adoptRemade(ctx context.Context, topic string, now cluster.Topic) {
	c.mu.Lock()
	t := c.positions.topic(topic)
	was, lost := t.state, t.unread
	if t.unread = nil; lost == nil {
		lost = t.unreturned(c.group != "")
	}
	for _, part := range t.partitions {
		part.forget()
	}
	if was.ID != noTopicID {
		t.former = append(t.former, was.ID)
	}
	t.consume(now) // from here on noteDone ignores messages of the old one
	if c.group != "" {
		for _, part := range now.Partitions {
			t.at(part.ID).remadeAt = time.Now()
		}
	}
	c.mu.Unlock()
	if len(was.Partitions) == 0 {
		return // it is there for the first time
	}
	if c.group != "" {
		c.commitBeginning(ctx, topic, now, lost) // before Poll tells: the caller may end then, and start anew
	}
	if c.group == "" || len(lost) > 0 {
		c.report(errs.New([]error{errs.Consumer}, "kafka: topic %s was deleted and made anew; what was not read of the old one%s is lost; continuing at the beginning",
			topic, fromOffsets(lost, len(was.Partitions))))
	} else {
		c.cluster.Log.Info("gracedb: kafka: a topic was deleted and made anew, of which this member of the group had nothing to read",
			"group", c.group, "topic", topic)
	}
}

// takeRemade reports, once, whether a partition of a group is read from the beginning because its
// topic was made anew, whatever is committed.
func (part *partition) takeRemade() bool {
	since := part.remadeAt
	part.remadeAt = time.Time{}
	return !since.IsZero() && time.Since(since) < remadeFor
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
	return ", from " + cluster.ShortList(texts) + ","
}

// commitBeginning commits offset 0 of a topic that was made anew, in the partitions that this
// member had: over what it may have committed there of the old one.
func (c *Consumer) commitBeginning(ctx context.Context, topic string, now cluster.Topic, had map[int32]int64) {
	begin := make(offsetMap)
	for part := range had {
		if int(part) < len(now.Partitions) {
			set(begin, topic, part, kgo.EpochOffset{Epoch: -1, Offset: 0})
		}
	}
	if len(begin) == 0 {
		return
	}
	// kgo commits its marks every autoCommitEvery, and when the topic is purged. SetOffsets
	// replaces the marks; markInKgo waits for a goroutine that is about to add some.
	c.markInKgo()
	c.cluster.KGO.SetOffsets(begin)
	member, generation := c.cluster.KGO.GroupMetadata()
	ctx, cancel := context.WithTimeout(ctx, cluster.RequestTimeout)
	defer cancel()
	if err := c.commitOffsets(ctx, member, generation, map[string]cluster.Topic{topic: now}, begin); err != nil {
		// No harm is done if the partitions stay with this member, or move to one that has seen that
		// the topic was made anew: it ignores what is committed.
		c.cluster.Log.Debug("gracedb: kafka: the beginning of a topic that was made anew could not be stored yet",
			"group", c.group, "topic", topic, "err", errs.Reason(err))
	}
}

// adoptRemadeBeforeClose does for topics that were made anew what followTopic would do in its next
// round, before Close commits.
func (c *Consumer) adoptRemadeBeforeClose(ctx context.Context) {
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
	states, err := c.cluster.Topics(ctx, slices.Sorted(maps.Keys(known))...)
	if err != nil {
		return
	}
	for topic, was := range known {
		now := states[topic]
		if now.Err == nil && now.ID != noTopicID && was.ID != noTopicID && now.ID != was.ID && !c.isFormer(topic, now.ID) {
			c.adoptRemade(ctx, topic, now)
		}
	}
}

func (c *Consumer) isFormer(topic string, id [16]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.positions.topic(topic).isFormer(id)
}
