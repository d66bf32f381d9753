package token

import (
	"context"
	"errors"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
)

// FindSource returns a source that asks f each time.
func FindSource(f *Finder) Source {
	return func(ctx context.Context) (string, error) {
		found, err := f.Find(ctx)
		if err != nil {
			if _, ok := errors.AsType[*NotFoundError](err); !ok {
				return "", errs.New([]error{errs.Token, err}, "no usable token: %v before one could be looked for", err)
			}
			return "", errs.New([]error{errs.Token, err}, "no usable token (get one with: %s); looked at %v", GetCommand, err)
		}
		for _, text := range found.Warnings {
			if log := hintsFrom(ctx).log; log != nil {
				logonce.Warn(log, "gracedb: "+text)
			}
		}
		NotePlace(found)
		return found.Token, nil
	}
}
