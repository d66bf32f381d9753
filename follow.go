package gracedb

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// followEvery is how often new partitions are looked for: they are to be read
// within 5 seconds.
const followEvery = 2 * time.Second

// followTopics puts a lazy Consumer into position once that is possible, finds new
// partitions, and notices topics that go and come.
func (c *Consumer) followTopics() {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(c.cluster.client.Context(), constructorTimeout)
		c.followOnce(ctx)
		cancel()
		select {
		case <-c.cluster.closed:
			return
		case <-tick.C:
		}
	}
}

// beginRound waits until nobody else looks at the topics, and reports whether that was
// before the end of ctx; then endRound ends it.
func (c *Consumer) beginRound(ctx context.Context) bool {
	select {
	case c.round <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Consumer) endRound() { <-c.round }

func (c *Consumer) followOnce(ctx context.Context) {
	if !c.beginRound(ctx) {
		return
	}
	defer c.endRound()
	c.mu.Lock()
	known := c.positions.consumed()
	wanted := slices.Clone(c.positions.pending)
	c.mu.Unlock()
	if len(known)+len(wanted) == 0 {
		return
	}
	now, err := c.cluster.topics(ctx, slices.Concat(known, wanted)...)
	if err != nil {
		return // the watch knows, and the next round asks again
	}
	for _, topic := range known {
		if there := c.lookAt(topic, now[topic]); there {
			c.follow(ctx, topic, now[topic])
		}
	}
	for _, topic := range wanted {
		if there := c.lookAt(topic, now[topic]); there {
			c.placeWanted(ctx, topic, now[topic])
		}
	}
}

// goneAfter is how many rounds a topic must be missing for to be taken for gone: a
// broker that has just started may not know all topics yet.
const goneAfter = 2

// lookAt reports whether a topic is there and may be read. That it is not is said
// once, and the engine, which would ask for it as fast as it can, forgets it.
func (c *Consumer) lookAt(topic string, now topicState) bool {
	err := now.err
	if now.name == "" {
		err = kerr.UnknownTopicOrPartition
	}
	missing := errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
	if !missing && !errors.Is(err, kerr.TopicAuthorizationFailed) {
		return err == nil || len(now.partitions) > 0
	}
	c.mu.Lock()
	t := c.positions.topic(topic)
	consumed := t.consumed
	if missing {
		t.missing++
	}
	if missing && t.missing < goneAfter || !t.isNews(missingTopic) {
		c.mu.Unlock()
		return false
	}
	c.mu.Unlock()
	what := "does not exist (any more), or " + c.cluster.principal() + " may not see it"
	if !missing {
		what = c.cluster.principal() + " may not read it, or it does not exist"
	} else if consumed {
		c.mu.Lock()
		t.unread = t.notReturned(c.group != "")
		c.mu.Unlock()
		c.cluster.client.PurgeTopicsFromConsuming(topic)
	}
	c.say(errs.New([]error{errs.Topic, errs.Consumer, err}, "kafka: topic %q on %s: %s", topic, c.cluster.brokers[0], what))
	return false
}

// missingTopic is what isNews remembers of a topic that brokers do not show.
const missingTopic = "missing"

// placeWanted puts a lazy Consumer's topic into position: at the end as it is now
// or, if it has been seen not to exist, at its beginning.
func (c *Consumer) placeWanted(ctx context.Context, topic string, now topicState) {
	c.mu.Lock()
	t := c.positions.topic(topic)
	late := t.missing > 0
	if late {
		t.consume(topicState{name: topic})
	}
	c.mu.Unlock()
	if late {
		c.follow(ctx, topic, now)
	} else if err := c.position(ctx, []string{topic}); err != nil {
		c.groupFails(err)
		c.cluster.log.Debug("gracedb: kafka: not in position yet", "topic", topic, "err", errs.Reason(err))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.positions.pending = slices.DeleteFunc(c.positions.pending, func(t string) bool { return t == topic })
}

// follow compares a topic that is there with what was known of it: its new
// partitions are read from their beginning, and so are all of one that was made
// anew. One that was only out of sight is resumed where it was left.
func (c *Consumer) follow(ctx context.Context, topic string, now topicState) {
	c.mu.Lock()
	t := c.positions.topic(topic)
	was := t.state
	if t.isOld(now.id) {
		c.mu.Unlock()
		return // a broker that has not heard of the new one
	}
	purged := t.missing >= goneAfter
	t.missing = 0
	delete(t.told, missingTopic)
	c.mu.Unlock()
	another := was.id != now.id && was.id != noTopicID || was.id == noTopicID && purged
	if another {
		c.mu.Lock()
		c.letAllGo(topic)
		c.mu.Unlock()
		c.remake(ctx, topic, now)
	}
	c.mu.Lock()
	t.unread = nil
	add := make(map[string]map[int32]kgo.Offset)
	for _, part := range now.partitions {
		at := kgo.NewOffset().AtStart()
		if old := int(part.id) < len(was.partitions); old && !another {
			if !purged {
				continue
			}
			if known := t.at(part.id); known.next != noOffset {
				at = kgo.NewOffset().At(known.next)
			} else if known.start != nil {
				at = startingAt(*known.start)
			}
		}
		set(add, topic, part.id, at)
	}
	c.cluster.logLeaders(was, now)
	t.consume(now)
	c.mu.Unlock()
	if another && !purged && len(was.partitions) > 0 {
		c.cluster.client.PurgeTopicsFromConsuming(topic)
		purged = true
	}
	switch {
	case c.group == "" && len(add) > 0:
		c.cluster.client.AddConsumePartitions(add)
	case c.group != "" && (purged || len(was.partitions) == 0):
		c.cluster.client.AddConsumeTopics(topic) // the engine follows the partitions of a group
	}
}
