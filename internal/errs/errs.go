// Package errs holds the kinds of error of package gracedb and makes its errors: one line
// of text, without a token, that matches all that the error is.
//
// It remembers the tokens that this program has shown to brokers and servers of late (by
// the hashes of their pieces), so that no text that goes through Clean or New repeats one.
// It starts no goroutine.
package errs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The kinds of error, as package gracedb documents them.
var (
	Kafka          error = &kind{text: "kafka failure"}
	Producer       error = &kind{text: "kafka producer failure", parent: Kafka}
	Delivery       error = &kind{text: "message not delivered", parent: Producer}
	TooLarge       error = &kind{text: "message too large", parent: Delivery}
	OutcomeUnknown error = &kind{text: "outcome unknown", parent: Producer}
	Consumer       error = &kind{text: "kafka consumer failure", parent: Kafka}
	Authentication error = &kind{text: "authentication failed"}
	Token          error = &kind{text: "no usable token", parent: Authentication}
	Connection     error = &kind{text: "cannot connect"}
	Topic          error = &kind{text: "topic unavailable"}

	Closed    = errors.New("already closed")
	Config    = errors.New("invalid configuration")
	Event     = errors.New("invalid event")
	NotUpload = errors.New("not an upload message")
)

// A kind is a node of the tree that package gracedb documents: matching it matches its parents too.
type kind struct {
	text   string
	parent error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.parent }

// A failure is what the calls of package gracedb return: one line of text, and all that
// the error is, kinds and causes alike.
type failure struct {
	text string
	is   []error
}

func (f *failure) Error() string   { return prefix + f.text }
func (f *failure) Unwrap() []error { return f.is }

// New returns an error with the given text that matches all of is. Causes go
// into is; whoever calls puts what is worth reading of them into the text,
// through Reason.
func New(is []error, format string, args ...any) error {
	is = slices.Clone(is)
	for i, err := range is {
		is[i] = Veil(err)
	}
	return &failure{text: WithoutTokens(fmt.Sprintf(format, args...)), is: is}
}

// Reason returns the text of err to stand inside another error: in one line, of
// bounded length, without the prefix of New.
func Reason(err error) string {
	if text, ours := strings.CutPrefix(err.Error(), prefix); ours {
		return CleanN(text, MaxOwnText)
	}
	for _, e := range explained {
		if errors.Is(err, e.err) {
			return e.text
		}
	}
	return Clean(err.Error())
}

// explained are errors of others whose text tells no user what to do. Written by init
// functions only.
var explained []struct {
	err  error
	text string
}

// Explain makes Reason say text for errors that match err.
func Explain(err error, text string) {
	explained = append(explained, struct {
		err  error
		text string
	}{err, text})
}

// IsOurs reports whether err is, or wraps, what New returned.
func IsOurs(err error) bool {
	_, ok := errors.AsType[*failure](err)
	return ok
}

// prefix is what the text of each error of package gracedb begins with.
const prefix = "gracedb: "

const (
	// MaxText bounds what one error repeats of a text that it did not write itself.
	MaxText = 512
	// MaxOwnText bounds what one error repeats of another that New made.
	MaxOwnText = 1024
)

// IsContext reports whether the end of a ctx is among the reasons of err.
func IsContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
