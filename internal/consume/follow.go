package consume

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// followEvery is how often new partitions are looked for: they are to be read
// within 5 seconds.
const followEvery = 2 * time.Second

// followTopics puts a lazy Consumer into position once brokers can be reached, finds new
// partitions, and notices topics that are deleted and made anew. It is a goroutine of each
// Consumer that ends when the client is closed.
func (c *Consumer) followTopics() {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(c.cluster.KGO.Context(), cluster.ConstructorTimeout)
		c.followOnce(ctx)
		cancel()
		select {
		case <-c.cluster.Life.Closing:
			return
		case <-tick.C:
		}
	}
}

// beginRound takes c.round, and reports whether it got it before the end of ctx. endRound
// gives it back.
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
	now, err := c.cluster.Topics(ctx, slices.Concat(known, wanted)...)
	if err != nil {
		return // the next round asks again; what is wrong with the brokers is known elsewhere
	}
	for _, topic := range known {
		if there := c.isReadable(topic, now[topic]); there {
			c.followTopic(ctx, topic, now[topic])
		}
	}
	for _, topic := range wanted {
		if there := c.isReadable(topic, now[topic]); there {
			c.positionPending(ctx, topic, now[topic])
		}
	}
}

// missingRounds is for how many rounds a topic must be missing to count as deleted: a
// broker that has just started may not know all topics yet.
const missingRounds = 2

// isReadable reports whether a topic is there and may be read. That it is missing for
// missingRounds, or may not be read, Poll tells once. A topic that is missing is purged from kgo,
// which would ask for it without a pause.
func (c *Consumer) isReadable(topic string, now cluster.Topic) bool {
	err := now.Err
	if now.Name == "" {
		err = kerr.UnknownTopicOrPartition
	}
	missing := errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
	if !missing && !errors.Is(err, kerr.TopicAuthorizationFailed) {
		return err == nil || len(now.Partitions) > 0
	}
	c.mu.Lock()
	t := c.positions.topic(topic)
	consumed := t.consumed
	if missing {
		t.missing++
	}
	if missing && t.missing < missingRounds || !t.isNews(missingTopic) {
		c.mu.Unlock()
		return false
	}
	c.mu.Unlock()
	what := "does not exist (any more), or " + c.cluster.Principal() + " may not see it"
	if !missing {
		what = c.cluster.Principal() + " may not read it, or it does not exist"
	} else if consumed {
		c.mu.Lock()
		t.unread = t.unreturned(c.group != "")
		c.mu.Unlock()
		c.cluster.KGO.PurgeTopicsFromConsuming(topic)
	}
	c.report(errs.New([]error{errs.Topic, errs.Consumer, err}, "kafka: topic %q on %s: %s", topic, c.cluster.Brokers[0], what))
	return false
}

// missingTopic is the entry in topicPosition.told of a topic that is missing or may not be read.
const missingTopic = "missing"

// positionPending puts a topic that a lazy Consumer has subscribed into position: at its end, or
// at its beginning if brokers were asked before and it did not exist.
func (c *Consumer) positionPending(ctx context.Context, topic string, now cluster.Topic) {
	c.mu.Lock()
	t := c.positions.topic(topic)
	late := t.missing > 0
	if late {
		t.consume(cluster.Topic{Name: topic})
	}
	c.mu.Unlock()
	if late {
		c.followTopic(ctx, topic, now)
	} else if err := c.position(ctx, []string{topic}); err != nil {
		c.onGroupError(err)
		c.cluster.Log.Debug("gracedb: kafka: not in position yet", "topic", topic, "err", errs.Reason(err))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.positions.pending = slices.DeleteFunc(c.positions.pending, func(t string) bool { return t == topic })
}

// followTopic compares a topic with what was known of it, and has kgo consume
//   - its new partitions from their beginning;
//   - all partitions from their beginning, if the topic was deleted and made anew;
//   - all from where they were left, if the topic was only missing, and purged from kgo.
func (c *Consumer) followTopic(ctx context.Context, topic string, now cluster.Topic) {
	c.mu.Lock()
	t := c.positions.topic(topic)
	was := t.state
	if t.isFormer(now.ID) {
		c.mu.Unlock()
		return // this broker has not heard yet that the topic was made anew
	}
	purged := t.missing >= missingRounds
	t.missing = 0
	delete(t.told, missingTopic)
	c.mu.Unlock()
	another := was.ID != now.ID && was.ID != noTopicID || was.ID == noTopicID && purged
	if another {
		c.mu.Lock()
		c.resumeAll(topic)
		c.mu.Unlock()
		c.adoptRemade(ctx, topic, now)
	}
	c.mu.Lock()
	t.unread = nil
	add := make(map[string]map[int32]kgo.Offset)
	for _, part := range now.Partitions {
		at := kgo.NewOffset().AtStart()
		if old := int(part.ID) < len(was.Partitions); old && !another {
			if !purged {
				continue
			}
			if known := t.at(part.ID); known.next != noOffset {
				at = kgo.NewOffset().At(known.next)
			} else if known.start != nil {
				at = kgoOffset(*known.start)
			}
		}
		set(add, topic, part.ID, at)
	}
	c.cluster.LogLeaders(was, now)
	t.consume(now)
	c.mu.Unlock()
	if another && !purged && len(was.Partitions) > 0 {
		c.cluster.KGO.PurgeTopicsFromConsuming(topic)
		purged = true
	}
	switch {
	case c.group == "" && len(add) > 0:
		c.cluster.KGO.AddConsumePartitions(add)
	case c.group != "" && (purged || len(was.Partitions) == 0):
		c.cluster.KGO.AddConsumeTopics(topic) // kgo finds the partitions of a group itself
	}
}
