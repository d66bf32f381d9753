package gracedb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is what a Producer does besides producing: it gets ready, stays ready,
// and tells whether it is.

// keepWarmEvery is how often the connections that messages use are used. It also
// renews sessions before they expire, and finds flows that a firewall forgot.
const keepWarmEvery = 20 * time.Second

// start connects, authenticates, checks the topics and warms up.
func (p *Producer) start(ctx context.Context) error {
	if err := p.checkToken(ctx); err != nil {
		return err
	}
	err := p.await(ctx, starting, "connecting", func(ctx context.Context) error {
		if err := p.find(ctx); err != nil {
			return err
		}
		return p.warm(ctx)
	})
	if err == nil {
		p.logLeaders(topicState{}, (*p.known.Load())[p.topic])
	}
	return err
}

// find looks for the default topic, or for any of the instance.
func (p *Producer) find(ctx context.Context) error {
	if p.topic != "" {
		p.forget(p.topic)
		return p.learnTopic(ctx, p.topic)
	}
	all, err := p.topics(ctx)
	if err != nil {
		return err
	}
	for name := range all {
		if strings.HasPrefix(name, p.instance+".") {
			return nil
		}
	}
	return fail([]error{ErrTopic}, "kafka: %s: %s", strings.Join(p.brokers, ", "), topicsAtHand(all, p.instance))
}

// warm takes what the engine would do at the first message off that message: the
// topic's partitions, the producer id, and the connection to each leader.
func (p *Producer) warm(ctx context.Context) error {
	var id error
	var wg sync.WaitGroup
	wg.Go(func() { _, _, id = p.client.ProducerID(ctx) })
	if p.topic != "" {
		wg.Go(func() { p.load(ctx, p.topic) })
	}
	err := p.openLeaders(ctx)
	wg.Wait()
	if errors.Is(id, kerr.ClusterAuthorizationFailed) {
		// A producer id is for whoever may write to any topic (KIP-679).
		id = fail([]error{ErrTopic, id}, "kafka: topic %q on %s: %s may not write to it, nor to any other topic",
			p.topic, p.brokers[0], p.principal())
	}
	return errors.Join(err, id)
}

// openLeaders opens the connections that messages use; without a topic in use, those
// to all brokers. A leader that cannot be reached may be none any more: then the
// engine, which the first message would have to tell it, is to look.
func (p *Producer) openLeaders(ctx context.Context) error {
	leaders := p.leaders()
	err := p.client.EnsureProduceConnectionIsOpen(ctx, slices.Clone(leaders)...)
	if err == nil {
		err = p.pingLeaders(ctx, leaders)
	}
	if err != nil {
		p.client.ForceMetadataRefresh()
	}
	return err
}

