package gracedb

import (
	"cmp"
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/produce"
)

// A ProducerConfig configures a Producer.
type ProducerConfig struct {
	Cluster Cluster // how to reach the brokers
	// Topic is where messages go that name none: a pipeline such as "test".
	Topic string
	// FlushTimeout is the longest that PublishEvent, Ping and Close wait for
	// acknowledgements. If zero, it is 10 seconds. Flush and ProduceSync are bounded by
	// their ctx alone.
	FlushTimeout time.Duration
	// MaxMessageBytes is the largest message accepted, before compression: its key,
	// value and headers, each of these with 10 bytes more. If
	// zero, it is 10 MiB. The broker's own limit applies after compression, and a
	// Consumer passes over batches of more than 15 MiB before it.
	MaxMessageBytes int
	// MaxBufferedBytes bounds the memory of the messages that are not settled yet; beyond
	// it, Produce waits. Each takes 400 bytes, 40 more for each header, beside what it
	// measures against MaxMessageBytes. If zero, it is 64 MiB.
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
	core *produce.Producer // all that it does, with records of kgo instead of messages
}

// NewProducer returns a Producer that is connected, authenticated and warm, and
// whose topics exist. What is wrong (a refused token or connection, an unknown
// host or authority, a default topic that is missing or may not be written) is reported at once; for a silent broker, or
// one that is away while others answer, it waits until ctx ends, at most 30 seconds.
//
// Its errors are ErrConfig, or ErrProducer with ErrToken, ErrAuthentication,
// ErrConnection or ErrTopic. The Producer must be closed.
func NewProducer(ctx context.Context, cfg ProducerConfig) (*Producer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	at, err := cfg.Cluster.config("gracedb.read")
	if err != nil {
		return nil, err
	}
	core, err := produce.New(ctx, produce.Config{
		Cluster: at, Topic: cfg.Topic, Lazy: cfg.Lazy, Tell: tell,
		FlushTimeout:     cmp.Or(cfg.FlushTimeout, defaultFlushTimeout),
		MaxMessageBytes:  cmp.Or(cfg.MaxMessageBytes, defaultMaxMessageBytes),
		MaxBufferedBytes: cmp.Or(cfg.MaxBufferedBytes, defaultMaxBufferedBytes),
		AuthGrace:        cmp.Or(cfg.AuthGrace, defaultAuthGrace),
	})
	if err != nil {
		return nil, err
	}
	return &Producer{core}, nil
}

// made returns an error for a Producer that no constructor made, or nil.
func (p *Producer) made() error {
	if p == nil || p.core == nil {
		return errs.New([]error{errs.Config, errs.Delivery}, "kafka: this Producer was not made by NewProducer")
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
	if done == nil {
		return p.core.Produce(ctx, record(m), nil)
	}
	return p.core.Produce(ctx, record(m), done) // a func in an any takes no memory
}

// tell is the core's way to call the done of a message.
func tell(done any, r kgo.Record, err error) { done.(func(Message, error))(received(&r), err) }

// record returns m as kgo has it. Key and value are not copied.
func record(m Message) kgo.Record {
	r := kgo.Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset,
		Key: m.Key, Value: m.Value, Timestamp: m.Time,
	}
	if len(m.Headers) > 0 {
		r.Headers = make([]kgo.RecordHeader, len(m.Headers))
		for i, h := range m.Headers {
			r.Headers[i] = kgo.RecordHeader(h)
		}
	}
	return r
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
	r, err := p.core.ProduceSync(ctx, record(m))
	if err != nil {
		return Message{}, err
	}
	return acknowledged(m, r), nil
}

// acknowledged returns m, which a broker has acknowledged as r.
func acknowledged(m Message, r kgo.Record) Message {
	m.Topic, m.Partition, m.Offset, m.Time = r.Topic, r.Partition, r.Offset, r.Timestamp
	return m
}

// Ping publishes a small test message to topic, or to the default topic, or to
// "test", and returns it as delivered. A Consumer yields it as any message, and its
// Upload is ErrNotUpload: consumers of events pass over it. Ping waits for at most
// FlushTimeout. Its key is "ping/" and the token's sub: a topic with cleanup.policy=compact
// takes no message without one, and keeps of each sub the last ping.
func (p *Producer) Ping(ctx context.Context, topic string) (Message, error) {
	if err := p.made(); err != nil {
		return Message{}, err
	}
	r, err := p.core.Ping(ctx, topic)
	if err != nil {
		return Message{}, err
	}
	return received(&r), nil
}

// Pending returns how many messages are not settled yet.
func (p *Producer) Pending() int {
	if p.made() != nil {
		return 0
	}
	return p.core.Pending()
}

// Check makes a round trip to the broker on the connection that messages use, and
// reports what would stop one now: no answer, a refused token, the default topic
// missing, not writable for this principal (which brokers from Kafka 2.3 on tell), or with a
// partition that no broker leads. It writes nothing.
// It waits until ctx ends.
func (p *Producer) Check(ctx context.Context) error {
	if err := p.made(); err != nil {
		return err
	}
	return p.core.Check(ctx)
}

// Flush waits until all queued messages are settled. Its error says how many of
// those queued without a done since the last Flush failed, and the first causes;
// if ctx ends or the grace passes first, how many are not settled yet, and how many of
// these may have been written. They stay queued, and Flush can be called again: to produce
// them once more would double them. It does not wait for what is queued after the call. Called by a
// done, it returns an error at once.
func (p *Producer) Flush(ctx context.Context) error {
	if err := p.made(); err != nil {
		return err
	}
	return p.core.Flush(ctx)
}

// Close flushes for at most FlushTimeout, releases everything, and says how many
// messages were not delivered. Closing again waits for the first and returns nil.
// Called by a done, of whatever Producer, it closes nothing and returns an error at once.
func (p *Producer) Close() (err error) {
	if err := p.made(); err != nil {
		return err
	}
	return p.core.Close()
}
