package gracedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
	"github.com/gracedb-go/gracedb/internal/sasl"
	"github.com/gracedb-go/gracedb/internal/sender"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

// A ProducerConfig configures a Producer.
type ProducerConfig struct {
	Cluster Cluster
	// Topic is where messages go that name none: a pipeline such as "test".
	Topic string
	// FlushTimeout is the longest that PublishEvent, Ping and Close wait for
	// acknowledgements. If zero, it is 10 seconds.
	FlushTimeout time.Duration
	// MaxMessageBytes is the largest message accepted, before compression: its key,
	// value and headers, each of these with 10 bytes more. If
	// zero, it is 10 MiB. The broker's own limit applies after compression, and a
	// Consumer passes over batches of more than 15 MiB before it.
	MaxMessageBytes int
	// MaxBufferedBytes bounds the messages that are not settled yet; beyond it,
	// Produce waits. If zero, it is 64 MiB.
	MaxBufferedBytes int
	// AuthGrace is how long a refused or missing token is waited out before
	// calls report it; messages already queued are kept either way. If zero, it
	// is 5 seconds; if negative, nothing is waited out.
	AuthGrace time.Duration
	// Lazy starts without a token or a broker: NewProducer then checks only the
	// configuration. It is for programs that run for long and are to start during an
	// outage, since the Producer works as soon as there are brokers; calls that need
	// them before fail or wait as they do during any outage.
	Lazy bool
}

// The defaults of a ProducerConfig.
const (
	defaultFlushTimeout     = 10 * time.Second
	defaultMaxMessageBytes  = 10 << 20
	defaultMaxBufferedBytes = 64 << 20
	defaultAuthGrace        = 5 * time.Second

	// ownMetadataEvery is how often kgo asks for metadata by itself: seldom (an hour is its most),
	// since keepWarm and the sender ask for what they need, and not when keepWarm does:
	//  1. kgo and keepWarm ask at the same time;
	//  2. kgo (v1.22.3) gives the second request to a seed, once all known brokers have one;
	//  3. the connection to the seed is new, since kgo has closed the idle one.
	ownMetadataEvery = time.Hour - 7*time.Second

	// messageOverhead is what a message costs beside what it measures.
	messageOverhead = 128
)

func (cfg ProducerConfig) check() error {
	for _, f := range []struct {
		name     string
		negative bool
	}{
		{"FlushTimeout", cfg.FlushTimeout < 0},
		{"MaxMessageBytes", cfg.MaxMessageBytes < 0},
		{"MaxBufferedBytes", cfg.MaxBufferedBytes < 0},
	} {
		if f.negative {
			return errs.New([]error{errs.Config}, "ProducerConfig: %s is negative", f.name)
		}
	}
	if cfg.MaxMessageBytes > 1<<29 {
		return errs.New([]error{errs.Config}, "ProducerConfig: MaxMessageBytes is over 512 MiB")
	}
	return nil
}

// A Producer publishes to the topics of one GraceDB instance. It is safe for
// concurrent use.
type Producer struct {
	cluster      *cluster.Client // the connections to the brokers, and what is known of these
	topic        string          // full name, or ""
	flushTimeout time.Duration
	maxMessage   int

	queue      queue
	compressor *compressor
	sender     *sender.Sender
	told       logonce.Recently // of what messages wait for

	knownMu sync.Mutex
	known   map[string]cluster.Topic // as brokers have described it last; of topics that are in use
}

