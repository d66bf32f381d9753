package gracedb

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/gracedbapi"
	"github.com/gracedb-go/gracedb/internal/topicname"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// A Reservation is a graceid that waits for its event.
type Reservation struct {
	GraceID   string // such as "G1001"
	Submitter string // who has reserved it, as the server knows them
}

// Reserve reserves a graceid for e. It sends no event data, only what identifies
// it. If the answer to a reservation is lost, another one is made, and the graceid
// of the first, which nobody knows, is never used.
//
// If the server does not reserve graceids, the error is errors.ErrUnsupported.
func (c *Client) Reserve(ctx context.Context, e Event) (Reservation, error) {
	if err := c.made(); err != nil {
		return Reservation{}, err
	}
	ce, err := c.check(ctx, e)
	if err != nil {
		return Reservation{}, err
	}
	return c.reserve(ctx, ce)
}

// reserve is Reserve for an event that was checked.
func (c *Client) reserve(ctx context.Context, e gracedbapi.ValidEvent) (Reservation, error) {
	made, err := c.api.Reserve(ctx, e)
	if err != nil {
		return Reservation{}, err
	}
	return Reservation{GraceID: made.GraceID, Submitter: made.Submitter}, nil
}

// PublishOptions adjust PublishEvent; the zero value reserves, publishes and
// never falls back.
type PublishOptions struct {
	// Topic is a pipeline name or a full topic name. If empty, it is "test" for
	// group Test, else the lowercased pipeline; ProducerConfig.Topic is not used.
	Topic string
	// Reservation is used instead of reserving a graceid, for example that of a
	// ReservedError.
	Reservation *Reservation
	// HTTPFallback finishes over HTTP if Kafka fails (UploadReservedEvent) or the
	// reservation does, other than by 401 or 403 (CreateEvent). It does so at once where a
	// broker throttles the Producer for longer than FlushTimeout.
	HTTPFallback bool
	// PublishOnly publishes without reserving a graceid or server-side processing.
	// It excludes Reservation and HTTPFallback. The message's key, else the graceid, is the
	// event's content id then.
	PublishOnly bool
	// SkipSupervisor asks the server's supervisor to ignore the message.
	SkipSupervisor bool
}

// kafkaFailed is what the server is told of an event that Kafka did not carry; the
// Python client says the same.
const kafkaFailed = "kafka delivery failed, reverted to http"

// PublishEvent reserves a graceid over HTTP, publishes e through p and returns
// once the broker has acknowledged it. All that can be checked beforehand is
// checked before a graceid is reserved: the event, its size, the topic, the
// producer. An error after the reservation is a [*ReservedError], which holds the
// graceid.
//
// With HTTPFallback p may be nil, or fail in any way: the event then goes to the
// reserved graceid over HTTP, and Receipt.Fallback says why; for a nil p, that is what
// the Client's NewProducer last failed with. If Kafka's answer
// does not come within FlushTimeout, the record cannot be withdrawn and the server
// may receive both, for one graceid: Receipt.Fallback is ErrOutcomeUnknown then.
// A Receipt without Message means HTTP, one without Fallback means Kafka.
//
// p must publish to the instance that c uploads to. Whatever fails because ctx
// ended does not fall back.
func (c *Client) PublishEvent(ctx context.Context, p *Producer, e Event, opts PublishOptions) (Receipt, error) {
	if err := c.made(); err != nil {
		return Receipt{}, err
	}
	if err := c.checkPublish(p, opts); err != nil {
		return Receipt{}, err
	}
	if p != nil {
		ctx = gracedbapi.WithGrace(ctx, p.core.Grace())
	}
	ce, err := c.check(ctx, e)
	if err != nil {
		return Receipt{}, err
	}
	var receipt Receipt
	u := c.upload(ce, opts)

	// kafka is what keeps Kafka from carrying the event, where HTTP still may.
	kafka := c.preflight(ctx, p, opts.Topic, u)
	if kafka != nil && !mayFallBack(ctx, kafka, opts) {
		return Receipt{}, reservedError(opts.Reservation, kafka)
	}
	reservation := opts.Reservation
	var d wire.Draft
	if reservation == nil && !opts.PublishOnly {
		start := time.Now()
		var made Reservation
		made, d, err = c.reserveAndDraft(ctx, ce, u, kafka == nil)
		receipt.Timing.Reserve = time.Since(start)
		switch {
		case err == nil:
			reservation = &made
		case errors.Is(err, errs.Authentication) || !mayFallBack(ctx, err, opts):
			return Receipt{}, err
		default:
			return c.fallBackToCreate(ctx, ce, joinErr(kafka, err), receipt.Timing)
		}
	}
	if reservation != nil {
		u.GraceID, u.Submitter = reservation.GraceID, reservation.Submitter
		receipt.GraceID, receipt.Submitter = reservation.GraceID, reservation.Submitter
	}
	if kafka == nil {
		receipt.Message, kafka = publish(ctx, p, opts, u, &d, &receipt.Timing)
	}
	switch {
	case kafka == nil:
		return receipt, nil
	case !mayFallBack(ctx, kafka, opts):
		return Receipt{}, reservedError(reservation, kafka)
	}
	return c.fallBackToUpload(ctx, *reservation, ce, kafka, receipt.Timing)
}

