package gracedb

import (
	"context"
	"errors"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
	"github.com/gracedb-go/gracedb/internal/token"
)

// findToken returns a source that asks f each time.
func findToken(f *token.Finder) tokenSource {
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
