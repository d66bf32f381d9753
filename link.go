package gracedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A link is a kgo client and what this package knows of its connections; a
// Producer and a Consumer have one each.
type link struct {
	client   *kgo.Client
	auth     *bearer
	watch    *authWatch
	brokers  []string
	instance string
	kind     error // ErrProducer or ErrConsumer: what every error is
	log      *slog.Logger

	cancel  context.CancelFunc // makes the engine drop all that it waits for
	closing atomic.Bool
	closed  chan struct{}
}

// newLink checks c and makes the client. It connects to nothing. Each connection to
// a broker goes through wrap, if that is not nil.
func newLink(c Cluster, kind error, scope string, grace time.Duration, wrap func(net.Conn) net.Conn, own ...kgo.Opt) (*link, error) {
	instance, err := c.instance()
	if err != nil {
		return nil, err
	}
	l := &link{
		watch: newAuthWatch(c.logger(), grace), brokers: slices.Clone(c.Brokers), instance: instance,
		kind: kind, log: c.logger(), closed: make(chan struct{}),
	}
	if err := c.checkBrokers(); err != nil {
		return nil, err
	}
	l.auth = &bearer{src: c.tokenSource(scope), watch: l.watch}
	opts, err := c.clientOpts(l.auth, wrap)
	if err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	own = append(own, kgo.WithContext(ctx))
	// The user's own options stay last.
	common := len(opts) - len(c.Opts)
	if l.client, err = kgo.NewClient(slices.Concat(opts[:common], own, opts[common:])...); err != nil {
		l.cancel()
		return nil, fail([]error{ErrConfig, err}, "Cluster: %s", reason(err))
	}
	l.watch.onBad = l.probe
	return l, nil
}

// probe looks for a good token while authentication fails: calls that fail fast
// connect to nothing, so without it nobody would notice that all is well again.
func (l *link) probe() {
	for {
		select {
		case <-l.closed:
			return
		case <-l.watch.healed():
			return
		case <-time.After(refusedPause):
		}
		ctx, cancel := context.WithTimeout(l.client.Context(), askTimeout)
		_, _ = l.client.Request(ctx, kmsg.NewPtrMetadataRequest()) // what it finds, the watch has seen
		cancel()
	}
}

// shut releases the client. Who comes second does not wait for the first.
func (l *link) shut() {
	if l.closing.CompareAndSwap(false, true) {
		close(l.closed)
		l.client.Close()
		l.cancel()
	}
}

func (l *link) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// errClosed is the error of a call after Close.
func (l *link) errClosed() error {
	is := []error{ErrClosed, l.kind}
	if errors.Is(l.kind, ErrProducer) {
		is = append(is, ErrDelivery)
	}
	return fail(is, "kafka: %s", ErrClosed)
}

// A waitMode says what ends a wait before its ctx.
type waitMode int

const (
	running  waitMode = iota // authentication has failed for longer than the grace
	starting                 // anything that is wrong
)

// await runs f, which talks to a broker and may go on for long after its ctx, and
// returns when it does, or when there is no use in waiting: ctx is done, the
// client closed, or authentication fails. When starting, f is run again as long as
// what it needs is away.
func (l *link) await(ctx context.Context, p waitMode, what string, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return l.gaveUp(err, what)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		if p == starting {
			done <- whileAway(inner, f)
		} else {
			done <- f(inner)
		}
	}()
	for {
		bad, past, cause := l.watch.status()
		stop := past
		var down <-chan struct{}
		if p == starting {
			stop = bad
			var all bool
			if all, down = l.watch.allDown(l.brokers, began); all && cause == nil {
				is, text := l.watch.trouble()
				return fail(append(is, l.kind), "kafka: %s: %s", what, text)
			}
		}
		select {
		case err := <-done:
			if over := over(ctx); err != nil && over != nil && !errors.Is(err, ErrKafka) {
				return l.gaveUp(over, what)
			}
			return l.explain(err, what)
		case <-ctx.Done():
			return l.gaveUp(ctx.Err(), what)
		case <-l.closed:
			return l.errClosed()
		case <-stop:
			if _, _, cause := l.watch.status(); cause != nil {
				return fail([]error{cause, l.kind}, "%s", reason(cause))
			}
		case <-down:
		}
	}
}