// load makes the engine ask for a topic's partitions, which it otherwise does at the
// first message, by a record that it cannot place and so never sends.
func (p *Producer) load(ctx context.Context, topic string) {
	done := make(chan struct{})
	p.client.Produce(ctx, &kgo.Record{Topic: topic, Context: unplaceable}, func(*kgo.Record, error) { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// leaders returns the brokers that lead a partition of a topic in use.
func (p *Producer) leaders() []int32 {
	var ids []int32
	for topic, state := range *p.known.Load() {
		for _, part := range state.partitions {
			id := part.leader
			if now, epoch, err := p.client.PartitionLeader(topic, part.id); err == nil && now >= 0 && epoch >= part.epoch {
				id = now
			}
			if id >= 0 && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// pingLeaders makes a round trip on the connection to each leader that messages
// use, by a produce request without messages. Brokers answer it, and write nothing.
func (p *Producer) pingLeaders(ctx context.Context, leaders []int32) error {
	errs := make([]error, len(leaders))
	var wg sync.WaitGroup
	for i, id := range leaders {
		wg.Go(func() {
			req := kmsg.NewPtrProduceRequest()
			req.Acks = -1
			start := time.Now()
			if _, errs[i] = p.client.Broker(int(id)).Request(ctx, req); errs[i] == nil {
				p.codec.measured(time.Since(start))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// keepWarm makes the event after a quiet hour as fast as the one before, and learns
// the topics that are used.
func (p *Producer) keepWarm() {
	tick := time.NewTicker(keepWarmEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.closed:
			return
		case topic := <-p.unseen:
			p.learnUsed(topic)
			continue
		case <-tick.C:
		}
		if _, _, cause := p.watch.status(); cause != nil {
			continue // the prober is at work
		}
		leaders := p.leaders()
		if len(leaders) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(p.client.Context(), keepWarmEvery/2)
		_ = p.pingLeaders(ctx, leaders) // a dead connection is closed by this, which is all that is wanted
		cancel()
	}
}

// learnUsed learns a topic that messages are sent to. If that fails the next message
// tries again, but not at once.
func (p *Producer) learnUsed(topic string) {
	ctx, cancel := context.WithTimeout(p.client.Context(), requestTimeout)
	defer cancel()
	if p.learnTopic(ctx, topic) == nil {
		p.logLeaders(topicState{}, (*p.known.Load())[topic])
		return
	}
	select {
	case <-p.closed:
	case <-time.After(time.Second):
	}
}

// learnTopic finds out the state of a topic, and keeps it; the error is ErrTopic if
// there is none, or none that may be used.
func (p *Producer) learnTopic(ctx context.Context, topic string) error {
	if p.knows(topic) {
		return nil
	}
	var limit int64
	var wg sync.WaitGroup
	wg.Go(func() { limit = p.topicLimit(ctx, topic) })
	states, err := p.findTopics(ctx, topic)
	wg.Wait()
	if err != nil {
		return err
	}
	p.lines.get(topic).learn(limit)
	state := states[topic]
	state.limit = limit
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	known := maps.Clone(*p.known.Load())
	known[topic] = state
	p.known.Store(&known)
	if _, used := p.ids[topic]; !used {
		p.ids[topic] = state.id
	}
	least := state.limit
	for _, s := range known {
		least = min(least, s.limit)
	}
	if limit == unknownLimit { // a refusal may have told more
		least = min(least, p.codec.limit.Load())
	}
	p.codec.learn(least)
	return nil
}

func (p *Producer) knows(topic string) bool {
	_, ok := (*p.known.Load())[topic]
	return ok
}

// use makes keepWarm learn a topic at its first use, which does not wait for that.
func (p *Producer) use(topic string) {
	if !p.knows(topic) {
		select {
		case p.unseen <- topic:
		default: // its next use tries again
		}
	}
}

// renew makes the engine use the topic that has replaced another of its name, which
// it does not by itself.
func (p *Producer) renew(topic string) {
	ctx, cancel := context.WithTimeout(p.client.Context(), requestTimeout)
	defer cancel()
	states, err := p.topics(ctx, topic)
	if err != nil || states[topic].err != nil {
		return // the next message that fails tries again
	}
	id := states[topic].id
	p.knownMu.Lock()
	renewed := p.ids[topic] == id
	p.ids[topic] = id
	p.knownMu.Unlock()
	if !renewed { // by another message: the engine would drop what is on its way
		p.restart(topic)
	}
}

// restart makes the engine give back all that it has of a topic, and begin anew with it.
func (p *Producer) restart(topic string) {
	p.refuse(topic)
	isTopic := func(key string) bool { return p.mayBe(topic, key) }
	p.answers.drop(isTopic, func() { p.client.PurgeTopicsFromProducing(topic) })
}

// unstick restarts a topic of which the engine sends nothing that brokers take.
func (p *Producer) unstick(topicKey string) {
	if p.isClosed() {
		return
	}
	p.lines.mu.RLock()
	topics := slices.Collect(maps.Keys(p.lines.of))
	p.lines.mu.RUnlock()
	for _, topic := range topics {
		if p.mayBe(topic, topicKey) {
			p.log.Warn("gracedb: kafka: the engine is stuck, and is started anew", "topic", topic)
			p.restart(topic)
		}
	}
}

// mayBe reports whether topic is what a request calls key, its name or its id.
func (p *Producer) mayBe(topic, key string) bool {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	id, known := p.ids[topic]
	return topic == key || !known || string(id[:]) == key
}

// forget makes the next use of topic look whether it exists.
func (p *Producer) forget(topic string) {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	known := maps.Clone(*p.known.Load())
	delete(known, topic)
	p.known.Store(&known)
}

// topicLimit returns the largest batch that brokers take for topic. Not every
// principal may ask: then it is unknownLimit.
func (p *Producer) topicLimit(ctx context.Context, topic string) int64 {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	r.ConfigNames = []string{"max.message.bytes"}
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, p.client)
	if err != nil {
		return unknownLimit
	}
	for _, r := range resp.Resources {
		for _, c := range r.Configs {
			if c.Name == "max.message.bytes" && c.Value != nil {
				if n, err := strconv.ParseInt(*c.Value, 10, 64); err == nil && n > 0 {
					return n
				}
			}
		}
	}
	return unknownLimit
}

// ready reports what would keep an encoded message of size bytes from being
// published to topic (a full name) now, without sending any: closed, refused past
// the grace, too large, topic missing or not allowed.
func (p *Producer) ready(ctx context.Context, topic string, size int) error {
	if p.isClosed() || p.queue.isClosed() {
		return p.errClosed()
	}
	if err := p.checkTopicName(topic); err != nil {
		return err
	}
	if size > p.maxMessage {
		return p.tooLarge(topic, size, fmt.Sprintf("MaxMessageBytes is %d", p.maxMessage), nil)
	}
	if err := p.refused(); err != nil {
		return fail([]error{err, ErrDelivery}, "%s", reason(err))
	}
	if p.knows(topic) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.flushTimeout)
	defer cancel()
	return p.await(ctx, running, "looking for topic "+topic, func(ctx context.Context) error {
		err := p.learnTopic(ctx, topic)
		if err == nil {
			p.load(ctx, topic)
		}
		return err
	})
}

// Check makes a round trip to the broker on the connection that messages use, and
// reports what would stop one now: no answer, a refused token, the default topic
// missing, not allowed, or with a partition that no broker leads. It writes nothing.
// It waits until ctx ends.
func (p *Producer) Check(ctx context.Context) error {
	if err := p.made(); err != nil {
		return err
	}
	if p.isClosed() || p.queue.isClosed() {
		return p.errClosed()
	}
	return p.await(ctx, starting, "checking", func(ctx context.Context) error {
		if p.topic != "" {
			if err := p.find(ctx); err != nil {
				return err
			}
		}
		var err error
		if len(p.leaders()) > 0 {
			err = p.openLeaders(ctx)
		} else {
			req := kmsg.NewPtrProduceRequest()
			req.Acks = -1
			_, err = p.client.Request(ctx, req)
		}
		if err == nil && p.topic != "" {
			err = checkLeaders(*p.known.Load(), p.topic)
		}
		return err
	})
}

// Ping publishes a small test message to topic, or to the default topic, or to
// "test", and returns it as delivered. Consumers ignore pings. It waits for at most
// FlushTimeout.
func (p *Producer) Ping(ctx context.Context, topic string) (Message, error) {
	if err := p.made(); err != nil {
		return Message{}, err
	}
	if topic == "" && p.topic == "" {
		topic = "test"
	}
	claims := p.watch.identity()
	value := encodePing(time.Now(), claims.Subject, claims.Scope)
	return p.publish(ctx, Message{Topic: topic, Value: value}, false)
}
