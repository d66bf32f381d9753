package gracedb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
	"github.com/gracedb-go/gracedb/internal/token"
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

// getToken is the advice that ends the search for a token.
const getToken = "htgettoken -a vault.ligo.org -i igwn"

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
	return findToken(&token.Finder{Query: token.Query{
		Audience: slices.Clone(q.Audience),
		Scopes:   slices.Clone(q.Scopes),
	}})
}

func findToken(f *token.Finder) TokenSource {
	return func(ctx context.Context) (string, error) {
		found, err := f.Find(ctx)
		if err != nil {
			if _, ok := errors.AsType[*token.NotFoundError](err); !ok {
				return "", errs.New([]error{errs.Token, err}, "no usable token: %v before one could be looked for", err)
			}
			return "", errs.New([]error{errs.Token, err}, "no usable token (get one with: %s); looked at %v", getToken, err)
		}
		for _, text := range found.Warnings {
			if log := tokenHintsFrom(ctx).log; log != nil {
				logonce.Warn(log, "gracedb: "+text)
			}
		}
		tokenPlaces.note(found.Token, found.Place)
		return found.Token, nil
	}
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

// ask calls a source of a caller, and makes an error of its panic: the goroutine may be one
// of this package, which no caller can recover. known are tokens that it may have been about.
func (src TokenSource) ask(ctx context.Context, known ...string) (raw string, err error) {
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

// StaticToken returns a TokenSource that always returns token.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
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
