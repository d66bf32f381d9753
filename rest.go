package gracedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/gracedbapi"
	"github.com/gracedb-go/gracedb/internal/token"
	"github.com/gracedb-go/gracedb/internal/topicname"
	"github.com/gracedb-go/gracedb/internal/wire"
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
	api      *gracedbapi.Client
	service  string      // with a trailing slash, without the version
	instance string      // empty if the host has no name to make one from
	ownToken TokenSource // ClientConfig.Token
	log      *slog.Logger
	// producer is what NewProducer last failed with; nil if it did not.
	producer atomic.Pointer[error]
}

// NewClient returns a Client. It checks cfg but connects to nothing and looks for
// no token. Its errors are ErrConfig.
func NewClient(cfg ClientConfig) (*Client, error) {
	c := &Client{ownToken: cfg.Token, log: cfg.Logger}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	source := token.Asker{Source: token.Source(cfg.Token), Log: c.log}
	var err error
	c.api, err = gracedbapi.New(gracedbapi.Config{
		ServiceURL: cfg.ServiceURL, APIVersion: cfg.APIVersion,
		Token: func(ctx context.Context, refused string) (string, token.Claims, error) {
			t, err := source.Ask(ctx, refused)
			if err != nil {
				return "", token.Claims{}, err
			}
			return t.Raw, t.Claims, nil
		},
		CAFile: cfg.CAFile, HTTP: cfg.HTTP, Retries: cfg.Retries, UserAgent: userAgent, Log: c.log,
		StatusError: newStatusError,
	})
	if err != nil {
		return nil, err
	}
	if source.Source == nil {
		source.Source = token.Source(ReloadToken(FindToken(TokenQuery(c.api.TokenQuery())), defaultReloadBuffer))
	}
	c.service = c.api.ServiceURL()
	if instance, err := topicname.Instance(cfg.ServiceURL); err == nil {
		c.instance = instance
	}
	return c, nil
}

