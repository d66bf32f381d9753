package gracedb

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"

	oauthbearer "github.com/gracedb-go/gracedb/internal/sasl"
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
