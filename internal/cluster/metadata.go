package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
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

// A Partition is one partition and the broker that leads it.
type Partition struct {
	ID, Leader, Epoch int32
}

// A Topic is what brokers say of a topic.
type Topic struct {
	Name       string
	ID         [16]byte
	Err        error
	Partitions []Partition // 0, 1, 2 …
	Operations int32       // what this client may do with it, as Kafka has it; unknownOperations if it was not told
}

// unknownOperations is what kmsg has where no broker says what is allowed: one that is older than
// Kafka 2.3, or of a topic with an error.
const unknownOperations = math.MinInt32

// RightsUnknown reports whether no broker has told what its client may do with something.
func RightsUnknown(operations int32) bool { return operations == unknownOperations }

// Forbids reports whether a broker, which has told what its client may do with something, leaves
// op out of that.
func Forbids(operations int32, op kmsg.ACLOperation) bool {
	return !RightsUnknown(operations) && operations&(1<<op) == 0
}

// Forbids reports whether a broker has said that this client may not do op with the topic.
func (s Topic) Forbids(op kmsg.ACLOperation) bool { return s.Err == nil && Forbids(s.Operations, op) }

// Topics asks for the state of the named topics, or of all if none is named.
func (l *Client) Topics(ctx context.Context, names ...string) (map[string]Topic, error) {
	var list []kmsg.MetadataRequestTopic
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		list = append(list, t)
	}
	return l.Metadata(ctx, list)
}

// Metadata asks for the state of topics: of none if the list is empty, of all if it is nil.
func (l *Client) Metadata(ctx context.Context, topics []kmsg.MetadataRequestTopic) (map[string]Topic, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = topics
	req.IncludeTopicAuthorizedOperations = topics == nil || len(topics) > 0
	resp, err := req.RequestWith(ctx, l.KGO)
	if err != nil {
		return nil, err
	}
	states := make(map[string]Topic, len(resp.Topics))
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		s := Topic{Name: *t.Topic, ID: t.TopicID, Err: kerr.ErrorForCode(t.ErrorCode), Operations: t.AuthorizedOperations}
		for _, p := range t.Partitions {
			s.Partitions = append(s.Partitions, Partition{p.Partition, p.Leader, p.LeaderEpoch})
		}
		slices.SortFunc(s.Partitions, func(a, b Partition) int { return cmp.Compare(a.ID, b.ID) })
		if err := checkPartitions(s.Partitions); err != nil {
			s.Partitions, s.Err = nil, err
		}
		states[s.Name] = s
	}
	return states, nil
}

// maxPartitions is by far more than a topic has. Of each, kgo makes some 500 bytes, and it takes
// some microseconds.
const maxPartitions = 20_000

// checkPartitions returns why these, in the order of their numbers, cannot be those of a
// topic. Something is kept of each, and for ever of those that never were.
func checkPartitions(parts []Partition) error {
	if len(parts) > maxPartitions {
		return fmt.Errorf("a broker says that it has %d partitions; at most %d are read", len(parts), maxPartitions)
	}
	for i, part := range parts {
		if int(part.ID) != i {
			return fmt.Errorf("a broker says that it has %d partitions, and does not name number %d", len(parts), i)
		}
	}
	return nil
}