// made returns an error for a Client that no constructor made, or nil.
func (c *Client) made() error {
	if c == nil || c.api == nil {
		return errs.New([]error{errs.Config}, "this Client was not made by NewClient")
	}
	return nil
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
		cfg.Cluster.ServiceURL = c.service
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

// An Event is what CreateEvent uploads and PublishEvent publishes.
//
// Group, Pipeline, Search and Labels are names that the server knows (see
// [ServiceInfo]), with the same case; everything about an Event is checked before
// anything of it is sent.
type Event struct {
	Group, Pipeline, Search string   // Search may be empty
	Labels                  []string // applied to the event when it is created
	Offline                 bool     // found in an offline search
	ReplayID                string   // at most 30 of A-Z a-z 0-9 _ -, or empty
	// Filename is the name to save the file as, such as "coinc.xml", of at most 100
	// characters and without a comma. Directories are dropped. GraceDB undoes HTML
	// entities in it ("a&amp;b.xml" becomes "a&b.xml"), then drops directories once
	// more and what cannot be printed; a quotation mark becomes "%22". Some pipelines'
	// files are read only if the name says what they are: MBTA's has to have ".xml".
	Filename string
	Data     []byte // contents of the file; not empty, and never changed
}

// A Receipt says what became of an event.
type Receipt struct {
	GraceID   string  // empty if PublishOnly
	Submitter string  // who has reserved or created the event
	Message   Message // as acknowledged by the broker, without Value; zero if Kafka was not used
	// Warnings are the server's: it has created the event, but not done all that it
	// should. They are logged, too. Among them are
	//   - "No alert issued": the file could not be read, so that the event has no
	//     time and no FAR, and nobody was told of it
	//   - "Problem issuing an alert": the alert system was down
	//   - "managed as part of an automated process": a label is protected; those that
	//     the server would have applied after it are missing, too
	Warnings []string
	Fallback error  // why HTTP was used although Kafka was asked for, or nil
	Timing   Timing // how long it took
}

// String returns r in one line, for logs: the graceid, how the event went, how long that took,
// and what the server warned of.
func (r Receipt) String() string {
	var b strings.Builder
	b.WriteString(cmp.Or(errs.Clean(r.GraceID), "no graceid"))
	switch {
	case r.Message.Topic != "":
		b.WriteString(" over Kafka: " + r.Message.String())
	case r.GraceID != "":
		b.WriteString(" over HTTP")
	}
	if r.Fallback != nil {
		b.WriteString(" because: " + errs.Reason(r.Fallback))
	}
	for _, step := range []struct {
		name string
		took time.Duration
	}{{"reserve", r.Timing.Reserve}, {"encode", r.Timing.Encode}, {"publish", r.Timing.Publish}, {"upload", r.Timing.Upload}} {
		if step.took > 0 {
			fmt.Fprintf(&b, ", %s %v", step.name, step.took.Round(10*time.Microsecond))
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(&b, "; GraceDB warns: %q", errs.Clean(warning))
	}
	return b.String()
}

// A Timing says how long each step took; a step that was not taken took none. What
// PublishEvent encodes beside Reserve is part of that, and not of Encode.
type Timing struct {
	Reserve time.Duration // a graceid was reserved, with all repetitions
	Encode  time.Duration // the message was made
	Publish time.Duration // a broker acknowledged it
	Upload  time.Duration // the event was uploaded or created over HTTP
}

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

func (c *Client) createEvent(ctx context.Context, e gracedbapi.ValidEvent) (Receipt, error) {
	made, err := c.api.Create(ctx, e)
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{
		GraceID: made.GraceID, Submitter: made.Submitter, Warnings: made.Warnings,
		Timing: Timing{Upload: made.Took},
	}, nil
}

// A Provenance says how a reserved event reached whoever uploads it. An empty
// member is not sent.
type Provenance struct {
	KafkaServer string // where the message was, or why none was
	KafkaTopic  string // full name
}

// UploadReservedEvent completes over HTTP an event whose graceid is reserved. It
// may be repeated: a graceid gets one event. If the server says that the event
// is there already (409), that is success if an earlier try of this call may have
// put it there, and a [*StatusError] otherwise. An error after which the event may
// have been uploaded is ErrOutcomeUnknown.
func (c *Client) UploadReservedEvent(ctx context.Context, graceID string, e Event, via Provenance) (Receipt, error) {
	if err := c.made(); err != nil {
		return Receipt{}, err
	}
	if err := gracedbapi.CheckGraceID(graceID); err != nil {
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
func (c *Client) uploadReserved(ctx context.Context, r Reservation, e gracedbapi.ValidEvent, via Provenance, arrived bool) (Receipt, error) {
	made, err := c.api.Upload(ctx, gracedbapi.Upload{
		GraceID: r.GraceID, KafkaServer: via.KafkaServer, KafkaTopic: via.KafkaTopic, Arrived: arrived,
	}, e)
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{
		GraceID: r.GraceID, Submitter: cmp.Or(made.Submitter, r.Submitter), Warnings: made.Warnings,
		Timing: Timing{Upload: made.Took},
	}, nil
}

// check returns e as it is sent, or what is wrong with it. It sends nothing of it.
func (c *Client) check(ctx context.Context, e Event) (gracedbapi.ValidEvent, error) {
	v, err := c.api.Check(ctx, gracedbapi.Event(e))
	if err != nil {
		return gracedbapi.ValidEvent{}, err
	}
	v.ContentID = wire.ContentID(v.Data)
	return v, nil
}

// WaitUploaded waits until GraceDB has the data of a reserved event, as long as ctx
// allows. It asks for the event after 0, 0.2, 0.4, 0.8, 1.6 and from then on every 2
// seconds, until its processing_status is "uploaded"; a server that has no such
// member shows an event once it has the data. An event that GraceDB does not know
// (404) is waited for, too. Any other refusal is a [*StatusError], and ends the wait.
//
// What is written to a graceid that is only reserved, such as a label, is easily
// missed: followers of GraceDB drop alerts of events without data, and there is no
// second one. Call WaitUploaded after PublishEvent and before you write the label
// that they wait for.
func (c *Client) WaitUploaded(ctx context.Context, graceID string) error {
	if err := c.made(); err != nil {
		return err
	}
	return c.api.WaitUploaded(ctx, graceID)
}

// HTTPClient returns a client for GraceDB's other routes, such as those of logs, labels, files
// and superevents. It adds the token to requests for the service's own origin, follows no
// redirect to another, and refuses any other origin with ErrConfig. Its requests share the
// Client's connections, timeout, certificates and proxies, and wait with the Client's while
// the server throttles.
//
// A token that the server refuses is replaced by another one of the source, if it has one, and
// the request is sent once more, if it has no body or a GetBody, as [http.NewRequest] makes it of
// buffers and strings. Nothing else is repeated: what the status says is the caller's to look
// at, and how much of a body is read. A request that may have changed something although no
// answer came is ErrOutcomeUnknown. A redirect that would make a GET of a POST, such as that of
// a URL without its last slash, is an error.
func (c *Client) HTTPClient() *http.Client {
	if err := c.made(); err != nil {
		return gracedbapi.Refuse(err)
	}
	return c.api.HTTPClient()
}

// A ServiceInfo is the root document of a GraceDB server: what it is and what it
// knows. Names are the server's, and their case matters. A list that the server
// does not give is nil; whether such a name is good is then left to the server.
type ServiceInfo struct {
	ServerVersion string            // such as "2.31.6"
	APIVersions   []string          // that ClientConfig.APIVersion may name
	Groups        []string          // for Event.Group
	Pipelines     []string          // for Event.Pipeline
	Searches      []string          // for Event.Search
	Labels        []string          // for Event.Labels
	Links         map[string]string // URLs by name, such as "events"
	Templates     map[string]string // URLs with placeholders such as {graceid}, by name
}

// ServiceInfo returns what the server says of itself. It is fetched once: by
// whichever call needs it first, and again only if that failed. The result is
// the caller's to keep.
func (c *Client) ServiceInfo(ctx context.Context) (ServiceInfo, error) {
	if err := c.made(); err != nil {
		return ServiceInfo{}, err
	}
	info, err := c.api.ServiceInfo(ctx)
	if err != nil {
		return ServiceInfo{}, err
	}
	s := ServiceInfo(*info)
	for _, list := range []*[]string{&s.APIVersions, &s.Groups, &s.Pipelines, &s.Searches, &s.Labels} {
		*list = slices.Clone(*list)
	}
	s.Links, s.Templates = maps.Clone(s.Links), maps.Clone(s.Templates)
	return s, nil
}
