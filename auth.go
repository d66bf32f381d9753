package gracedb

import (
	"context"
	"errors"
	"slices"

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
		token.NotePlace(found.Token, found.Place)
		return found.Token, nil
	}
}

// StaticToken returns a TokenSource that always returns token.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}