// FindTopics returns the state of the named topics; the error is ErrTopic if one
// is missing, or op not allowed on it. It is one request when all is well.
func (l *Client) FindTopics(ctx context.Context, op kmsg.ACLOperation, names ...string) (map[string]Topic, error) {
	states, err := l.Topics(ctx, names...)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, ok := states[name]
		if !ok {
			s.Err = kerr.UnknownTopicOrPartition
		}
		if err := l.TopicTrouble(ctx, name, op, s); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// TopicTrouble returns an error if a topic is missing, or op not allowed on it.
func (l *Client) TopicTrouble(ctx context.Context, name string, op kmsg.ACLOperation, s Topic) error {
	if s.Forbids(op) {
		return l.forbidden(name, op)
	}
	if s.Err == nil || kerr.IsRetriable(s.Err) && len(s.Partitions) > 0 {
		return nil
	}
	if errors.Is(s.Err, kerr.LeaderNotAvailable) {
		return nil // being made, or electing: it exists
	}
	return l.TopicError(ctx, name, s.Err)
}

// TopicError says what is wrong with a topic and which others there are.
func (l *Client) TopicError(ctx context.Context, name string, cause error) error {
	var b strings.Builder
	at := strings.Join(l.Brokers, ", ")
	switch {
	case errors.Is(cause, kerr.TopicAuthorizationFailed):
		fmt.Fprintf(&b, "topic %q on %s: %s may not use it, or it does not exist (brokers with access rules do not say which)",
			name, at, l.Principal())
	case errors.Is(cause, kerr.UnknownTopicOrPartition), errors.Is(cause, kerr.UnknownTopicID):
		fmt.Fprintf(&b, "topic %q does not exist on %s, or %s may not see it", name, at, l.Principal())
	default:
		fmt.Fprintf(&b, "topic %q on %s: %s", name, at, errs.Reason(cause))
	}
	if all, err := l.Topics(ctx); err == nil {
		if other := otherCase(all, name); other != "" {
			fmt.Fprintf(&b, "; did you mean %q?", other)
		}
		b.WriteString("; " + TopicsAtHand(all, l.Instance))
	}
	is := []error{errs.Topic, cause, l.kind}
	if errors.Is(l.kind, errs.Producer) {
		is = append(is, errs.Delivery)
	}
	return errs.New(is, "kafka: %s", errs.Clean(b.String()))
}

// forbidden is the error of a topic that this client sees, and on which it may not do op.
func (l *Client) forbidden(name string, op kmsg.ACLOperation) error {
	is := []error{errs.Topic, kerr.TopicAuthorizationFailed, l.kind}
	if errors.Is(l.kind, errs.Producer) {
		is = append(is, errs.Delivery)
	}
	what := "read it"
	if op == kmsg.ACLOperationWrite {
		what = "write to it"
	}
	return errs.New(is, "kafka: topic %q on %s: %s may not %s: whoever runs the brokers has to give it the right %s",
		name, strings.Join(l.Brokers, ", "), l.Principal(), what, op)
}

// otherCase returns the pipeline of the topic that differs from name in the case of letters
// only, or "".
func otherCase(all map[string]Topic, name string) string {
	for other := range all {
		if other != name && strings.EqualFold(other, name) && topicname.Check(other) == nil {
			if _, pipeline, err := topicname.Split(other); err == nil {
				return pipeline
			}
		}
	}
	return ""
}

// WithTopicsAtHand adds to err, that a topic is missing, which others there are, if
// brokers say so soon.
func (l *Client) WithTopicsAtHand(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all map[string]Topic
	if l.Await(ctx, Running, "listing topics", func(ctx context.Context) (err error) {
		all, err = l.Topics(ctx)
		return err
	}) != nil {
		return err
	}
	return errs.New([]error{err}, "%s; %s", errs.Reason(err), TopicsAtHand(all, l.Instance))
}

// Principal names who was denied something. A broker may take another claim than sub
// for the principal, and does not say which.
func (l *Client) Principal() string {
	if sub := l.Auth.Identity().Subject; sub != "" {
		return "this client (the token's sub is " + errs.Clean(sub) + ")"
	}
	return "this client"
}

// TopicsAtHand lists the topics of instance, or else the instances there are.
func TopicsAtHand(all map[string]Topic, instance string) string {
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
		return fmt.Sprintf("topics of instance %s: %s", instance, ShortList(own))
	case len(instances) > 0:
		return fmt.Sprintf("instance %s has no topics there; instances that have: %s", instance, ShortList(instances))
	}
	return "no topics are visible there"
}

// ShortList joins names, of many only the first.
func ShortList(names []string) string {
	const most = 12
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// IsUsable reports whether messages can be sent to some partition, now or soon.
func (s Topic) IsUsable() bool {
	return len(s.Partitions) > 0 && (s.Err == nil || kerr.IsRetriable(s.Err))
}

// withoutLeader returns the partitions of a topic that have no leader.
func (s Topic) withoutLeader() []int32 {
	var ids []int32
	for _, part := range s.Partitions {
		if part.Leader < 0 {
			ids = append(ids, part.ID)
		}
	}
	return ids
}

// LogLeaders logs which partitions of a topic have no leader, and which have one again.
func (l *Client) LogLeaders(was, now Topic) {
	before, after := was.withoutLeader(), now.withoutLeader()
	lost := slices.DeleteFunc(slices.Clone(after), func(id int32) bool { return slices.Contains(before, id) })
	back := slices.DeleteFunc(before, func(id int32) bool { return slices.Contains(after, id) })
	if len(lost) > 0 {
		l.Log.Warn("gracedb: kafka: no broker leads these partitions; they are followed when one does", "topic", now.Name, "partitions", numbers(lost))
	}
	if len(back) > 0 {
		l.Log.Info("gracedb: kafka: these partitions have a leader again", "topic", now.Name, "partitions", numbers(back))
	}
}

// CheckLeaders returns an error that names the partitions without a leader, if there are
// any.
func CheckLeaders(states map[string]Topic, topics ...string) error {
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
		"kafka: no broker leads %s: nothing is written to or read from there until one does", ShortList(texts))
}

func numbers(ids []int32) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(int(id))
	}
	return ShortList(texts)
}
