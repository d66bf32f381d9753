package gracedb

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
	oauthbearer "github.com/gracedb-go/gracedb/internal/sasl"
	"github.com/gracedb-go/gracedb/internal/tlsroots"
	"github.com/gracedb-go/gracedb/internal/token"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

// A TokenSource returns a bearer token that is valid now. It is called for each
// new connection and re-authentication, and must be safe for concurrent use.
//
// A token of more than 16 KiB is passed on without being read, so that its expiry is
// not seen; Kafka's brokers take none of more than 512 KiB.
type TokenSource func(ctx context.Context) (token string, err error)

// A TokenQuery ranks tokens. Who receives a token decides what it is worth, so
// one that does not match is still used when there is no better.
type TokenQuery struct {
	Audience []string // preferred: any one of these, then "ANY"
	Scopes   []string // preferred: all of these
}

// FindToken returns a TokenSource that looks, on every call, where SciTokens
// are kept, and returns the one that q ranks first: matching audience and
// scopes, then audience ANY, then audience only, then any that has not expired.
//
// The places, in order, which decides between equals: the variable SCITOKEN; the
// file that SCITOKEN_FILE names; the *.use files in the directory that
// _CONDOR_CREDS names; the variable BEARER_TOKEN; the file that BEARER_TOKEN_FILE
// names; bt_u<uid> in XDG_RUNTIME_DIR; /tmp/bt_u<uid>. The last two must belong to
// the effective user or root. The last must not be a link, nor have another name (a
// hard link), and neither must the one before if everybody may write into its
// directory. What is unusable
// in one place does not keep the others from being looked at.
//
// A token with less than a minute to live is used only if no other matches, and
// one that has expired, does not say when it does, or has more than 16 KiB (which is
// more than web servers take in a header), never. A file that was
// changed within the last second is read twice, 20 ms apart, and believed only if
// both readings agree. No place is waited for longer than 2 seconds, nor longer
// than ctx.
//
// The error is [ErrToken]. It lists every place with the reason why it had no
// token to use.
func FindToken(q TokenQuery) TokenSource {
	return TokenSource(token.FindSource(&token.Finder{Query: token.Query{
		Audience: slices.Clone(q.Audience),
		Scopes:   slices.Clone(q.Scopes),
	}}))
}

// StaticToken returns a TokenSource that always returns token.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// ReloadToken returns a TokenSource that reuses the token of src until buffer
// before the time in its exp claim, then asks src again, at most every 5 seconds
// while src has nothing better. It also asks after its token was refused. A token
// without exp is asked for again every minute. If buffer is not positive, src is
// asked when the token has expired.
//
// While its token is valid, an error of src is hidden (the logger of whoever asks
// hears of it once) and a slow answer is not waited for: the token stays in use.
// Once the token has expired, every call asks src and waits for as long as its ctx
// allows; an expired token is an [ErrToken]. Calls at the same time share one
// question to src, whose ctx ends when all of them have given up.
func ReloadToken(src TokenSource, buffer time.Duration) TokenSource {
	return TokenSource(token.Reload(token.Source(src), buffer))
}

// OAuthBearer returns the SASL mechanism of this package, for a kgo.Client of
// your own: OAUTHBEARER (RFC 7628, KIP-255) that asks src at every new connection
// and re-authentication (KIP-368). Unlike kgo's own, its errors show what the
// broker said, are ErrAuthentication, and are temporary to kgo, so that messages
// wait for a good token instead of failing; and a broker that refuses is asked at
// most four times a second. It is safe for concurrent use.
//
// A mechanism sees only what a broker answers by SASL. An error that kgo makes of anything
// else a broker says holds its text as it is, which may repeat the token that this broker
// was just shown, above all SASL_AUTHENTICATION_FAILED with a text. ClientOpts, whose
// connections are this package's own, takes tokens out of that; with other connections
// look at errors.Is, and do not show the text.
func OAuthBearer(src TokenSource) sasl.Mechanism {
	return oauthbearer.New(token.Source(src), oauthbearer.NewState(slog.New(slog.DiscardHandler), 0))
}

