package gracedb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A kind is a node of the tree above: matching it matches its parents too.
type kind struct {
	text   string
	parent error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.parent }

// A failure is what this package's calls return: one line of text, and all that
// the error is, kinds and causes alike.
type failure struct {
	text string
	is   []error
}

func (f *failure) Error() string   { return prefix + f.text }
func (f *failure) Unwrap() []error { return f.is }

// fail returns an error with the given text that matches all of is. Causes go
// into is; whoever calls puts what is worth reading of them into the text,
// through reason.
func fail(is []error, format string, args ...any) error {
	is = slices.Clone(is)
	for i, err := range is {
		is[i] = veil(err)
	}
	return &failure{text: withoutTokens(fmt.Sprintf(format, args...)), is: is}
}

// reason returns the text of err to stand inside another error: in one line, of
// bounded length, without this package's prefix.
func reason(err error) string {
	if text, ours := strings.CutPrefix(err.Error(), prefix); ours {
		return cleanTextN(text, maxOwnText)
	}
	for _, e := range explained {
		if errors.Is(err, e.err) {
			return e.text
		}
	}
	return cleanText(err.Error())
}

// explained are errors of others whose text tells no user what to do. Written by init
// functions only.
var explained []struct {
	err  error
	text string
}

// explain makes reason say text for errors that match err.
func explain(err error, text string) {
	explained = append(explained, struct {
		err  error
		text string
	}{err, text})
}

// isOurs reports whether err is, or wraps, what fail returned.
func isOurs(err error) bool {
	_, ok := errors.AsType[*failure](err)
	return ok
}

// prefix is what the text of each error of this package begins with.
const prefix = "gracedb: "

const (
	// maxText bounds what one error repeats of a text that it did not write itself.
	maxText = 512
	// maxOwnText bounds what one error repeats of another of this package.
	maxOwnText = 1024
)

// isContextError reports whether the end of a ctx is among the reasons of err.
func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
