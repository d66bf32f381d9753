package produce

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

const (
	// ownMetadataEvery is how often kgo asks for metadata by itself: seldom (an hour is its most),
	// since keepWarm and the sender ask for what they need, and not when keepWarm does:
	//  1. kgo and keepWarm ask at the same time;
	//  2. kgo (v1.22.3) gives the second request to a seed, once all known brokers have one;
	//  3. the connection to the seed is new, since kgo has closed the idle one.
	ownMetadataEvery = time.Hour - 7*time.Second

	// messageOverhead is what a message that is not settled takes in memory beside what it
	// measures, and headerOverhead what each of its headers does. TestMessageOverhead measures
	// both. A ctx that ends, and is not shared with other messages, takes as much again, which
	// is not counted.
	messageOverhead = 400
	headerOverhead  = 40
)

// A Producer is a Producer without its public face. It is safe for concurrent use.
type Producer struct {
	cluster      *cluster.Client // the connections to the brokers, and what is known of these
	topic        string          // full name, or ""
	flushTimeout time.Duration
	maxMessage   int
	tell         func(owner any, r kgo.Record, err error) // tells the caller what became of a message

	queue      queue
	compressor *compressor
	sender     *sender.Sender
	told       logonce.Recently // of what messages wait for

	knownMu sync.Mutex       // guards known
	known   map[string]topic // as brokers have described it last; of topics that are in use
}

// A Config configures a Producer. Its values are meant as they are: zero is no default.
type Config struct {
	Cluster          cluster.Config
	Topic            string // a pipeline or a full name; "" for none
	FlushTimeout     time.Duration
	MaxMessageBytes  int
	MaxBufferedBytes int
	AuthGrace        time.Duration
	Lazy             bool
	// Tell is called once for each record that Produce has been given with an owner, with what
	// became of it: without locks, from several goroutines at a time. It must not block.
	Tell func(owner any, r kgo.Record, err error)
}

// New returns a Producer that is connected and warm, unless cfg.Lazy.
func New(ctx context.Context, cfg Config) (*Producer, error) {
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

func newProducer(ctx context.Context, cfg Config) (*Producer, error) {
	compressor, err := newCompressor()
	if err != nil {
		return nil, err
	}
	p := &Producer{
		flushTimeout: cfg.FlushTimeout,
		maxMessage:   cfg.MaxMessageBytes,
		tell:         cfg.Tell,
		compressor:   compressor,
		known:        make(map[string]topic),
	}
	p.queue.limit = int64(cfg.MaxBufferedBytes)
	p.cluster, err = cluster.New(ctx, cfg.Cluster, errs.Producer, cfg.AuthGrace, nil,
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

// Produce queues r, waiting while the buffer is full. Unless it returns an error, Config.Tell
// is called once with owner, if that is not nil, and with what became of r. r's ctx is not looked at.
func (p *Producer) Produce(ctx context.Context, r kgo.Record, owner any) error {
	d := &delivery{p: p, owner: owner, record: sender.Record{Ctx: ctx}}
	if err := p.accept(ctx, d, r); err != nil {
		return err
	}
	p.sender.Send(&d.record)
	return nil
}

// ProduceSync publishes r and waits until it is acknowledged.
func (p *Producer) ProduceSync(ctx context.Context, r kgo.Record) (kgo.Record, error) {
	return p.produceSync(ctx, r, false)
}

// Publish is ProduceSync, waiting at most FlushTimeout. With settle, whoever calls has
// another way for r: a refused token does not end the wait while the outcome is unknown,
// and a throttle that lasts longer than the wait does at once.
func (p *Producer) Publish(ctx context.Context, r kgo.Record, settle bool) (kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, p.flushTimeout)
	defer cancel()
	return p.produceSync(ctx, r, settle)
}

func (p *Producer) produceSync(ctx context.Context, r kgo.Record, settle bool) (kgo.Record, error) {
	d := &delivery{p: p, settled: make(chan struct{})}
	if err := p.accept(ctx, d, r); err != nil {
		return kgo.Record{}, err
	}
	p.sender.Send(&d.record)

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
			return kgo.Record{}, errs.New([]error{errs.OutcomeUnknown, gaveUp}, "%s; the message has not been sent, and may be until Close", errs.Reason(gaveUp))
		}
		return kgo.Record{}, errs.New([]error{errs.OutcomeUnknown, gaveUp}, "%s; the message may have been written, or may be until Close", errs.Reason(gaveUp))
	}
	return p.afterAll(d, gaveUp)
}

