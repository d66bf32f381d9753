package gracedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

// This file is what brokers say of topics.

// A partitionAt is one partition and the broker that leads it.
type partitionAt struct {
	id, leader, epoch int32
}

// A topicState is what brokers say of a topic.
type topicState struct {
	name       string
	id         [16]byte
	err        error
	partitions []partitionAt // 0, 1, 2 …
	limit      int64         // of a batch's bytes; a Producer's only
}

// topics asks for the state of the named topics, or of all if none is named.
func (l *link) topics(ctx context.Context, names ...string) (map[string]topicState, error) {
	var list []kmsg.MetadataRequestTopic
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		list = append(list, t)
	}
	return l.metadata(ctx, list)
}

// metadata asks for the state of topics: of none if the list is empty, of all if it is nil.
func (l *link) metadata(ctx context.Context, topics []kmsg.MetadataRequestTopic) (map[string]topicState, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = topics
	resp, err := req.RequestWith(ctx, l.client)
	if err != nil {
		return nil, err
	}
	states := make(map[string]topicState, len(resp.Topics))
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		s := topicState{name: *t.Topic, id: t.TopicID, err: kerr.ErrorForCode(t.ErrorCode)}
		for _, p := range t.Partitions {
			s.partitions = append(s.partitions, partitionAt{p.Partition, p.Leader, p.LeaderEpoch})
		}
		slices.SortFunc(s.partitions, func(a, b partitionAt) int { return cmp.Compare(a.id, b.id) })
		if err := checkPartitions(s.partitions); err != nil {
			s.partitions, s.err = nil, err
		}
		states[s.name] = s
	}
	return states, nil
}

// maxPartitions is by far more than a topic has. Of each, kgo makes some 500 bytes, and it takes
// some microseconds.
const maxPartitions = 20_000

// checkPartitions returns why these, in the order of their numbers, cannot be those of a
// topic. Something is kept of each, and for ever of those that never were.
func checkPartitions(parts []partitionAt) error {
	if len(parts) > maxPartitions {
		return fmt.Errorf("a broker says that it has %d partitions; at most %d are read", len(parts), maxPartitions)
	}
	for i, part := range parts {
		if int(part.id) != i {
			return fmt.Errorf("a broker says that it has %d partitions, and does not name number %d", len(parts), i)
		}
	}
	return nil
}

