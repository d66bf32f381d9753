package produce

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

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sender"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// This file is what a Producer does besides producing: it gets ready, stays ready,
// and tells whether it is.

// keepWarmEvery is how often the connections that messages use are used. It also
// renews sessions before they expire, and finds flows that a firewall forgot.
const keepWarmEvery = 20 * time.Second

// start connects, authenticates, checks the topics and warms up.
func (p *Producer) start(ctx context.Context) error {
	if err := p.cluster.CheckToken(ctx); err != nil {
		return err
	}
	return p.cluster.Await(ctx, cluster.Starting, "connecting", func(ctx context.Context) error {
		if err := p.find(ctx); err != nil {
			return err
		}
		return p.warm(ctx)
	})
}

// find looks for the default topic, or for any of the instance.
func (p *Producer) find(ctx context.Context) error {
	if p.topic != "" {
		p.forget(p.topic)
		return p.learnTopic(ctx, p.topic)
	}
	all, err := p.cluster.Topics(ctx)
	if err != nil {
		return err
	}
	for name := range all {
		if strings.HasPrefix(name, p.cluster.Instance+".") {
			return nil
		}
	}
	return errs.New([]error{errs.Topic}, "kafka: %s: %s", strings.Join(p.cluster.Brokers, ", "), cluster.TopicsAtHand(all, p.cluster.Instance))
}

// warm takes off the first message what it would have to wait for: the producer id, and the
// connection to each leader.
func (p *Producer) warm(ctx context.Context) error {
	var id error
	var wg sync.WaitGroup
	wg.Go(func() { id = p.sender.ProducerID(ctx) })
	err := p.openLeaders(ctx)
	wg.Wait()
	if errors.Is(id, kerr.ClusterAuthorizationFailed) {
		// A Producer id is for whoever may write to any topic (KIP-679).
		id = errs.New([]error{errs.Topic, id}, "kafka: topic %q on %s: %s may not write to it, nor to any other topic",
			p.topic, p.cluster.Brokers[0], p.cluster.Principal())
	}
	return errors.Join(err, id)
}

