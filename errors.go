package gracedb

import (
	"fmt"
	"net/http"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/gracedbapi"
)

// Kinds of error; test with errors.Is. An error has every kind that applies, and
// those that a kind stands under:
//
//	ErrKafka                any failure of a Producer or Consumer
//	├── ErrProducer
//	│   ├── ErrDelivery     not written, and it will not be: sending again is safe
//	│   │   └── ErrTooLarge
//	│   └── ErrOutcomeUnknown   may or may not have been written
//	└── ErrConsumer
//	ErrAuthentication       the token was refused, by a broker or (401, 403) by GraceDB
//	└── ErrToken            there was no usable token to send
//	ErrConnection           cannot be reached: name, network, TLS, no answer
//	ErrTopic                a topic does not exist or is not allowed
//
// No error text, of whatever kind, holds a token, or 12 letters of one in a row. A cause
// that would show one can be found with errors.Is, but not with errors.As.
var (
	ErrKafka          = errs.Kafka
	ErrProducer       = errs.Producer
	ErrDelivery       = errs.Delivery
	ErrTooLarge       = errs.TooLarge
	ErrOutcomeUnknown = errs.OutcomeUnknown
	ErrConsumer       = errs.Consumer
	ErrAuthentication = errs.Authentication
	ErrToken          = errs.Token
	ErrConnection     = errs.Connection
	ErrTopic          = errs.Topic

	ErrClosed    = errs.Closed
	ErrConfig    = errs.Config
	ErrEvent     = errs.Event
	ErrNotUpload = errs.NotUpload
)

func init() {
	// It may be joined to itself, for each broker.
	errs.Explain(kerr.IllegalSaslState, "a broker takes no new login within a second of the last one: in the last moments of a token, put a newer one in its place")
}

// A ReservedError reports a reserved graceid for which no acknowledgement came. If
// it is also ErrOutcomeUnknown the event may be there, or may arrive until the
// Producer is closed; otherwise the graceid has no data.
type ReservedError struct {
	Reservation Reservation // for PublishOptions.Reservation, or UploadReservedEvent
	Err         error       // why the event is not acknowledged
}

// Error names the graceid and the cause.
func (e *ReservedError) Error() string {
	why := "no cause is given"
	if e.Err != nil {
		why = errs.Reason(e.Err)
	}
	return fmt.Sprintf("gracedb: graceid %s is reserved but its event is not acknowledged: %s",
		errs.Clean(e.Reservation.GraceID), why)
}

// Unwrap returns the cause.
func (e *ReservedError) Unwrap() error { return e.Err }

// A StatusError is an HTTP response other than the one hoped for.
type StatusError struct {
	Method, URL string        // URL without query
	StatusCode  int           // of the last try, such as 503
	Messages    []string      // decoded from the body, whichever form it has
	Body        string        // at most 4 KiB
	RetryAfter  time.Duration // that the server asked for; zero if it did not
	Attempts    int           // how often the request was sent

	advice string // what to do about it; or empty
}

// newStatusError makes the public error of an answer.
func newStatusError(s gracedbapi.Status) error {
	return &StatusError{
		Method: s.Method, URL: s.URL, StatusCode: s.StatusCode, Messages: s.Messages, Body: s.Body,
		RetryAfter: s.RetryAfter, Attempts: s.Attempts, advice: s.Advice,
	}
}

// Error returns one line of method, URL, status and what the server said.
func (e *StatusError) Error() string {
	return gracedbapi.Status{
		Method: e.Method, URL: e.URL, StatusCode: e.StatusCode, Messages: e.Messages,
		RetryAfter: e.RetryAfter, Attempts: e.Attempts, Advice: e.advice,
	}.Text()
}

// Is reports whether target is ErrAuthentication and the status 401 or 403.
func (e *StatusError) Is(target error) bool {
	return target == errs.Tokenless || target == errs.Authentication &&
		(e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden)
}