// upload returns e as it travels over Kafka, but for its graceid.
func (c *Client) upload(e gracedbapi.ValidEvent, opts PublishOptions) Upload {
	return Upload{
		Server: c.service, Pipeline: e.Pipeline, Group: e.Group, Search: e.Search,
		Labels: e.Labels, Offline: e.Offline, ReplayID: e.ReplayID,
		Filename: e.Filename, Data: e.Data, ContentID: e.ContentID, Time: time.Now(),
		PublishOnly: opts.PublishOnly, SkipSupervisor: opts.SkipSupervisor,
	}
}

// Event returns what u carries as an Event, for whoever uploads it to GraceDB. The
// file name loses its directories. Labels and Data are u's own, not copies.
func (u Upload) Event() Event {
	return Event{
		Group:    u.Group,
		Pipeline: u.Pipeline,
		Search:   u.Search,
		Labels:   u.Labels,
		Offline:  u.Offline,
		ReplayID: u.ReplayID,
		Filename: wire.FileName(strings.ReplaceAll(u.Filename, `\`, "/")), // of Windows, too
		Data:     u.Data,
	}
}

// topicOf returns the full name of the topic that u goes to.
func topicOf(p *Producer, name string, u Upload) string {
	if name == "" {
		name = topicname.Route(u.Group, u.Pipeline)
	}
	return topicname.Full(p.core.Instance(), name)
}

// reservedError adds to err the graceid that is reserved, if one is.
func reservedError(r *Reservation, err error) error {
	if r == nil {
		return err
	}
	return &ReservedError{*r, err}
}

// checkPublish finds what is wrong with a call whatever the event is.
func (c *Client) checkPublish(p *Producer, opts PublishOptions) error {
	bad := func(format string, args ...any) error {
		return errs.New([]error{errs.Config}, "PublishEvent: "+format, args...)
	}
	switch {
	case opts.PublishOnly && opts.HTTPFallback:
		return bad("PublishOnly excludes HTTPFallback: there is nothing to upload to")
	case opts.PublishOnly && opts.Reservation != nil:
		return bad("PublishOnly excludes Reservation")
	case p == nil && !opts.HTTPFallback:
		return bad("a Producer is required without HTTPFallback")
	case p != nil && p.made() != nil:
		return p.made()
	case p != nil && p.core.Instance() != c.instance:
		return bad("the Producer is for instance %q, the Client for %q (%s)", p.core.Instance(), c.instance, c.service)
	}
	if opts.Reservation != nil {
		return gracedbapi.CheckGraceID(opts.Reservation.GraceID)
	}
	return nil
}

// preflight finds what would keep u from being published, before a graceid is
// used up for it. The size is short by what only the reservation will tell, some
// tens of bytes: better a refusal afterwards than one of an event that fits.
func (c *Client) preflight(ctx context.Context, p *Producer, topic string, u Upload) error {
	if p == nil {
		return c.noProducer()
	}
	err := p.core.Ready(ctx, topicOf(p, topic, u), wire.Size(wire.Upload(u)))
	if errors.Is(err, errs.TooLarge) {
		return errs.New([]error{err}, "%s: base64 adds a third to the %d bytes of the file, which may have three quarters of the limit; "+
			"HTTPFallback uploads it over HTTP", errs.Reason(err), len(u.Data))
	}
	if errors.Is(err, errs.Kafka) && !errors.Is(err, errs.Delivery) {
		return errs.New([]error{errs.Delivery, err}, "%s", errs.Reason(err)) // for certain
	}
	return err
}

// draftFrom is how many bytes of data are worth a goroutine.
const draftFrom = 16 << 10

// reserveAndDraft reserves a graceid. While that is under way it begins the value of u, if
// that will be wanted and takes long enough.
func (c *Client) reserveAndDraft(ctx context.Context, e gracedbapi.ValidEvent, u Upload, wanted bool) (r Reservation, d wire.Draft, err error) {
	var drafting sync.WaitGroup
	if wanted && len(u.Data) >= draftFrom {
		drafting.Go(func() { d = wire.NewDraft(wire.Upload(u)) })
	}
	r, err = c.reserve(ctx, e)
	drafting.Wait() // it reads the caller's data
	return r, d, err
}

// publish completes the value of u, of which d may be a beginning, and publishes it.
func publish(ctx context.Context, p *Producer, opts PublishOptions, u Upload, d *wire.Draft, t *Timing) (Message, error) {
	if err := ctx.Err(); err != nil {
		return Message{}, errs.New([]error{errs.Delivery, err}, "not published: %s", errs.Reason(err))
	}
	start := time.Now()
	u.Time = start
	m := Message{Topic: topicOf(p, opts.Topic, u), Key: []byte(cmp.Or(u.GraceID, u.ContentID)), Value: d.Complete(wire.Upload(u))}
	encoded := time.Now()
	// Before HTTP takes over, the record's outcome is waited for even where the
	// token is refused meanwhile.
	r, err := p.core.Publish(ctx, record(m), opts.HTTPFallback)
	t.Encode, t.Publish = encoded.Sub(start), time.Since(encoded)
	if err != nil {
		return Message{}, err
	}
	m.Value = nil // the event once more, which the caller has
	return acknowledged(m, r), nil
}

// mayFallBack reports whether HTTP may do what failed with err.
func mayFallBack(ctx context.Context, err error, opts PublishOptions) bool {
	return opts.HTTPFallback && ctx.Err() == nil && !errors.Is(err, errs.Event) && !errors.Is(err, errs.Config)
}

// fallBackToCreate uploads e for which no graceid could be reserved.
func (c *Client) fallBackToCreate(ctx context.Context, e gracedbapi.ValidEvent, cause error, t Timing) (Receipt, error) {
	c.log.WarnContext(ctx, "gracedb: no graceid could be reserved: creating the event over HTTP", "cause", errs.Reason(cause))
	receipt, err := c.createEvent(ctx, e)
	if err != nil {
		return Receipt{}, joinErr(cause, err)
	}
	t.Upload = receipt.Timing.Upload
	receipt.Fallback, receipt.Timing = cause, t
	return receipt, nil
}

// fallBackToUpload uploads an event that Kafka did not carry, or not for certain,
// to its graceid.
func (c *Client) fallBackToUpload(ctx context.Context, r Reservation, e gracedbapi.ValidEvent, cause error, t Timing) (Receipt, error) {
	c.log.WarnContext(ctx, "gracedb: Kafka failed: uploading the event over HTTP", "graceid", r.GraceID, "cause", errs.Reason(cause))
	arrived := errors.Is(cause, errs.OutcomeUnknown)
	receipt, err := c.uploadReserved(ctx, r, e, Provenance{KafkaServer: kafkaFailed}, arrived)
	if err != nil {
		return Receipt{}, &ReservedError{r, joinErr(cause, err)}
	}
	t.Upload = receipt.Timing.Upload
	receipt.Fallback, receipt.Timing = cause, t
	return receipt, nil
}

// joinErr returns an error that is first and second, of which first may be nil. If
// the second left its outcome open, the first's ErrDelivery no longer says that
// sending again is safe, and is left out.
func joinErr(first, second error) error {
	if first == nil {
		return second
	}
	if errors.Is(second, errs.OutcomeUnknown) {
		first = notDelivery{first}
	}
	return errs.New([]error{first, second}, "%s; then over HTTP: %s", errs.Reason(first), errs.Reason(second))
}

// A notDelivery is err but for being ErrDelivery.
type notDelivery struct{ err error }

func (n notDelivery) Error() string { return n.err.Error() }
func (n notDelivery) Is(target error) bool {
	return target != errs.Delivery && errors.Is(n.err, target)
}
func (n notDelivery) As(target any) bool { return errors.As(n.err, target) }
