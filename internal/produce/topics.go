package produce

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sender"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

// A topic is what brokers have said of one.
type topic struct {
	cluster.Topic
	limit sizeLimit
}

// find looks for the default topic, or for any of the instance, which it then returns.
func (p *Producer) find(ctx context.Context) ([]cluster.Topic, error) {
	if p.topic != "" {
		return nil, p.learnDefault(ctx)
	}
	all, err := p.cluster.Topics(ctx)
	if err != nil {
		return nil, err
	}
	for name := range all {
		if strings.HasPrefix(name, p.cluster.Instance+".") {
			return p.ofInstance(all), nil
		}
	}
	return nil, errs.New([]error{errs.Topic}, "kafka: %s: %s", strings.Join(p.cluster.Brokers, ", "), cluster.TopicsAtHand(all, p.cluster.Instance))
}

// learnDefault looks for the default topic, whatever is known of it.
func (p *Producer) learnDefault(ctx context.Context) error {
	p.forget(p.topic)
	return p.learnTopic(ctx, p.topic)
}

// learnInstance learns all topics of the instance, up to maxLearned: what is used later
// need not wait for brokers to describe it.
func (p *Producer) learnInstance(ctx context.Context) error {
	all, err := p.cluster.Topics(ctx)
	if err != nil {
		return err
	}
	p.learnAll(ctx, p.ofInstance(all))
	return nil
}

// maxLearned is by far more topics than an instance has: something is kept of each.
const maxLearned = 200

// ofInstance returns those of the instance that messages can be sent to, up to maxLearned.
func (p *Producer) ofInstance(all map[string]cluster.Topic) []cluster.Topic {
	var topics []cluster.Topic
	for name, s := range all {
		if strings.HasPrefix(name, p.cluster.Instance+".") && s.IsUsable() {
			topics = append(topics, s)
		}
	}
	slices.SortFunc(topics, func(a, b cluster.Topic) int { return cmp.Compare(a.Name, b.Name) })
	return topics[:min(len(topics), maxLearned)]
}

// learnAll takes these topics over, with how large their batches may be, which it asks for.
func (p *Producer) learnAll(ctx context.Context, topics []cluster.Topic) {
	names := make([]string, len(topics))
	for i, s := range topics {
		names[i] = s.Name
	}
	limits := p.topicLimits(ctx, names...)
	for _, s := range topics {
		limit, told := limits[s.Name]
		if was := p.state(s.Name); !told && was.ID == s.ID {
			limit = was.limit
		}
		p.learn(topic{s, limit})
	}
}

// learn takes over what brokers say of a topic, for the sender, too.
func (p *Producer) learn(s topic) {
	p.keep(s)
	if len(s.Partitions) > 0 {
		p.sender.Learn(s.Name, forSender(s))
	}
}

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
			p.learn(topic{s, was.limit})
		}
	}
	return err
}

// learnTopic finds out the state of a topic, and keeps it; the error is ErrTopic if
// there is none, or none that may be used.
func (p *Producer) learnTopic(ctx context.Context, name string) error {
	if p.knowsWritable(name) {
		return nil
	}
	s, err := p.ask(ctx, name, true)
	if err == nil {
		err = p.cluster.TopicTrouble(ctx, name, kmsg.ACLOperationWrite, s.Topic)
	}
	if err != nil {
		return err
	}
	p.learn(s)
	return nil
}

// describe is the sender's way to ask about a topic.
func (p *Producer) describe(ctx context.Context, name string) (sender.State, error) {
	s, err := p.ask(ctx, name, false)
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
func (p *Producer) ask(ctx context.Context, name string, isThere bool) (topic, error) {
	was, known := p.state(name), p.knows(name)
	var limit sizeLimit
	var wg sync.WaitGroup
	if !known && isThere {
		wg.Go(func() { limit = p.topicLimits(ctx, name)[name] })
	}
	states, err := p.cluster.Topics(ctx, name)
	wg.Wait()
	if err != nil {
		return topic{}, err
	}
	s, ok := states[name]
	switch {
	case !ok:
		s = cluster.Topic{Name: name, Err: kerr.UnknownTopicOrPartition}
	case known && s.ID == was.ID:
		limit = was.limit
	case s.IsUsable() && (known || !isThere): // it is another, or was not taken to be there
		limit = p.topicLimits(ctx, name)[name]
	}
	return topic{s, limit}, nil
}

// forSender returns what of s the sender wants to know.
func forSender(s topic) sender.State {
	state := sender.State{ID: s.ID, Limit: s.limit.bytes}
	for _, part := range s.Partitions {
		state.Partitions = append(state.Partitions, sender.Leader{Broker: part.Leader, Epoch: part.Epoch})
	}
	return state
}

// keep remembers what brokers have said of a topic, and logs which leaders have gone and
// come.
func (p *Producer) keep(s topic) {
	p.knownMu.Lock()
	was := p.known[s.Name]
	p.known[s.Name] = s
	p.knownMu.Unlock()
	p.cluster.LogLeaders(was.Topic, s.Topic)
}

// fullName is topicname.Full, without a string of its own if the topic is known.
func (p *Producer) fullName(name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	var room [topicname.MaxLen]byte
	full := append(append(append(room[:0], p.cluster.Instance...), '.'), name...)
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	if s, ok := p.known[string(full)]; ok {
		return s.Name
	}
	return string(full)
}

// state returns what brokers have said last of a topic.
func (p *Producer) state(name string) topic {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	return p.known[name]
}

func (p *Producer) knows(name string) bool {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	_, ok := p.known[name]
	return ok
}

// knowsWritable reports whether a topic is in use, and no broker has said last that this client
// may not write to it: a right may be given at any time.
func (p *Producer) knowsWritable(name string) bool {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	s, ok := p.known[name]
	return ok && !s.Forbids(kmsg.ACLOperationWrite)
}

// forget makes the next use of a topic look whether it exists.
func (p *Producer) forget(name string) {
	p.knownMu.Lock()
	defer p.knownMu.Unlock()
	delete(p.known, name)
}
