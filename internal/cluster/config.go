package cluster

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/sasl"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A Config says in plain values which brokers a client is to reach, and how. It has the
// fields of Cluster, checked, with the defaults in their places.
type Config struct {
	Brokers                  []string // host:port
	TokenHosts               []string
	Instance                 string // prefix of its topics
	Token                    token.Source
	CAFile                   string // "" for the system's authorities
	SkipHostnameVerification bool
	Plaintext                bool
	Dial                     dialFunc     // nil for net.Dialer's
	Logger                   *slog.Logger // nil if nothing is logged
	Version                  string       // of this module, as brokers are told it
	Opts                     []kgo.Opt    // of the user
}

// The waits of every client. A broker that has not answered a request within
// RequestTimeout is asked again over a new connection; what bounds the caller is
// its own ctx, not these.
const (
	dialTimeout    = 5 * time.Second
	RequestTimeout = 5 * time.Second
	// The metadata age decides how soon a moved leader is found, and is kgo's
	// clock for retries.
	metadataMinAge = 250 * time.Millisecond
	// New partitions are to be seen within 5 seconds.
	metadataMaxAge = 4 * time.Second
	// Kafka brokers close a connection after 10 quiet minutes: close it first.
	connIdleTimeout = 9 * time.Minute
	// ConstructorTimeout is how long a constructor waits at most.
	ConstructorTimeout = 30 * time.Second
	// VerdictTime is how long a call goes on after its ctx if what became of it is about to be
	// known. Every call returns within 100 ms of its ctx.
	VerdictTime = 60 * time.Millisecond
)

// MaxHeaders is how many headers a message may have. What they take in memory is up to 20
// times what they take on the wire.
const MaxHeaders = 1000

// Options returns the options common to all clients. Those of the user come last, so that they
// win.
func (c Config) Options(ctx context.Context, mechanism *sasl.Mechanism, health *Health, fit func() func(batches []byte)) ([]kgo.Opt, error) {
	dial, err := c.dialer(ctx)
	if err != nil {
		return nil, err
	}
	inner := dial
	dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := inner(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newFramedConn(conn, func(asked time.Duration) { health.overThrottled(address, asked) }, fit), nil
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("gracedb-go"),
		kgo.SoftwareNameAndVersion("gracedb-go", c.Version),
		kgo.Dialer(dial),
		kgo.SASL(mechanism),
		kgo.WithHooks(health),
		kgo.RequestTimeoutOverhead(RequestTimeout),
		kgo.RetryBackoffFn(retryBackoff),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.MetadataMaxAge(metadataMaxAge),
		kgo.ConnIdleTimeout(connIdleTimeout),
		kgo.AlwaysRetryEOF(), // a broker that hangs up may be starting
		kgo.DisableClientMetrics(),
		// A frame or a batch that claims more is hostile: GraceDB's brokers take
		// 10 MiB, its Python package puts no more into a batch before it is
		// compressed, and one fetch holds at most fetchMaxBytes beside it. What is
		// no Fetch is bounded by framedConn. A Consumer fetches less.
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.BrokerMaxReadBytes(maxFrameBytes),
		kgo.MaxDecompressBatchBytes(MaxBatchBytes),
	}
	if c.Logger != nil {
		opts = append(opts, kgo.WithLogger(&engineLog{log: c.Logger}))
	}
	return append(opts, c.Opts...), nil
}

// Bounds of what brokers send.
const (
	fetchMaxBytes = 16 << 20
	maxFrameBytes = 32 << 20
	MaxBatchBytes = 15 << 20 // what GraceDB's brokers take, and half as much again
)

// retryBackoff is the pause before a request is tried again, of which so many tries have failed in a
// row. An outage cuts all connections, and kgo finds each out by a try that fails, so the first pauses
// are short. None is so long that the first message after an outage is not on its way within a
// second, nor so short that brokers that are away are dialled all the time.
func retryBackoff(tries int) time.Duration {
	return min(20*time.Millisecond<<min(max(tries-1, 0), 5), 500*time.Millisecond)
}

// Log returns the logger of a client that is made of c; it is never nil.
func (c Config) Log() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}