// openLeaders opens the connections that messages use; without a topic in use, those
// to all brokers.
func (p *Producer) openLeaders(ctx context.Context) error {
	leaders := p.sender.Leaders()
	for _, id := range leaders {
		if p.cluster.Health.Outlasts(ctx, id) {
			return p.cluster.ThrottleError("a round trip")
		}
	}
	if err := p.cluster.KGO.EnsureProduceConnectionIsOpen(ctx, slices.Clone(leaders)...); err != nil {
		return err
	}
	err := p.pingLeaders(ctx, leaders)
	if err == nil && p.compressor.far() {
		// A broker that is cold, or busy with logins, looks like one that is far away.
		err = p.pingLeaders(ctx, leaders)
	}
	return err
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
			if _, errs[i] = p.cluster.KGO.Broker(int(id)).Request(ctx, req); errs[i] == nil {
				p.compressor.observeRTT(time.Since(start))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// keepWarm makes the event after a quiet hour as fast as the one before, whichever topic of
// the instance it goes to, and learns what has changed about these, such as new partitions.
func (p *Producer) keepWarm() {
	tick := time.NewTicker(keepWarmEvery)
	defer tick.Stop()
	for all := false; ; {
		select {
		case <-p.cluster.Life.Closing:
			return
		case <-tick.C:
		}
		if p.cluster.Auth.Failure() != nil {
			continue // link.probe is at work
		}
		if p.cluster.Health.IsThrottled() {
			continue // kgo holds up messages for a request that waits for another connection's throttle
		}
		// A dead connection is closed by this, which is all that is wanted.
		ctx, cancel := context.WithTimeout(p.cluster.KGO.Context(), keepWarmEvery/2)
		if all {
			_ = p.refresh(ctx)
		} else {
			all = p.learnInstance(ctx) == nil
		}
		if leaders := p.sender.Leaders(); len(leaders) > 0 {
			_ = p.pingLeaders(ctx, leaders)
		}
		cancel()
	}
}

// learnInstance learns all topics of the instance, up to maxLearned: what is used later
// need not wait for brokers to describe it.
func (p *Producer) learnInstance(ctx context.Context) error {
	states, err := p.cluster.Topics(ctx)
	if err != nil {
		return err
	}
	var names []string
	for name, s := range states {
		if strings.HasPrefix(name, p.cluster.Instance+".") && s.IsUsable() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = names[:min(len(names), maxLearned)]
	limits := p.topicLimits(ctx, names...)
	for _, name := range names {
		s := states[name]
		s.Limit = limits[name]
		p.keep(s)
		p.sender.Learn(name, forSender(s))
	}
	return nil
}

// maxLearned is by far more topics than an instance has: something is kept of each.
const maxLearned = 200

// refresh asks brokers about all topics in use.
func (p *Producer) refresh(ctx context.Context) error {
	p.knownMu.Lock()
	names := slices.Sorted(maps.Keys(p.known))
	p.knownMu.Unlock()
	if len(names) == 0 {
		_, err := p.cluster.Metadata(ctx, []kmsg.MetadataRequestTopic{}) // keeps the connection
		return err
	}
	states, err := p.cluster.Topics(ctx, names...)
	for _, s := range states {
		if was := p.state(s.Name); was.ID == s.ID && s.IsUsable() {
			s.Limit = was.Limit
			p.keep(s)
			p.sender.Learn(s.Name, forSender(s))
		}
	}
	return err
}

// learnTopic finds out the state of a topic, and keeps it; the error is ErrTopic if
// there is none, or none that may be used.
func (p *Producer) learnTopic(ctx context.Context, topic string) error {
	if p.knows(topic) {
		return nil
	}
	s, err := p.ask(ctx, topic, true)
	if err == nil {
		err = p.cluster.TopicTrouble(ctx, topic, s)
	}
	if err != nil {
		return err
	}
	p.keep(s)
	if len(s.Partitions) > 0 {
		p.sender.Learn(topic, forSender(s))
	}
	return nil
}

// describe is the sender's way to ask about a topic.
func (p *Producer) describe(ctx context.Context, topic string) (sender.State, error) {
	s, err := p.ask(ctx, topic, false)
	switch {
	case err != nil:
		return sender.State{}, err
	case s.IsUsable():
		p.keep(s)
		return forSender(s), nil
	case s.Err == nil:
		return sender.State{}, kerr.LeaderNotAvailable
	}
	return sender.State{}, s.Err
}

// ask asks brokers about a topic, and, if that is not known of it, how large its batches
// may be: at the same time if it is taken to be there.
func (p *Producer) ask(ctx context.Context, topic string, isThere bool) (cluster.Topic, error) {
	was, known := p.state(topic), p.knows(topic)
	var limit int64
	var wg sync.WaitGroup
	if !known && isThere {
		wg.Go(func() { limit = p.topicLimits(ctx, topic)[topic] })
	}
	states, err := p.cluster.Topics(ctx, topic)
	wg.Wait()
	if err != nil {
		return cluster.Topic{}, err
	}
	s, ok := states[topic]
	switch {
	case !ok:
		s = cluster.Topic{Name: topic, Err: kerr.UnknownTopicOrPartition}
	case known && s.ID == was.ID:
		limit = was.Limit
	case s.IsUsable() && (known || !isThere): // it is another, or was not taken to be there
		limit = p.topicLimits(ctx, topic)[topic]
	}
	s.Limit = limit
	return s, nil
}

// forSender returns what of s the sender wants to know.
func forSender(s cluster.Topic) sender.State {
	state := sender.State{ID: s.ID, Limit: s.Limit}
	for _, part := range s.Partitions {
		state.Partitions = append(state.Partitions, sender.Leader{Broker: part.Leader, Epoch: part.Epoch})
	}
	return state
}

// keep remembers what brokers have said of a topic, and logs which leaders have gone and
// come.
func (p *Producer) keep(s cluster.Topic) {
	p.knownMu.Lock()
	was := p.known[s.Name]
	p.known[s.Name] = s
	p.knownMu.Unlock()
	p.cluster.LogLeaders(was, s)
}

// state returns what brokers have said last of a topic.
func (p *Producer) state(topic string) cluster.Topic {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	return p.known[topic]
}

func (p *Producer) knows(topic string) bool {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	_, ok := p.known[topic]
	return ok
}

// forget makes the next use of topic look whether it exists.
func (p *Producer) forget(topic string) {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	delete(p.known, topic)
}

// topicLimits returns the largest batch that brokers take for each of these topics. Not
// every principal may ask: then it is 0.
func (p *Producer) topicLimits(ctx context.Context, topics ...string) map[string]int64 {
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, topic := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
		r.ConfigNames = []string{"max.message.bytes"}
		req.Resources = append(req.Resources, r)
	}
	limits := make(map[string]int64, len(topics))
	if len(topics) == 0 {
		return limits
	}
	resp, err := req.RequestWith(ctx, p.cluster.KGO)
	if err != nil {
		return limits
	}
	for _, r := range resp.Resources {
		for _, c := range r.Configs {
			if c.Name == "max.message.bytes" && c.Value != nil {
				if n, err := strconv.ParseInt(*c.Value, 10, 64); err == nil && n > 0 {
					limits[r.ResourceName] = n
				}
			}
		}
	}
	return limits
}

// Ready reports what would keep an encoded message of size bytes from being
// published to topic (a full name) now, without sending any: closed, refused past
// the grace, too large, topic missing or not allowed.
func (p *Producer) Ready(ctx context.Context, topic string, size int) error {
	if p.cluster.Life.IsClosing() || p.queue.isClosed() {
		return p.cluster.ErrClosed()
	}
	if err := p.checkTopicName(topic); err != nil {
		return err
	}
	if size > p.maxMessage {
		return p.tooLarge(topic, size, fmt.Sprintf("MaxMessageBytes is %d", p.maxMessage), nil)
	}
	if err := p.refused(); err != nil {
		return errs.New([]error{err, errs.Delivery}, "%s", errs.Reason(err))
	}
	if p.knows(topic) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.flushTimeout)
	defer cancel()
	return p.cluster.Await(ctx, cluster.Running, "looking for topic "+topic, func(ctx context.Context) error {
		return p.learnTopic(ctx, topic)
	})
}

// Check makes a round trip to the broker, and reports what would stop a message now.
func (p *Producer) Check(ctx context.Context) error {
	if p.cluster.Life.IsClosing() || p.queue.isClosed() {
		return p.cluster.ErrClosed()
	}
	return p.cluster.Await(ctx, cluster.Starting, "checking", func(ctx context.Context) error {
		if p.topic != "" {
			if err := p.find(ctx); err != nil {
				return err
			}
		}
		// Who leads the other topics may have gone, and not be known to anybody any more.
		err := p.refresh(ctx)
		switch {
		case err != nil:
		case len(p.sender.Leaders()) > 0:
			err = p.openLeaders(ctx)
		default:
			req := kmsg.NewPtrProduceRequest()
			req.Acks = -1
			_, err = p.cluster.KGO.Request(ctx, req)
		}
		if err == nil && p.topic != "" {
			err = cluster.CheckLeaders(map[string]cluster.Topic{p.topic: p.state(p.topic)}, p.topic)
		}
		return err
	})
}

// Ping publishes a small test message to topic, or to the default topic, or to "test".
func (p *Producer) Ping(ctx context.Context, topic string) (kgo.Record, error) {
	if topic == "" && p.topic == "" {
		topic = "test"
	}
	claims := p.cluster.Auth.Identity()
	return p.Publish(ctx, kgo.Record{
		Topic: topic, Key: []byte("ping/" + claims.Subject), Value: wire.Ping(time.Now(), claims.Subject, claims.Scope),
	}, false)
}
