// Package gracedbapi calls the REST API of GraceDB. It knows no Kafka, and of the public types
// of package gracedb only what their fields hold.
//
// Each request goes through Client.do: it asks for a token, sends one try, and judges what became
// of it. A try that got an answer is judged by statusRules, one that got none by lost; the verdict
// says whether there is another try, after how long, and whether the server may have acted.
//
//	wait for the turn ─→ token ─→ try ─→ 2xx: the answer
//	  ↑                            ├─→ the token is refused, for the first time: another token
//	  │                            ├─→ the verdict allows another try, and ctx leaves time: pause
//	  └────────────────────────────┘
//	                               └─→ else: the error
//
// It starts no goroutine of its own: net/http has two for each connection, which end when the
// connection has been idle for 90 seconds, and the pacer a timer of 20 ms while a server
// throttles. The mutexes of pacer, lateToken and trustingTransport are held for some assignments,
// and never two of them at once.
package gracedbapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/tlsroots"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A Config configures a Client.
type Config struct {
	ServiceURL, APIVersion string
	// Token asks for a token other than refused ("" for any) that may be sent. Its error is
	// ErrToken.
	Token  func(ctx context.Context, refused string) (raw string, _ token.Claims, _ error)
	CAFile string
	HTTP   *http.Client // nil for one of this package's own
	// Retries is how often a request that is repeatable is sent again. If zero, it is 5, and
	// while nobody can be connected to, as often as the deadline of ctx allows. If negative,
	// nothing is sent again.
	Retries   int
	UserAgent string
	Log       *slog.Logger
	// StatusError makes the error of an answer. It must read as its text does.
	StatusError func(Status) error
}

// A Client calls the GraceDB REST API. It is safe for concurrent use, and has nothing
// to close.
type Client struct {
	service *url.URL // with a trailing slash, without the version
	root    *url.URL // with the version
	config  Config
	HTTP    *http.Client // sends the requests; a copy of what was given
	trust   *tlsroots.Authorities
	retries int
	// untilDeadline: more than retries while the server is away and ctx has a deadline.
	untilDeadline bool
	log           *slog.Logger
	info          infoCache
	pace          pacer
	shared        sharedConn
	late          lateToken
}

var apiVersionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// New checks cfg but connects to nothing and looks for no token. Its errors are
// ErrConfig.
func New(cfg Config) (*Client, error) {
	service, err := parseServiceURL(cfg.ServiceURL, cfg.APIVersion)
	if err != nil {
		return nil, err
	}
	c := &Client{service: service, config: cfg, retries: cfg.Retries, log: cfg.Log}
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
	if cfg.HTTP != nil && cfg.CAFile != "" {
		return nil, errs.New([]error{errs.Config}, "ClientConfig: set at most one of CAFile and HTTP")
	}
	if c.trust, err = tlsroots.Load(context.Background(), cfg.CAFile, c.log); err != nil {
		return nil, err
	}
	c.trust.Given = cfg.HTTP != nil
	c.HTTP = newHTTPClient(cfg.HTTP, c.trust)
	if c.retries == 0 {
		c.retries, c.untilDeadline = 5, true
	}
	c.info.fetching = make(chan struct{}, 1)
	c.pace.current = make(chan struct{}, 1)
	return c, nil
}

// Create uploads e in one request, without a graceid. If e may exist although it failed,
// the error is ErrOutcomeUnknown.
func (c *Client) Create(ctx context.Context, e ValidEvent) (Created, error) {
	to, err := c.linkURL(e.info, "events")
	if err != nil {
		return Created{}, err
	}
	offline := "False" // as Python writes it: the server takes "0" for true
	if e.Offline {
		offline = "True"
	}
	fields := []field{{"group", e.Group}, {"pipeline", e.Pipeline}, {"offline", offline}, {"content_id", e.ContentID}}
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
		return Created{}, err
	}
	made.Took = time.Since(start)
	return made, nil
}

// Reserve reserves a graceid for e.
func (c *Client) Reserve(ctx context.Context, e ValidEvent) (Created, error) {
	to, err := c.templateURL(e.info, "event-reserve-template", "")
	if err != nil {
		return Created{}, err
	}
	fields := []field{{"group", e.Group}, {"pipeline", e.Pipeline}}
	fields = appendField(fields, "search", e.Search)
	fields = append(fields, field{"content_id", e.ContentID})
	fields = appendField(fields, "replay_id", e.ReplayID)
	a, err := c.do(ctx, exchange{method: http.MethodPost, url: to, body: formPayload(fields), repeatable: true})
	made, err := c.readCreated(ctx, &a, err)
	if a.acted {
		c.log.WarnContext(ctx, "gracedb: the answer to a reservation was lost: a graceid may stay reserved that nobody uses",
			"url", showURL(to))
	}
	return made, err
}

// An Upload is the upload of an event to the graceid that is reserved for it.
type Upload struct {
	GraceID                 string
	KafkaServer, KafkaTopic string // how the event came to whoever uploads it; or empty
	// Arrived says that the event may have come to the server by another way, so that a
	// 409 is no surprise.
	Arrived bool
}

// Upload uploads e. If the server has the event, although it failed, the error is
// ErrOutcomeUnknown.
func (c *Client) Upload(ctx context.Context, u Upload, e ValidEvent) (Created, error) {
	to, err := c.templateURL(e.info, "event-upload-template", u.GraceID)
	if err != nil {
		return Created{}, err
	}
	fields := []field{{"graceid", u.GraceID}}
	for _, label := range e.Labels {
		fields = append(fields, field{"labels", label})
	}
	fields = appendField(fields, "kafka_server", u.KafkaServer)
	fields = appendField(fields, "kafka_topic", u.KafkaTopic)
	start := time.Now()
	a, err := c.do(ctx, exchange{
		method: http.MethodPost, url: to, repeatable: true,
		body: multipartPayload(fields, e.Filename, e.Data),
	})
	took := time.Since(start)
	if a.status == http.StatusConflict && (a.acted || u.Arrived) {
		c.log.InfoContext(ctx, "gracedb: the event was there already", "graceid", u.GraceID)
		return Created{GraceID: u.GraceID, Took: took}, nil
	}
	made, err := c.readCreated(ctx, &a, err)
	if err == nil && made.GraceID != u.GraceID {
		err = a.unexpected("is about %s instead of %s", made.GraceID, u.GraceID)
	}
	if err != nil {
		if a.acted {
			err = markUnknown(err, "the event may have been uploaded all the same")
		}
		return Created{}, err
	}
	made.Took = took
	return made, nil
}

// markUnknown adds to err that what it failed to do may have been done.
func markUnknown(err error, remark string) error {
	return errs.New([]error{unknownOutcome{}, err}, "%s; %s", errs.Reason(err), remark)
}

// An unknownOutcome is ErrOutcomeUnknown without being a Kafka failure.
type unknownOutcome struct{}

func (unknownOutcome) Error() string        { return errs.OutcomeUnknown.Error() }
func (unknownOutcome) Is(target error) bool { return target == errs.OutcomeUnknown }

// ServiceURL returns the root of the service, with a slash at its end.
func (c *Client) ServiceURL() string { return c.service.String() }
