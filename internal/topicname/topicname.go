// Package topicname knows the names of topics: an instance of GraceDB, a dot, and a
// pipeline. It holds no state.
package topicname

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// Instance returns the first label of the host in serviceURL, in lower case, or an
// ErrConfig.
func Instance(serviceURL string) (string, error) {
	invalid := func(why string) error {
		return errs.New([]error{errs.Config}, "service URL %q: %s", errs.Clean(WithoutUserinfo(serviceURL)), why)
	}
	u, err := url.Parse(strings.TrimSpace(serviceURL))
	if err != nil || u.Hostname() == "" {
		// The parser's own words may repeat a password.
		return "", invalid("no host name in it; it should look like https://gracedb.ligo.org/api/")
	}
	instance, _, _ := strings.Cut(strings.ToLower(u.Hostname()), ".")
	if err := Check(instance); err != nil {
		return "", invalid("its host does not name a GraceDB instance: " + err.Error())
	}
	return instance, nil
}

// WithoutUserinfo hides what comes before the host in rawURL, which may not parse.
func WithoutUserinfo(rawURL string) string {
	if i := strings.LastIndexByte(rawURL, '@'); i >= 0 {
		return "…" + rawURL[i:]
	}
	return rawURL
}

// Join returns the topic of a pipeline on an instance.
func Join(instance, pipeline string) string { return instance + "." + pipeline }

// Split splits a topic name at its first dot; without a dot it is an ErrConfig.
func Split(topic string) (instance, pipeline string, err error) {
	instance, pipeline, ok := strings.Cut(topic, ".")
	if !ok {
		return "", "", errs.New([]error{errs.Config}, "topic %q has no dot: expected instance.pipeline, such as gracedb-dev.gstlal", errs.Clean(topic))
	}
	return instance, pipeline, nil
}

// Route returns the pipeline topic of an event: "test" for group Test in any
// case, else the lower-cased pipeline.
func Route(group, pipeline string) string {
	if strings.ToLower(group) == "test" { // EqualFold would take ſ for s too
		return "test"
	}
	return strings.ToLower(pipeline)
}

// Full returns the full topic name that name stands for on instance: a name
// with a dot is full already.
func Full(instance, name string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return Join(instance, name)
}

// MaxLen is the longest name that brokers allow a topic.
const MaxLen = 249

// Check returns why no broker can have a topic of this name, or nil. The
// caller adds the kind, and what the name was meant for.
func Check(name string) error {
	switch {
	case name == "":
		return errors.New("empty topic name")
	case name == "." || name == "..":
		return fmt.Errorf("topic name %q is not allowed", name)
	case len(name) > MaxLen:
		return fmt.Errorf("topic name of %d bytes: at most %d are allowed", len(name), MaxLen)
	}
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
		default:
			return fmt.Errorf("%q is not allowed in topic name %q: only letters a-z, digits, '.', '_' and '-'", r, errs.Clean(name))
		}
	}
	return nil
}
