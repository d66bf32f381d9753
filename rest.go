package gracedb

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

// version is this module's, as GraceDB's logs show it.
const version = "0.1.0"

// userAgent names this library to GraceDB, which refuses requests that name none,
// and takes a version out of any that holds "gracedb-client".
const userAgent = "gracedb-go/" + version

// A ClientConfig configures a Client.
type ClientConfig struct {
	// ServiceURL is the root of the service, such as
	// "https://gracedb-test.ligo.org/api/". Required. It must be https, except on
	// the loopback interface, since every request carries the token.
	ServiceURL string
	// APIVersion is the version of the API to use. If empty, "v2".
	APIVersion string
	// Token supplies the bearer token. If nil, it is FindToken for the service's
	// host and the scope "gracedb.read", reloaded 5 minutes before exp.
	Token TokenSource
	// CAFile is a PEM file of certificate authorities to trust instead of the
	// system's, as Cluster's is. It excludes HTTP.
	CAFile string
	// HTTP sends the requests. It is copied, and redirects are refused whatever
	// its CheckRedirect says. Its RoundTripper sees the token, and decides whom it is
	// shown to: what it does about certificates and proxies is trusted. If nil, it is
	// one of the Client's own, which takes nothing from http.DefaultTransport, with a
	// timeout of 60 seconds for each try, the proxies of the environment, and HTTP/1.
	HTTP *http.Client
	// Retries is how often a request that is safe to repeat is sent again. If
	// zero, it is 5, and while nobody can be connected to, as often as the deadline
	// of ctx allows, if it has one. If negative, nothing is sent again.
	Retries int
	// Logger receives repetitions and fallbacks. If nil, nothing is logged.
	Logger *slog.Logger
}

// A Client calls the GraceDB REST API. It is safe for concurrent use, and has
// nothing to close. Make one and share it: it fetches the root document once, and
// when the server throttles it makes its callers take turns.
//
// Requests that are safe to repeat (reading, a reservation, the upload to a
// reserved graceid) are repeated after a lost connection and after the statuses
// 408, 429, 502, 504, and 503 with Retry-After, with pauses of 0, 0.2, 0.4, 0.8,
// 1.6, 3.2 and from then on 5 seconds, or of what Retry-After says, up to 30
// seconds; no pause is begun that ctx would end. The five repetitions of the
// default take 3 seconds, 10 take 26, 20 take 76. A server that nobody can connect
// to is waited for until the deadline of ctx, if it has one, unless Retries is set.
// A status other than the one hoped for is a [*StatusError], and no answer is
// ErrConnection.
//
// While the token source has no token, or one that has expired, calls wait for it,
// as a Producer does, for up to 5 seconds (PublishEvent for its Producer's AuthGrace),
// then fail with ErrToken. A token that the server refuses is replaced by another
// one of the source, if it has one, and not waited for.
//
// Up to 16 connections stay open for 90 seconds after their last request. A test
// that looks for leaks closes them through an HTTP client of its own:
//
//	h := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}, Timeout: time.Minute}
//	defer h.CloseIdleConnections()
//	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: url, HTTP: h})
type Client struct {
	service  *url.URL // with a trailing slash, without the version
	root     *url.URL
	instance string // empty if the host has no name to make one from
	token    asker
	ownToken TokenSource // ClientConfig.Token
	http     *http.Client
	trust    *authorities
	retries  int
	// untilDeadline: more than retries while the server is away and ctx has a deadline.
	untilDeadline bool
	log           *slog.Logger
	info          infoCache
	pace          pacer
	shared        sharedConn
	late          lateToken
	// producer is what NewProducer last failed with; nil if it did not.
	producer atomic.Pointer[error]
}

var apiVersionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// NewClient returns a Client. It checks cfg but connects to nothing and looks for
// no token. Its errors are ErrConfig.
func NewClient(cfg ClientConfig) (*Client, error) {
	service, err := parseServiceURL(cfg.ServiceURL, cfg.APIVersion)
	if err != nil {
		return nil, err
	}
	c := &Client{service: service, ownToken: cfg.Token, retries: cfg.Retries, log: cfg.Logger}
	switch v := cfg.APIVersion; {
	case v == "":
		c.root = service.JoinPath("v2/")
	case v == "default":
		c.root = service
	case apiVersionPattern.MatchString(v):
		c.root = service.JoinPath(v + "/")
	default:
		return nil, errs.New([]error{errs.Config}, "ClientConfig: APIVersion %q is not a version", errs.Clean(v))
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTP != nil && cfg.CAFile != "" {
		return nil, errs.New([]error{errs.Config}, "ClientConfig: set at most one of CAFile and HTTP")
	}
	if c.trust, err = loadAuthorities(context.Background(), cfg.CAFile, c.log); err != nil {
		return nil, err
	}
	c.trust.given = cfg.HTTP != nil
	c.http = newHTTPClient(cfg, c.trust)
	c.token.src, c.token.log = cfg.Token, c.log
	if cfg.Token == nil {
		c.token.src = ReloadToken(FindToken(tokenQueryFor(service.Hostname())), 5*time.Minute)
	}
	if c.retries == 0 {
		c.retries, c.untilDeadline = 5, true
	}
	if instance, err := topicname.Instance(cfg.ServiceURL); err == nil {
		c.instance = instance
	}
	c.info.fetching = make(chan struct{}, 1)
	c.pace.current = make(chan struct{}, 1)
	return c, nil
}

// NewProducer is the function NewProducer with c's service URL filled in where
// cfg names no instance, and c's token where ClientConfig set one and cfg does not.
//
// If it fails, PublishEvent without a Producer (and with HTTPFallback) uploads over
// HTTP, and says in Receipt.Fallback what NewProducer failed with.
func (c *Client) NewProducer(ctx context.Context, cfg ProducerConfig) (*Producer, error) {
	if err := c.made(); err != nil {
		return nil, err
	}
	if cfg.Cluster.ServiceURL == "" && cfg.Cluster.Instance == "" {
		cfg.Cluster.ServiceURL = c.service.String()
	}
	if cfg.Cluster.Token == nil {
		cfg.Cluster.Token = c.ownToken
	}
	p, err := NewProducer(ctx, cfg)
	if err != nil {
		c.producer.Store(&err)
		return nil, err
	}
	c.producer.Store(nil)
	return p, nil
}

// noProducer returns why there is no Producer. Whatever NewProducer failed with, HTTP
// may do what Kafka cannot, and so the error is not an ErrConfig.
func (c *Client) noProducer() error {
	const text = "no Producer was given"
	cause := c.producer.Load()
	switch {
	case cause == nil:
		return errs.New([]error{errs.Delivery}, text)
	case errors.Is(*cause, errs.Config):
		return errs.New([]error{errs.Delivery}, text+": %s", errs.Reason(*cause))
	}
	return errs.New([]error{errs.Delivery, *cause}, text+": %s", errs.Reason(*cause))
}

// A Receipt says what became of an event.
type Receipt struct {
	GraceID   string // empty if PublishOnly
	Submitter string
	Message   Message // as acknowledged by the broker, without Value; zero if Kafka was not used
	// Warnings are the server's: it has created the event, but not done all that it
	// should. They are logged, too. Among them are
	//   - "No alert issued": the file could not be read, so that the event has no
	//     time and no FAR, and nobody was told of it
	//   - "Problem issuing an alert": the alert system was down
	//   - "managed as part of an automated process": a label is protected; those that
	//     the server would have applied after it are missing, too
	Warnings []string
	Fallback error // why HTTP was used although Kafka was asked for, or nil
	Timing   Timing
}

// A Timing says how long each step took; a step that was not taken took none. What
// PublishEvent encodes beside Reserve is part of that, and not of Encode.
type Timing struct{ Reserve, Encode, Publish, Upload time.Duration }

// CreateEvent uploads e in one HTTP request, and returns once the server has
// created the event. What is wrong with e is ErrEvent, and nothing of it has been
// sent then.
//
// This request cannot be repeated without the risk of a second event: it is sent
// again only when the server cannot have acted on it (connection refused, 429, 503
// with Retry-After). An error after which the event may exist says so, and is
// ErrOutcomeUnknown. [Client.PublishEvent] and [Client.UploadReservedEvent] have
// no such gap.
func (c *Client) CreateEvent(ctx context.Context, e Event) (Receipt, error) {
	if err := c.made(); err != nil {
		return Receipt{}, err
	}
	ce, err := c.check(ctx, e)
	if err != nil {
		return Receipt{}, err
	}
	return c.createEvent(ctx, ce)
}

func (c *Client) createEvent(ctx context.Context, e validEvent) (Receipt, error) {
	to, err := c.linkURL(e.info, "events")
	if err != nil {
		return Receipt{}, err
	}
	offline := "False" // as Python writes it: the server takes "0" for true
	if e.Offline {
		offline = "True"
	}
	fields := []field{{"group", e.Group}, {"pipeline", e.Pipeline}, {"offline", offline}, {"content_id", e.contentID}}
	fields = appendField(fields, "search", e.Search)
	for _, label := range e.Labels {
		fields = append(fields, field{"labels", label})
	}
	fields = appendField(fields, "replay_id", e.ReplayID)
	start := time.Now()
	a, err := c.do(ctx, exchange{method: http.MethodPost, url: to, body: multipartPayload(fields, e.Filename, e.Data)})
	made, err := c.readCreated(ctx, &a, err)
	if err != nil {
		if a.acted {
			err = markUnknown(err, "the event may exist all the same: look before sending it again")
		}
		return Receipt{}, err
	}
	return Receipt{
		GraceID: made.GraceID, Submitter: made.Submitter, Warnings: made.Warnings,
		Timing: Timing{Upload: time.Since(start)},
	}, nil
}

// A Provenance says how a reserved event reached whoever uploads it. An empty
// member is not sent.
type Provenance struct{ KafkaServer, KafkaTopic string }

// UploadReservedEvent completes over HTTP an event whose graceid is reserved. It
// may be repeated: a graceid gets one event. If the server says that the event
// is there already (409), that is success if an earlier try of this call may have
// put it there, and a [*StatusError] otherwise. An error after which the event may
// have been uploaded is ErrOutcomeUnknown.
func (c *Client) UploadReservedEvent(ctx context.Context, graceID string, e Event, via Provenance) (Receipt, error) {
	if err := c.made(); err != nil {
		return Receipt{}, err
	}
	if err := checkGraceID(graceID); err != nil {
		return Receipt{}, err
	}
	ce, err := c.check(ctx, e)
	if err != nil {
		return Receipt{}, err
	}
	return c.uploadReserved(ctx, Reservation{GraceID: graceID}, ce, via, false)
}

// uploadReserved is UploadReservedEvent for an event that was checked. arrived
// says that the event may have come to the server by another way, so that a 409 is
// no surprise.
func (c *Client) uploadReserved(ctx context.Context, r Reservation, e validEvent, via Provenance, arrived bool) (Receipt, error) {
	to, err := c.templateURL(e.info, "event-upload-template", r.GraceID)
	if err != nil {
		return Receipt{}, err
	}
	fields := []field{{"graceid", r.GraceID}}
	for _, label := range e.Labels {
		fields = append(fields, field{"labels", label})
	}
	fields = appendField(fields, "kafka_server", via.KafkaServer)
	fields = appendField(fields, "kafka_topic", via.KafkaTopic)
	start := time.Now()
	a, err := c.do(ctx, exchange{
		method: http.MethodPost, url: to, repeatable: true,
		body: multipartPayload(fields, e.Filename, e.Data),
	})
	receipt := Receipt{GraceID: r.GraceID, Submitter: r.Submitter, Timing: Timing{Upload: time.Since(start)}}
	if a.status == http.StatusConflict && (a.acted || arrived) {
		c.log.InfoContext(ctx, "gracedb: the event was there already", "graceid", r.GraceID)
		return receipt, nil
	}
	made, err := c.readCreated(ctx, &a, err)
	if err == nil && made.GraceID != r.GraceID {
		err = a.unexpected("is about %s instead of %s", made.GraceID, r.GraceID)
	}
	if err != nil {
		if a.acted {
			err = markUnknown(err, "the event may have been uploaded all the same")
		}
		return Receipt{}, err
	}
	receipt.Warnings = made.Warnings
	if made.Submitter != "" {
		receipt.Submitter = made.Submitter
	}
	return receipt, nil
}

// markUnknown adds to err that what it failed to do may have been done.
func markUnknown(err error, remark string) error {
	return errs.New([]error{unknownOutcome{}, err}, "%s; %s", errs.Reason(err), remark)
}

// An unknownOutcome is ErrOutcomeUnknown without being a Kafka failure.
type unknownOutcome struct{}

func (unknownOutcome) Error() string        { return errs.OutcomeUnknown.Error() }
func (unknownOutcome) Is(target error) bool { return target == errs.OutcomeUnknown }

// dialProblem reports whether err will be the same however often one tries.
func dialProblem(err error) bool {
	if proxy, ok := errors.AsType[*proxyRefusal](err); ok {
		return proxy.lasts()
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return true
	}
	_, cert := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return cert || alert || errors.Is(err, http.ErrSchemeMismatch)
}