// findTopics returns the state of the named topics; the error is ErrTopic if one
// is missing or not allowed. It is one request when all is well.
func (l *link) findTopics(ctx context.Context, names ...string) (map[string]topicState, error) {
	states, err := l.topics(ctx, names...)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, ok := states[name]
		if !ok {
			s.err = kerr.UnknownTopicOrPartition
		}
		if err := l.topicTrouble(ctx, name, s); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// topicTrouble returns an error if a topic is missing or not allowed.
func (l *link) topicTrouble(ctx context.Context, name string, s topicState) error {
	if s.err == nil || kerr.IsRetriable(s.err) && len(s.partitions) > 0 {
		return nil
	}
	if errors.Is(s.err, kerr.LeaderNotAvailable) {
		return nil // being made, or electing: it exists
	}
	return l.topicError(ctx, name, s.err)
}

// topicError says what is wrong with a topic and which others there are.
func (l *link) topicError(ctx context.Context, name string, cause error) error {
	var b strings.Builder
	at := strings.Join(l.brokers, ", ")
	switch {
	case errors.Is(cause, kerr.TopicAuthorizationFailed):
		fmt.Fprintf(&b, "topic %q on %s: %s may not use it, or it does not exist (brokers with access rules do not say which)",
			name, at, l.principal())
	case errors.Is(cause, kerr.UnknownTopicOrPartition), errors.Is(cause, kerr.UnknownTopicID):
		fmt.Fprintf(&b, "topic %q does not exist on %s, or %s may not see it", name, at, l.principal())
	default:
		fmt.Fprintf(&b, "topic %q on %s: %s", name, at, errs.Reason(cause))
	}
	if all, err := l.topics(ctx); err == nil {
		b.WriteString("; " + topicsAtHand(all, l.instance))
	}
	is := []error{errs.Topic, cause, l.kind}
	if errors.Is(l.kind, errs.Producer) {
		is = append(is, errs.Delivery)
	}
	return errs.New(is, "kafka: %s", errs.Clean(b.String()))
}

// withTopicsAtHand adds to err, that a topic is missing, which others there are, if
// brokers say so soon.
func (l *link) withTopicsAtHand(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all map[string]topicState
	if l.await(ctx, running, "listing topics", func(ctx context.Context) (err error) {
		all, err = l.topics(ctx)
		return err
	}) != nil {
		return err
	}
	return errs.New([]error{err}, "%s; %s", errs.Reason(err), topicsAtHand(all, l.instance))
}

// principal names who was denied something. A broker may take another claim than sub
// for the principal, and does not say which.
func (l *link) principal() string {
	if sub := l.auth.Identity().Subject; sub != "" {
		return "this client (the token's sub is " + errs.Clean(sub) + ")"
	}
	return "this client"
}

// topicsAtHand lists the topics of instance, or else the instances there are.
func topicsAtHand(all map[string]topicState, instance string) string {
	var own, instances []string
	for name := range all {
		prefix, pipeline, err := topicname.Split(name)
		if err != nil || strings.HasPrefix(name, "__") || topicname.Check(name) != nil {
			continue // a name that no topic can have is not repeated
		}
		if prefix == instance {
			own = append(own, pipeline)
		}
		instances = append(instances, prefix)
	}
	slices.Sort(own)
	slices.Sort(instances)
	instances = slices.Compact(instances)
	switch {
	case len(own) > 0:
		return fmt.Sprintf("topics of instance %s: %s", instance, shortList(own))
	case len(instances) > 0:
		return fmt.Sprintf("instance %s has no topics there; instances that have: %s", instance, shortList(instances))
	}
	return "no topics are visible there"
}

func shortList(names []string) string {
	const most = 12
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// isUsable reports whether messages can be sent to some partition, now or soon.
func (s topicState) isUsable() bool {
	return len(s.partitions) > 0 && (s.err == nil || kerr.IsRetriable(s.err))
}

// withoutLeader returns the partitions of a topic that have no leader.
func (s topicState) withoutLeader() []int32 {
	var ids []int32
	for _, part := range s.partitions {
		if part.leader < 0 {
			ids = append(ids, part.id)
		}
	}
	return ids
}

// logLeaders logs which partitions of a topic have no leader, and which have one again.
func (l *link) logLeaders(was, now topicState) {
	before, after := was.withoutLeader(), now.withoutLeader()
	lost := slices.DeleteFunc(slices.Clone(after), func(id int32) bool { return slices.Contains(before, id) })
	back := slices.DeleteFunc(before, func(id int32) bool { return slices.Contains(after, id) })
	if len(lost) > 0 {
		l.log.Warn("gracedb: kafka: no broker leads these partitions; they are followed when one does", "topic", now.name, "partitions", numbers(lost))
	}
	if len(back) > 0 {
		l.log.Info("gracedb: kafka: these partitions have a leader again", "topic", now.name, "partitions", numbers(back))
	}
}

// checkLeaders returns an error that names the partitions without a leader, if there are
// any.
func checkLeaders(states map[string]topicState, topics ...string) error {
	var texts []string
	for _, topic := range topics {
		if ids := states[topic].withoutLeader(); len(ids) > 0 {
			texts = append(texts, fmt.Sprintf("topic %s partition %s", topic, numbers(ids)))
		}
	}
	if texts == nil {
		return nil
	}
	return errs.New([]error{errs.Connection, kerr.LeaderNotAvailable},
		"kafka: no broker leads %s: nothing is written to or read from there until one does", shortList(texts))
}

func numbers(ids []int32) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(int(id))
	}
	return shortList(texts)
}