// A Cluster says which Kafka brokers to reach, for which GraceDB instance, and
// how to prove who you are. It is plain data: copy it, and configure any number
// of producers and consumers with it.
//
// Whatever a broker sends, its answers take little: one is refused, and the connection
// made anew, if it is of more than 256 KiB before login, of 2 MiB but for a Fetch, and of
// 21 MiB for that (5 MiB that a Consumer asks for, and a batch of 15 MiB behind it); if it
// counts more than it can hold; if it names more than 1,000 brokers, 10,000 topics or
// 20,000 partitions; or if it would take more than 32 MiB beside its own bytes and its
// messages. A Producer reads no answer of more than 2 MiB. A broker's throttle is kept for
// at most 2 minutes; then another connection is made.
type Cluster struct {
	// Brokers are the host:port addresses to bootstrap from. Required. A client opens at
	// most 16 connections at a time, and keeps 4 of these for the brokers named here and
	// those that it has been connected to, whatever addresses brokers name.
	Brokers []string
	// ServiceURL and Instance both name the GraceDB instance that prefixes every
	// topic. Set exactly one.
	ServiceURL string // such as "https://gracedb-dev.ligo.org/api/"
	Instance   string // such as "gracedb-dev"
	// Token supplies the bearer token. If nil, it is FindToken for the host of
	// the first broker and the scope of the client's kind ("gracedb.read" for a
	// producer, "kafka.consume" for a consumer, any for ClientOpts), reloaded 5
	// minutes before exp.
	Token TokenSource
	// CAFile is a PEM file of certificate authorities to trust instead of the
	// system's: a regular file of at most 8 MiB. It is read by whatever makes a
	// client, and again when it has changed and a broker's certificate is not from
	// an authority that it held before. One that was taken out of it is trusted
	// until then, or until the program is restarted.
	CAFile string
	// TokenHosts limits to whom the token is shown, and anything else. If empty, that is
	// any broker that is in Brokers, or that one of these names as another of the
	// cluster's, and whose certificate is good for that name: as with every Kafka client,
	// so that one broker, or whoever has a certificate for its name, can send the token to
	// any host that an authority of CAFile (or of the system's) vouches for. If not empty,
	// a broker that is not in Brokers has to be one of these: a host, or all below a domain
	// that is written with a dot before it, such as ".example.org". No connection is made
	// to any other, and errors and the log name it.
	TokenHosts []string
	// SkipHostnameVerification accepts a broker certificate issued for another
	// name. The chain is still verified. For development only.
	SkipHostnameVerification bool
	// Plaintext authenticates without TLS. Refused unless every broker is on
	// the loopback interface, since it shows the token to the network.
	Plaintext bool
	// Dial opens the TCP connection to a broker, before TLS. If nil, it is that
	// of a net.Dialer. It has to return when its ctx ends, which is after 5 seconds at
	// most, or when the client is closed. Until it does, it keeps one of the 16
	// connections that may be opened at a time, and whatever is meant for that broker
	// waits: calls end with their own ctx, and Close after FlushTimeout, all the same, but
	// what waits for Dial is left behind.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger receives reloads, reconnections and fallbacks: at most 30 lines of
	// level Info and above in any minute from each client. If nil, nothing is logged.
	Logger *slog.Logger
	// Opts are applied after this package's own, for what it does not offer, such as
	// kgo.WithHooks, kgo.Rack, kgo.ClientID or kgo.FetchIsolationLevel. One that changes a
	// time also changes what this package says takes so long. One that has no effect here,
	// such as all of kgo's options for its producer, or takes away what this package promises
	// (of connections, tokens, acknowledgements, positions, memory), is ErrConfig, which says
	// what to use instead. A Producer does not produce by kgo's: of kgo's hooks it calls
	// those of brokers, and none of records and batches.
	Opts []kgo.Opt
}

// ClientOpts returns the options that c stands for, to build a kgo.Client of
// your own that connects and authenticates as this package does. An error is
// ErrConfig.
//
// What brokers say then reaches your program by way of kgo. The reason for a refused login
// is cleaned of tokens before kgo has it, and so are errors of connecting. Other answers are
// as the broker has sent them: a text in one, or a name, may repeat the token if the broker
// means harm.
func (c Cluster) ClientOpts() ([]kgo.Opt, error) {
	cfg, err := c.config("")
	if err != nil {
		return nil, err
	}
	if err := cluster.CheckOpts(c.Opts, cluster.Connecting); err != nil {
		return nil, err
	}
	state := oauthbearer.NewState(cfg.Log(), 0)
	return cfg.Options(context.Background(), oauthbearer.New(cfg.Token, state), cluster.NewHealth(cfg.Log(), state), nil)
}

