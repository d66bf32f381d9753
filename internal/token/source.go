package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// A Source returns a token that is valid now, as TokenSource of package gracedb says.
type Source func(ctx context.Context) (string, error)

// GetCommand is the advice that ends the search for a token.
const GetCommand = "htgettoken -a vault.ligo.org -i igwn"

// RetryPause spaces the tries while a token is refused or missing.
const RetryPause = 250 * time.Millisecond

// An Asker asks a source of tokens for one client, of Kafka or of HTTP.
type Asker struct {
	Source Source
	Log    *slog.Logger           // where the source may write
	last   atomic.Pointer[Usable] // the answer before: a token that has not changed is not parsed anew
}

// A Usable is a token that was found fit to be sent, and what it says.
type Usable struct {
	Raw    string
	Claims Claims
}

// Ask asks the source once, for a token other than refused ("" for any), and returns one that may
// be sent. Else the error is ErrToken. It returns at the end of ctx even if the source does not:
// what the source answers then is lost.
func (a *Asker) Ask(ctx context.Context, refused string) (*Usable, error) {
	raw, err := a.answer(WithHints(ctx, refused, a.Log))
	if err != nil {
		return nil, sourceError(err)
	}
	if t := a.last.Load(); t != nil && t.Raw == raw {
		if err := checkExpiry(t.Claims); err != nil {
			return nil, err
		}
		return t, nil
	}
	claims, err := Check(raw)
	if err != nil {
		return nil, err
	}
	t := &Usable{raw, claims}
	a.last.Store(t)
	return t, nil
}

// answer returns what the source says, which may not honour ctx.
func (a *Asker) answer(ctx context.Context) (string, error) {
	var raw string
	err := errEndedGoroutine
	start, done := time.Now(), make(chan struct{})
	go func() {
		defer close(done) // also if the source ends this goroutine
		raw, err = a.Source.ask(ctx)
	}()
	select {
	case <-done:
		return raw, err
	case <-ctx.Done():
		return "", errs.New([]error{errs.Token, ctx.Err()}, "no usable token: the token source has not answered within %v", time.Since(start).Round(time.Millisecond))
	}
}

var errEndedGoroutine = errors.New("the token source ended its goroutine")

// sourceError gives a source's error the kind that it stands for.
func sourceError(err error) error {
	if errors.Is(err, errs.Token) {
		return err
	}
	return errs.New([]error{errs.Token, err}, "no usable token: %s", errs.Reason(err))
}

// ask calls a source of a caller, and makes an error of its panic: the goroutine may be one
// of this package, which no caller can recover. known are tokens that it may have been about.
func (src Source) ask(ctx context.Context, known ...string) (raw string, err error) {
	if src == nil {
		return "", errs.New([]error{errs.Token}, "no usable token: the token source is nil")
	}
	defer func() {
		if p := recover(); p != nil {
			for _, tok := range known {
				errs.NoteToken(tok)
			}
			raw, err = "", errs.New([]error{errs.Token}, "no usable token: the token source panicked: %s", errs.Clean(fmt.Sprint(p)))
		}
	}()
	return src(ctx)
}

// WithHints tells the sources below a call what the caller knows: refused is
// the token that was last refused ("" if none), so that Reload does not hand
// it out again without asking its source; log is where FindSource warns. Plain
// context values, so that a source wrapped by the user's own function still sees
// them.
func WithHints(ctx context.Context, refused string, log *slog.Logger) context.Context {
	return context.WithValue(ctx, hintsKey{}, hints{refused, log})
}

type hintsKey struct{}

type hints struct {
	refused string
	log     *slog.Logger
}

func hintsFrom(ctx context.Context) hints {
	h, _ := ctx.Value(hintsKey{}).(hints)
	return h
}

// bearerPattern is what RFC 6750 (section 2.1) lets a token consist of. Nothing
// else may get into a header or an OAUTHBEARER message.
var bearerPattern = regexp.MustCompile(`^[-A-Za-z0-9._~+/]+=*$`)

// Check returns the claims of what a source returned, or why it is not to be
// sent. A token that cannot be read is: the receiver decides what it is worth, and
// its claims are zero.
func Check(raw string) (Claims, error) {
	if !bearerPattern.MatchString(raw) {
		return Claims{}, errs.New([]error{errs.Token}, "no usable token: what the token source returned is empty or has characters that no token has")
	}
	claims, err := Parse(raw)
	if err != nil {
		return Claims{}, nil //nolint:nilerr // as said above
	}
	return claims, checkExpiry(claims)
}

// checkExpiry returns why a token with these claims is not to be sent any more.
func checkExpiry(claims Claims) error {
	now := time.Now()
	if claims.Expires.IsZero() || now.Before(claims.Expires) {
		return nil
	}
	ago, advice := now.Sub(claims.Expires), GetCommand
	if ago < time.Hour { // a clock that is further ahead is noticed elsewhere
		advice += "; if it is new, check the clock of this machine"
	}
	return errs.New([]error{errs.Token}, "no usable token: the one at hand expired %s ago (get one with: %s)",
		Span(ago), advice)
}
