package sasl

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

const (
	// AskTimeout bounds one authentication's search for a token: kgo gives no
	// deadline, and everything meant for that broker waits behind it.
	AskTimeout = 5 * time.Second
	// refusedHold is how long a token that was refused twice is not shown again:
	// a broker may learn a rotated key, but hardly in less.
	refusedHold = time.Second
)

// maxKafkaToken leaves room for the rest of a request in what brokers take from whom
// they do not know yet: at a longer one they hang up without a word.
const maxKafkaToken = 512<<10 - 1<<10

// A Mechanism is the mechanism. All that it knows of the past is in its state.
type Mechanism struct {
	source token.Asker
	state  *State
}

// New returns a Mechanism that asks src, and tells state what becomes of logins.
func New(src token.Source, state *State) *Mechanism {
	return &Mechanism{source: token.Asker{Source: src, Log: state.Log}, state: state}
}

// Name is that of RFC 7628.
func (*Mechanism) Name() string { return "OAUTHBEARER" }

// Authenticate returns the client's first message. While authentication fails it
// keeps looking for a better token, for at most askTimeout, without troubling the
// broker.
func (m *Mechanism) Authenticate(caller context.Context, host string) (sasl.Session, []byte, error) {
	ctx, cancel := context.WithTimeout(caller, AskTimeout)
	defer cancel()
	for {
		if err := m.state.waitTurn(ctx); err != nil {
			return nil, nil, temporary{err}
		}
		asked := time.Now()
		t, err := m.Ask(ctx)
		if err == nil {
			err = m.state.ending(t.Claims)
		}
		if err != nil {
			m.state.Fail(err)
			continue
		}
		if err := m.state.suspended(t.Raw); err != nil {
			return nil, nil, temporary{err}
		}
		errs.NoteToken(t.Raw)
		auth := oauth.Auth{Token: t.Raw}
		_, first, err := auth.AsMechanism().Authenticate(ctx, host)
		if err != nil {
			return nil, nil, temporary{errs.New([]error{errs.Authentication, err}, "kafka: authentication: %s", errs.Reason(err))}
		}
		return &session{m: m, caller: caller, token: t, host: host, asked: asked}, first, nil
	}
}

// Ask asks the source for a token that Kafka takes.
func (m *Mechanism) Ask(ctx context.Context) (*token.Usable, error) {
	start := time.Now()
	t, err := m.source.Ask(ctx, m.state.refusedToken())
	if err != nil && ctx.Err() != nil {
		// Only the last of several tries was short of time.
		if cause := m.state.Failure(); cause != nil && time.Since(start) < AskTimeout/2 {
			return nil, cause
		}
	}
	if err == nil && len(t.Raw) > maxKafkaToken {
		return nil, errs.New([]error{errs.Token},
			"no usable token: the one at hand has %d bytes, and Kafka takes none of more than 512 KiB (sasl.server.max.receive.size 524288)", len(t.Raw))
	}
	return t, err
}

// A temporary error is one that kgo retries for ever, leaving what is buffered
// alone. Any other error of authentication makes it fail every buffered record.
type temporary struct{ error }

func (temporary) Temporary() bool { return true }
func (t temporary) Unwrap() error { return t.error }

// A session reads the broker's answers to one token.
type session struct {
	m      *Mechanism
	caller context.Context // of Authenticate: Challenge has none
	token  *token.Usable
	host   string
	asked  time.Time // when the source was asked for the token
}

// Format writes what s is, whatever the verb: fmt would write the token.
func (*session) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "a session of gracedb.OAuthBearer")
}

// Challenge ends the exchange. An empty answer means success; anything else is the
// reason for a refusal (RFC 7628 section 3.2.3). It is not acknowledged with
// %x01: the bare code 58 that would follow says less and fails what is buffered.
func (s *session) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) == 0 {
		s.m.state.accept(s.token.Claims)
		return true, nil, nil
	}
	err := refusal(s.host, s.token.Raw, answer)
	if sourceKnew := s.m.state.refused(s.token.Raw, s.asked); sourceKnew {
		s.m.state.Fail(err)
		return false, nil, temporary{err}
	}
	// The token may just have been renewed: only when the source has nothing
	// else, or that is refused too, is this a failure that anybody hears of.
	ctx, cancel := context.WithTimeout(s.caller, AskTimeout)
	defer cancel()
	if other, askErr := s.m.Ask(ctx); askErr != nil || other.Raw == s.token.Raw {
		s.m.state.Fail(err)
	}
	return false, nil, temporary{err}
}
