package token

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// An ExpiredError says that there was a token, but an expired one.
type ExpiredError struct {
	At  time.Time
	Ago time.Duration
	// fixed: it came from a variable, which nobody can change from outside.
	fixed bool
}

// Error says when the token expired.
func (e *ExpiredError) Error() string {
	s := fmt.Sprintf("its token expired %s ago (%s)", Span(e.Ago), e.At.UTC().Format(time.RFC3339))
	if e.fixed {
		s += "; a variable cannot be renewed while the program runs, a file can"
	}
	return s
}

// Span writes d as people do, without what does not matter: "3h", "2h5m", "40s".
func Span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return strconv.Itoa(int(d/(24*time.Hour))) + " days"
	case d >= time.Minute:
		d = d.Truncate(time.Minute)
		s := strings.TrimSuffix(d.String(), "0s")
		if d >= time.Hour && d%time.Hour == 0 {
			s = strings.TrimSuffix(s, "0m")
		}
		return s
	}
	return d.Truncate(time.Second).String()
}

// A NotFoundError lists all places and why none had a token to use.
type NotFoundError struct {
	places []skipped
	cause  error // what ended the search early, or nil
}

// skipped is what is left of a look in an error: nothing that could hold a token,
// since an error is printed in every way there is.
type skipped struct {
	place string
	err   error
}

func notFound(looks []look, cause error) *NotFoundError {
	e := &NotFoundError{cause: cause}
	for _, l := range looks {
		e.places = append(e.places, skipped{l.place, l.err})
	}
	return e
}

// Error lists the places in order, those that are not set together.
func (e *NotFoundError) Error() string {
	var b strings.Builder
	for i, p := range e.places {
		b.WriteString(p.place)
		last := i+1 == len(e.places)
		if !last && errors.Is(p.err, errUnset) && errors.Is(e.places[i+1].err, errUnset) {
			b.WriteString(", ")
			continue
		}
		fmt.Fprintf(&b, ": %v", p.err)
		if !last {
			b.WriteString("; ")
		}
	}
	return b.String()
}

// Unwrap returns the reasons.
func (e *NotFoundError) Unwrap() []error {
	var errs []error
	for _, p := range e.places {
		if p.err != nil {
			errs = append(errs, p.err)
		}
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

const maxShown = 160

// longRun is what a token has and hardly a file name: its usual beginning, or more
// letters in a row than a checksum has.
var longRun = regexp.MustCompile(`eyJ[-_.A-Za-z0-9]*|[-_.A-Za-z0-9]{65,}`)

// showPath makes a path fit to be shown: printable, not too long, and without what
// may be a token, whole or damaged.
func showPath(path string) string {
	path = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, longRun.ReplaceAllString(path, "[long name]"))
	if r := []rune(path); len(r) > maxShown {
		path = "…" + string(r[len(r)-maxShown:])
	}
	return path
}

// show makes a list of claims fit to be shown.
func show(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	s := strconv.Quote(strings.Join(list, " "))
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}
