package produce

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sender"
)

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