// NewProducer returns a Producer that is connected, authenticated and warm, and
// whose topics exist. What is wrong (a refused token or connection, an unknown
// host or authority, a missing topic) is reported at once; for a silent broker, or
// one that is away while others answer, it waits until ctx ends, at most 30 seconds.
//
// Its errors are ErrConfig, or ErrProducer with ErrToken, ErrAuthentication,
// ErrConnection or ErrTopic. The Producer must be closed.
func NewProducer(ctx context.Context, cfg ProducerConfig) (*Producer, error) {
	p, err := newProducer(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if !cfg.Lazy {
		ctx, cancel := context.WithTimeout(ctx, cluster.ConstructorTimeout)
		defer cancel()
		if err := p.start(ctx); err != nil {
			p.sender.Close()
			p.cluster.Shut()
			return nil, err
		}
	}
	go p.keepWarm()
	return p, nil
}

func newProducer(ctx context.Context, cfg ProducerConfig) (*Producer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	compressor, err := newCompressor()
	if err != nil {
		return nil, err
	}
	p := &Producer{
		flushTimeout: cmp.Or(cfg.FlushTimeout, defaultFlushTimeout),
		maxMessage:   cmp.Or(cfg.MaxMessageBytes, defaultMaxMessageBytes),
		compressor:   compressor,
		known:        make(map[string]cluster.Topic),
	}
	p.queue.limit = int64(cmp.Or(cfg.MaxBufferedBytes, defaultMaxBufferedBytes))
	config, err := cfg.Cluster.config("gracedb.read")
	if err != nil {
		return nil, err
	}
	p.cluster, err = cluster.New(ctx, config, errs.Producer, cmp.Or(cfg.AuthGrace, defaultAuthGrace), nil,
		kgo.WithHooks(compressor),
		kgo.BrokerMaxWriteBytes(int32(p.maxMessage+batchOverhead+1<<20)),
		kgo.BrokerMaxReadBytes(cluster.MaxSmallAnswer), kgo.FetchMaxBytes(cluster.MaxSmallAnswer/2), // it fetches nothing
		kgo.MetadataMaxAge(ownMetadataEvery),
	)
	if err != nil {
		return nil, err
	}
	p.sender = sender.New(sender.Config{
		Client: p.cluster.KGO, Describe: p.describe, Settle: settle, Waits: p.waits, NoConnection: cluster.IsUnconnected,
		Far: compressor.far, Compresses: compressor.wants, Compress: compressor.compress,
		Limit: unknownLimit, MaxBatch: int64(p.maxMessage), AskTimeout: cluster.RequestTimeout,
	})
	if cfg.Topic != "" {
		p.topic = topicname.Full(p.cluster.Instance, cfg.Topic)
		if err := p.checkTopicName(p.topic); err != nil {
			p.cluster.Shut()
			return nil, err
		}
	}
	return p, nil
}

const (
	// batchOverhead covers the batch's own header and the record's lengths.
	batchOverhead = 1 << 10
	// unknownLimit is safely under Kafka's default message.max.bytes, 1048588.
	unknownLimit = 1_000_000
)

// waits logs, once a minute, what the messages for a partition wait for.
func (p *Producer) waits(topic string, partition int32, said error) {
	why := errs.Reason(said)
	if !p.told.Already(fmt.Sprint(topic, partition, why)) {
		p.cluster.Log.Warn("gracedb: kafka: a broker takes no messages for now; they are sent again until it does", "topic", topic, "partition", partition, "err", why)
	}
}

func (p *Producer) checkTopicName(topic string) error {
	if err := topicname.Check(topic); err != nil {
		return errs.New([]error{errs.Config, errs.Topic, errs.Delivery}, "kafka: %s", errs.Reason(err))
	}
	return nil
}

// Produce queues m, waiting while the buffer is full. What is already known to
// be wrong (ErrAuthentication past the grace, ErrTooLarge, ErrClosed, ctx ended
// before there was room…) is returned at once, and done is not called. Otherwise
// done, if not nil, is called exactly once with what became of m, at the latest
// during Close. It must not block: to produce from it, flush or close, start a goroutine.
// If done is nil, Flush reports a failure. Ending ctx withdraws m as long as it has not been
// sent to a broker. m.Key, m.Value and m.Headers must not change until m is settled.
//
// Messages of one key arrive in the order of their calls.
// done may be called from several goroutines at a time.
func (p *Producer) Produce(ctx context.Context, m Message, done func(Message, error)) error {
	if err := p.made(); err != nil {
		return err
	}
	d := &delivery{p: p, msg: m, done: done, record: sender.Record{Ctx: ctx}}
	if err := p.accept(ctx, d); err != nil {
		return err
	}
	p.send(d)
	return nil
}

// ProduceSync publishes m and waits until the broker has acknowledged it. If ctx
// or the grace ends first, the error is also ErrOutcomeUnknown when m may have
// been written or may still be, and ErrDelivery when it was not and will not be. With
// ErrOutcomeUnknown, m.Key, m.Value and m.Headers must not change until Close: m may be sent
// again, which tells whether it was written, and writes it once.
func (p *Producer) ProduceSync(ctx context.Context, m Message) (Message, error) {
	if err := p.made(); err != nil {
		return Message{}, err
	}
	return p.produceSync(ctx, &delivery{msg: m}, false)
}

// publish is ProduceSync, waiting at most FlushTimeout. With settle, whoever calls has
// another way for m: a refused token does not end the wait while the outcome is unknown,
// and a throttle that lasts longer than the wait does at once.
func (p *Producer) publish(ctx context.Context, m Message, settle bool) (Message, error) {
	ctx, cancel := context.WithTimeout(ctx, p.flushTimeout)
	defer cancel()
	return p.produceSync(ctx, &delivery{msg: m}, settle)
}

func (p *Producer) produceSync(ctx context.Context, d *delivery, settle bool) (Message, error) {
	d.p, d.settled = p, make(chan struct{})
	if err := p.accept(ctx, d); err != nil {
		return Message{}, err
	}
	p.send(d)

	gaveUp := p.wait(ctx, d, settle)
	if gaveUp == nil {
		return p.result(ctx, d)
	}
	d.givenUp.Store(true)
	p.sender.Withdraw(&d.record, cmp.Or(ctx.Err(), context.Canceled))
	if settle {
		select {
		case <-d.settled:
		case <-ctx.Done():
		}
	}
	timer := time.NewTimer(cluster.VerdictTime)
	defer timer.Stop()
	select {
	case <-d.settled:
	case <-timer.C:
		sent := p.sender.IsSent(&d.record)
		select {
		case <-d.settled:
			return p.afterAll(d, gaveUp)
		default:
		}
		if !sent {
			return Message{}, errs.New([]error{errs.OutcomeUnknown, gaveUp}, "%s; the message has not been sent, and may be until Close", errs.Reason(gaveUp))
		}
		return Message{}, errs.New([]error{errs.OutcomeUnknown, gaveUp}, "%s; the message may have been written, or may be until Close", errs.Reason(gaveUp))
	}
	return p.afterAll(d, gaveUp)
}

// afterAll returns what became of d, which was settled after its caller had given it up.
func (p *Producer) afterAll(d *delivery, gaveUp error) (Message, error) {
	if d.err == nil {
		return d.msg, nil
	}
	if errors.Is(d.err, errs.Delivery) {
		return Message{}, errs.New([]error{errs.Delivery, gaveUp, d.err}, "%s; the message was not written", errs.Reason(gaveUp))
	}
	return Message{}, errs.New([]error{d.err, gaveUp}, "%s; %s", errs.Reason(gaveUp), errs.Reason(d.err))
}

// wait returns when d is settled (nil), or why there is no use in waiting.
func (p *Producer) wait(ctx context.Context, d *delivery, settle bool) error {
	began := time.Now()
	for {
		w := sasl.Waiting{Done: d.settled, Stop: sasl.StopPastGrace}
		if settle {
			leader := p.sender.LeaderOf(&d.record)
			_, w.News = p.cluster.Health.ThrottledUntil(leader)
			if p.cluster.Health.Outlasts(ctx, leader) && !p.sender.IsSent(&d.record) {
				// Should the connection of messages not be the one that is throttled, d is sent
				// within this time.
				w.Within = cluster.VerdictTime
			}
		}
		switch end, why := p.cluster.Auth.Wait(ctx, w); end {
		case sasl.CtxEnded:
			if said := p.sender.Said(&d.record); said != nil {
				return errs.New([]error{why, errs.Producer, said}, "kafka: %s: %s: the broker answers %s", p.naming(d.msg.Topic), why, errs.Reason(said))
			}
			return p.cluster.GaveUp(why, p.naming(d.msg.Topic), began, nil)
		case sasl.AuthFails:
			return errs.New([]error{why, errs.Producer}, "%s", errs.Reason(why))
		case sasl.LookAgain:
		case sasl.TimeUp:
			if !p.sender.IsSent(&d.record) {
				return p.cluster.ThrottleError(p.naming(d.msg.Topic))
			}
		default:
			return nil
		}
	}
}

// result returns what became of d, which is settled.
func (p *Producer) result(ctx context.Context, d *delivery) (Message, error) {
	switch {
	case d.err == nil:
		return d.msg, nil
	case errors.Is(d.err, errs.Topic):
		return Message{}, p.cluster.WithTopicsAtHand(ctx, d.err)
	}
	return Message{}, d.err
}

func (p *Producer) naming(topic string) string { return "publishing to " + topic }

// refused returns the error of a call while authentication has failed for longer
// than the grace, or nil.
func (p *Producer) refused() error {
	if _, cause := p.cluster.Auth.PastGrace(); cause != nil {
		return errs.New([]error{cause, errs.Producer}, "%s", errs.Reason(cause))
	}
	return nil
}

// accept checks d's message and takes d into the queue.
func (p *Producer) accept(ctx context.Context, d *delivery) error {
	if p.cluster.Life.IsClosing() {
		return p.cluster.ErrClosed()
	}
	topic := p.topic
	if d.msg.Topic != "" {
		topic = topicname.Full(p.cluster.Instance, d.msg.Topic)
	}
	if topic == "" {
		return errs.New([]error{errs.Topic, errs.Delivery}, "kafka: the message names no topic, and ProducerConfig.Topic is empty")
	}
	if err := p.checkTopicName(topic); err != nil {
		return err
	}
	if n := len(d.msg.Headers); n > cluster.MaxHeaders {
		return errs.New([]error{errs.TooLarge}, "kafka: a message for topic %s has %d headers, and may have %d: put them into its value", topic, n, cluster.MaxHeaders)
	}
	size := messageSize(d.msg)
	if size > p.maxMessage {
		return p.tooLarge(topic, size, fmt.Sprintf("MaxMessageBytes is %d", p.maxMessage), nil)
	}
	if err := ctx.Err(); err != nil {
		return errs.New([]error{err, errs.Delivery}, "kafka: %s: %s", p.naming(topic), err)
	}
	if err := p.refused(); err != nil {
		return errs.New([]error{err, errs.Delivery}, "%s", errs.Reason(err))
	}
	d.msg.Topic, d.cost = topic, int64(size)+messageOverhead
	switch end, err := p.queue.enter(ctx, d, p.cluster.Auth); {
	case err == nil:
		return nil
	case end == sasl.AuthFails:
		return errs.New([]error{err, errs.Delivery}, "%s", errs.Reason(err))
	case errors.Is(err, errs.Closed):
		return p.cluster.ErrClosed()
	default:
		return errs.New([]error{err, errs.Delivery}, "kafka: %s: %s while waiting for room: %d bytes are not settled yet",
			p.naming(topic), err, p.queue.limit)
	}
}

// messageSize is what a message measures against MaxMessageBytes and MaxBufferedBytes.
func messageSize(m Message) int {
	size := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		size += sender.HeaderOverhead + len(h.Key) + len(h.Value)
	}
	return size
}

func (p *Producer) tooLarge(topic string, size int, limit string, cause error) error {
	is := []error{errs.TooLarge}
	if cause != nil {
		is = append(is, cause)
	}
	return errs.New(is, "kafka: a message of %d bytes for topic %s is too large: %s", size, topic, limit)
}

// Pending returns how many messages are not settled yet.
func (p *Producer) Pending() int {
	if p == nil {
		return 0
	}
	return p.queue.len()
}