// afterAll returns what became of d, which was settled after its caller had given it up.
func (p *Producer) afterAll(d *delivery, gaveUp error) (kgo.Record, error) {
	if d.err == nil {
		return d.message(), nil
	}
	if errors.Is(d.err, errs.Delivery) {
		return kgo.Record{}, errs.New([]error{errs.Delivery, gaveUp, d.err}, "%s; the message was not written", errs.Reason(gaveUp))
	}
	return kgo.Record{}, errs.New([]error{d.err, gaveUp}, "%s; %s", errs.Reason(gaveUp), errs.Reason(d.err))
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
				return errs.New([]error{why, errs.Producer, said}, "kafka: %s: %s: the broker answers %s", p.naming(d.record.Topic), why, errs.Reason(said))
			}
			return p.cluster.GaveUp(why, p.naming(d.record.Topic), began, nil)
		case sasl.AuthFails:
			return errs.New([]error{why, errs.Producer}, "%s", errs.Reason(why))
		case sasl.LookAgain:
		case sasl.TimeUp:
			if !p.sender.IsSent(&d.record) {
				return p.cluster.ThrottleError(p.naming(d.record.Topic))
			}
		default:
			return nil
		}
	}
}

// result returns what became of d, which is settled.
func (p *Producer) result(ctx context.Context, d *delivery) (kgo.Record, error) {
	switch {
	case d.err == nil:
		return d.message(), nil
	case errors.Is(d.err, errs.Topic):
		return kgo.Record{}, p.cluster.WithTopicsAtHand(ctx, d.err)
	}
	return kgo.Record{}, d.err
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

// accept checks r, puts it into d and takes d into the queue.
func (p *Producer) accept(ctx context.Context, d *delivery, r kgo.Record) error {
	if p.cluster.Life.IsClosing() {
		return p.cluster.ErrClosed()
	}
	topic := p.topic
	if r.Topic != "" {
		topic = p.fullName(r.Topic)
	}
	if topic == "" {
		return errs.New([]error{errs.Topic, errs.Delivery}, "kafka: the message names no topic, and ProducerConfig.Topic is empty")
	}
	if err := p.checkTopicName(topic); err != nil {
		return err
	}
	if t := r.Timestamp; !t.IsZero() && t.UnixMilli() < 0 {
		// Nor does a producer of Java take it: -1 stands for no time at all on the wire.
		return errs.New([]error{errs.Delivery}, "kafka: a message for topic %s has the time %s: Kafka knows none before 1970", topic, t.UTC().Format(time.RFC3339))
	}
	if n := len(r.Headers); n > cluster.MaxHeaders {
		return errs.New([]error{errs.TooLarge}, "kafka: a message for topic %s has %d headers, and may have %d: put them into its value", topic, n, cluster.MaxHeaders)
	}
	r.Topic = topic
	d.hold(r)
	size := messageSize(&d.record)
	if size > p.maxMessage {
		return p.tooLarge(topic, size, fmt.Sprintf("MaxMessageBytes is %d", p.maxMessage), nil)
	}
	if err := ctx.Err(); err != nil {
		return errs.New([]error{err, errs.Delivery}, "kafka: %s: %s", p.naming(topic), err)
	}
	if err := p.refused(); err != nil {
		return errs.New([]error{err, errs.Delivery}, "%s", errs.Reason(err))
	}
	d.cost = int64(size + messageOverhead + headerOverhead*len(r.Headers))
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

// messageSize is what a message measures against MaxMessageBytes.
func messageSize(r *sender.Record) int {
	size := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
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
func (p *Producer) Pending() int { return p.queue.len() }

// Instance returns the GraceDB instance that it publishes to.
func (p *Producer) Instance() string { return p.cluster.Instance }

// Grace returns for how long a refused token is waited out.
func (p *Producer) Grace() time.Duration { return p.cluster.Auth.Grace }