// config checks c, but for Opts, and returns it in plain values. scope is what the token of a
// client of this kind should have; "" if any will do.
func (c Cluster) config(scope string) (cluster.Config, error) {
	instance, err := c.instance()
	if err != nil {
		return cluster.Config{}, err
	}
	if err := c.checkBrokers(); err != nil {
		return cluster.Config{}, err
	}
	return cluster.Config{
		Brokers: slices.Clone(c.Brokers), TokenHosts: slices.Clone(c.TokenHosts), Instance: instance,
		Token: token.Source(c.tokenSource(scope)), CAFile: c.CAFile,
		SkipHostnameVerification: c.SkipHostnameVerification, Plaintext: c.Plaintext,
		Dial: c.Dial, Logger: logonce.Paced(c.Logger), Version: version, Opts: c.Opts,
	}, nil
}

// instance returns the prefix of c's topics.
func (c Cluster) instance() (string, error) {
	if (c.ServiceURL == "") == (c.Instance == "") {
		return "", errs.New([]error{errs.Config}, "Cluster: set exactly one of ServiceURL and Instance")
	}
	name := c.Instance
	if c.ServiceURL != "" {
		var err error
		if name, err = topicname.Instance(c.ServiceURL); err != nil {
			return "", err
		}
	}
	if name == "" || strings.Trim(name, topicLetters) != "" {
		return "", errs.New([]error{errs.Config}, "Cluster: %s is no instance name: topics begin with letters, digits, - or _",
			errs.Clean(fmt.Sprintf("%q", name)))
	}
	return name, nil
}

// topicLetters may stand in the part of a topic name before the dot.
const topicLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

func (c Cluster) checkBrokers() error {
	if len(c.Brokers) == 0 {
		return errs.New([]error{errs.Config}, "Cluster: Brokers is empty: give host:port of at least one broker")
	}
	for _, b := range c.Brokers {
		host, port, err := net.SplitHostPort(b)
		if strings.Contains(b, "@") || strings.Contains(b, "://") {
			// It may hold a password.
			return errs.New([]error{errs.Config}, "Cluster: a broker address has more than host:port: give it without a scheme, user or password")
		}
		if err != nil || host == "" || port == "" || strings.ContainsAny(b, "/ ,") {
			return errs.New([]error{errs.Config}, "Cluster: broker %s is not of the form host:port", errs.Clean(fmt.Sprintf("%q", b)))
		}
		if c.Plaintext && !tlsroots.IsLoopback(host) {
			return errs.New([]error{errs.Config}, "Cluster: Plaintext would show the token to the network: broker %s is not on the loopback interface", errs.Clean(b))
		}
	}
	for _, h := range c.TokenHosts {
		if name := strings.TrimPrefix(h, "."); name == "" || strings.ContainsAny(name, "*/@ ,[]") || strings.Contains(name, ":") && net.ParseIP(name) == nil {
			return errs.New([]error{errs.Config}, `Cluster: TokenHosts holds %s, which is neither a host, such as "kafka.example.org", nor a domain with a dot before it, such as ".example.org"`,
				errs.Clean(fmt.Sprintf("%q", topicname.WithoutUserinfo(h))))
		}
	}
	if c.Plaintext && (c.CAFile != "" || c.SkipHostnameVerification) {
		return errs.New([]error{errs.Config}, "Cluster: Plaintext excludes CAFile and SkipHostnameVerification")
	}
	return nil
}

// tokenSource returns the source to authenticate with.
func (c Cluster) tokenSource(scope string) TokenSource {
	if c.Token != nil {
		return c.Token
	}
	var q TokenQuery
	if host, _, err := net.SplitHostPort(c.Brokers[0]); err == nil {
		q.Audience = []string{"https://" + host, host}
	}
	if scope != "" {
		q.Scopes = []string{scope}
	}
	return ReloadToken(FindToken(q), defaultReloadBuffer)
}

// defaultReloadBuffer is how long before exp a token is looked for anew.
const defaultReloadBuffer = 5 * time.Minute