// over returns why ctx is done, or will be at once: the deadline of a connection,
// which the engine takes from ctx, may be noticed first.
func over(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// explain gives an engine's error its kinds.
func (l *link) explain(err error, what string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*failure](err); ok {
		return fail([]error{err, l.kind}, "%s", reason(err))
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return l.gaveUp(err, what)
	}
	if is, text := l.watch.trouble(); is != nil && isConnectionError(err) {
		return fail(append(is, err, l.kind), "kafka: %s: %s", what, text)
	}
	if _, answered := errors.AsType[*kerr.Error](err); !answered {
		what += " with " + strings.Join(l.brokers, ", ")
	}
	return fail(append(engineKinds(err), err, l.kind), "kafka: %s: %s", what, reason(err))
}

// gaveUp is the error of a wait that its ctx ended: with what is known to be
// wrong, or that nobody answered.
func (l *link) gaveUp(ctxErr error, what string) error {
	is, text := l.watch.trouble()
	if is == nil {
		is, text = []error{ErrConnection}, "no answer from "+strings.Join(l.brokers, ", ")
	}
	return fail(append(is, ctxErr, l.kind), "kafka: %s: %s: %s", what, ctxErr, text)
}

// checkToken asks for a token without connecting to anything, so that a missing or
// expired one costs the broker nothing and is reported as what it is.
func (l *link) checkToken(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, _, err := l.auth.ask(ctx); err != nil {
		return fail([]error{err, l.kind}, "%s", reason(err))
	}
	return nil
}

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
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		req.Topics = append(req.Topics, t)
	}
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

// maxPartitions is by far more than a topic has.
const maxPartitions = 100_000

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
		if s.err == nil || kerr.IsRetriable(s.err) && len(s.partitions) > 0 {
			continue
		}
		if errors.Is(s.err, kerr.LeaderNotAvailable) {
			continue // being made, or electing: it exists
		}
		return nil, l.topicError(ctx, name, s.err)
	}
	return states, nil
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
		fmt.Fprintf(&b, "topic %q on %s: %s", name, at, reason(cause))
	}
	if all, err := l.topics(ctx); err == nil {
		b.WriteString("; " + topicsAtHand(all, l.instance))
	}
	is := []error{ErrTopic, cause, l.kind}
	if errors.Is(l.kind, ErrProducer) {
		is = append(is, ErrDelivery)
	}
	return fail(is, "kafka: %s", cleanText(b.String()))
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
	return fail([]error{err}, "%s; %s", reason(err), topicsAtHand(all, l.instance))
}

// principal names who was denied something. A broker may take another claim than sub
// for the principal, and does not say which.
func (l *link) principal() string {
	if sub := l.watch.identity().Subject; sub != "" {
		return "this client (the token's sub is " + cleanText(sub) + ")"
	}
	return "this client"
}

// topicsAtHand lists the topics of instance, or else the instances there are.
func topicsAtHand(all map[string]topicState, instance string) string {
	var own, instances []string
	for name := range all {
		prefix, pipeline, err := ParseTopicName(name)
		if err != nil || strings.HasPrefix(name, "__") {
			continue
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

// whileAway calls f again as long as it fails because a broker is away, or because a
// leader or a coordinator is moving or not there yet.
func whileAway(ctx context.Context, f func(context.Context) error) error {
	for try := 0; ; try++ {
		err := f(ctx)
		if err == nil || !isAway(err) || over(ctx) != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryBackoff(try)):
		}
	}
}

// isAway reports whether err may end by itself while other brokers answer.
func isAway(err error) bool {
	if _, ours := errors.AsType[*failure](err); ours {
		return false // it has been judged, such as a topic that is missing
	}
	if dial, ok := errors.AsType[*dialError](err); ok {
		return dial.isAway()
	}
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err)
}
