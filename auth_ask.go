package gracedb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A tokenSource returns a token that is valid now, as TokenSource of package gracedb says.
type tokenSource func(ctx context.Context) (string, error)

// getToken is the advice that ends the search for a token.
const getToken = "htgettoken -a vault.ligo.org -i igwn"

// An asker asks a source of tokens for one client, of Kafka or of HTTP.
type asker struct {
	src  tokenSource
	log  *slog.Logger              // where the source may write
	last atomic.Pointer[readToken] // the answer before: a token that has not changed is not parsed anew
}

// A readToken is a token that was found fit to be sent, and what it says.
type readToken struct {
	raw    string
	claims token.Claims
}

// ask asks the source once, for a token other than refused ("" for any), and returns one that may
// be sent. Else the error is ErrToken. It returns at the end of ctx even if the source does not:
// what the source answers then is lost.
func (a *asker) ask(ctx context.Context, refused string) (*readToken, error) {
	raw, err := a.answer(withTokenHints(ctx, refused, a.log))
	if err != nil {
		return nil, tokenError(err)
	}
	if t := a.last.Load(); t != nil && t.raw == raw {
		if err := checkExpiry(t.claims); err != nil {
			return nil, err
		}
		return t, nil
	}
	claims, err := usableToken(raw)
	if err != nil {
		return nil, err
	}
	t := &readToken{raw, claims}
	a.last.Store(t)
	return t, nil
}

// answer returns what the source says, which may not honour ctx.
func (a *asker) answer(ctx context.Context) (string, error) {
	var raw string
	err := errEndedGoroutine
	start, done := time.Now(), make(chan struct{})
	go func() {
		defer close(done) // also if the source ends this goroutine
		raw, err = a.src.ask(ctx)
	}()
	select {
	case <-done:
		return raw, err
	case <-ctx.Done():
		return "", errs.New([]error{errs.Token, ctx.Err()}, "no usable token: the token source has not answered within %v", time.Since(start).Round(time.Millisecond))
	}
}

var errEndedGoroutine = errors.New("the token source ended its goroutine")

// tokenError gives a source's error the kind that it stands for.
func tokenError(err error) error {
	if errors.Is(err, errs.Token) {
		return err
	}
	return errs.New([]error{errs.Token, err}, "no usable token: %s", errs.Reason(err))
}

// ask calls a source of a caller, and makes an error of its panic: the goroutine may be one
// of this package, which no caller can recover. known are tokens that it may have been about.
func (src tokenSource) ask(ctx context.Context, known ...string) (raw string, err error) {
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

// withTokenHints tells the sources below a call what the caller knows: refused is
// the token that was last refused ("" if none), so that ReloadToken does not hand
// it out again without asking its source; log is where FindToken warns. Plain
// context values, so that a source wrapped by the user's own function still sees
// them.
func withTokenHints(ctx context.Context, refused string, log *slog.Logger) context.Context {
	return context.WithValue(ctx, tokenHintsKey{}, tokenHints{refused, log})
}

type tokenHintsKey struct{}

type tokenHints struct {
	refused string
	log     *slog.Logger
}

func tokenHintsFrom(ctx context.Context) tokenHints {
	h, _ := ctx.Value(tokenHintsKey{}).(tokenHints)
	return h
}

// bearerPattern is what RFC 6750 (section 2.1) lets a token consist of. Nothing
// else may get into a header or an OAUTHBEARER message.
var bearerPattern = regexp.MustCompile(`^[-A-Za-z0-9._~+/]+=*$`)

// usableToken returns the claims of what a source returned, or why it is not to be
// sent. A token that cannot be read is: the receiver decides what it is worth, and
// its claims are zero.
func usableToken(raw string) (token.Claims, error) {
	if !bearerPattern.MatchString(raw) {
		return token.Claims{}, errs.New([]error{errs.Token}, "no usable token: what the token source returned is empty or has characters that no token has")
	}
	claims, err := token.Parse(raw)
	if err != nil {
		return token.Claims{}, nil //nolint:nilerr // as said above
	}
	return claims, checkExpiry(claims)
}

// checkExpiry returns why a token with these claims is not to be sent any more.
func checkExpiry(claims token.Claims) error {
	now := time.Now()
	if claims.Expires.IsZero() || now.Before(claims.Expires) {
		return nil
	}
	ago, advice := now.Sub(claims.Expires), getToken
	if ago < time.Hour { // a clock that is further ahead is noticed elsewhere
		advice += "; if it is new, check the clock of this machine"
	}
	return errs.New([]error{errs.Token}, "no usable token: the one at hand expired %s ago (get one with: %s)",
		token.Span(ago), advice)
}
