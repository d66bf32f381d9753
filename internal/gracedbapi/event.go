package gracedbapi

import (
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/graceid"
)

// An Event is an event as its caller gives it.
type Event struct {
	Group, Pipeline, Search string
	Labels                  []string
	Offline                 bool
	ReplayID                string
	Filename                string
	Data                    []byte
}

// maxFilename is the length of GraceDB's column, in characters. It makes the event all
// the same if a name is longer, but does not read the file.
const maxFilename = 100

var replayIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,30}$`)

// checkLocally finds what is wrong with e without asking the server, and returns
// e with its file name made safe.
func (e Event) checkLocally() (Event, error) {
	name, err := baseName(e.Filename)
	if err != nil {
		return e, err
	}
	e.Filename = name
	switch {
	case e.Group == "":
		return e, badEvent("the event has no group")
	case e.Pipeline == "":
		return e, badEvent("the event has no pipeline")
	case e.ReplayID != "" && !replayIDPattern.MatchString(e.ReplayID):
		return e, badEvent("replay_id %q is not 1 to 30 of A-Z a-z 0-9 _ -", errs.Clean(e.ReplayID))
	case len(e.Data) == 0:
		return e, badEvent("the event file %q is empty", name)
	}
	return e, nil
}

// checkNames compares the names in e with those that the server knows.
func (e Event) checkNames(info *Info) error {
	if err := checkName("group", e.Group, info.Groups); err != nil {
		return err
	}
	if err := checkName("pipeline", e.Pipeline, info.Pipelines); err != nil {
		return err
	}
	if e.Search != "" {
		if err := checkName("search", e.Search, info.Searches); err != nil {
			return err
		}
	}
	for _, label := range e.Labels {
		if err := checkName("label", label, info.Labels); err != nil {
			return err
		}
	}
	return nil
}

// checkName returns an ErrEvent unless value is one of names, or the server has not
// said which there are. It repeats the names where they are few enough to be read.
func checkName(what, value string, names []string) error {
	if names == nil || slices.Contains(names, value) {
		return nil
	}
	for _, name := range names {
		if strings.EqualFold(name, value) {
			return badEvent("unknown %s %q: did you mean %q?", what, errs.Clean(value), errs.Clean(name))
		}
	}
	const few = 160 // bytes
	if list := strings.Join(names, ", "); len(names) > 0 && len(list) <= few {
		return badEvent("unknown %s %q: the server knows %s", what, errs.Clean(value), errs.Clean(list))
	}
	return badEvent("unknown %s %q: the server knows %d others", what, errs.Clean(value), len(names))
}

// baseName returns the last element of a path of Unix or Windows, as the server
// would take it, or why it would not: an event whose name is refused only by the
// supervisor's upload has a graceid and no data, and nobody hears of it.
func baseName(name string) (string, error) {
	base := lastElement(name)
	stored := storedName(base)
	switch {
	case base == "" || base == "." || base == "..":
		return "", badEvent("%q is not a file name", errs.Clean(name))
	case !utf8.ValidString(base):
		return "", badEvent("file name %q is not UTF-8", errs.Clean(base))
	case strings.ContainsFunc(base, unicode.IsControl):
		return "", badEvent("file name %q has control characters", errs.Clean(base))
	case stored == "" || stored == "." || stored == "..":
		return "", badEvent("file name %q is none to GraceDB, which undoes HTML entities and drops directories and what cannot be printed", errs.Clean(base))
	case strings.Contains(stored, ","):
		return "", badEvent("file name %q has a comma, which GraceDB does not take", errs.Clean(base))
	case max(utf8.RuneCountInString(base), utf8.RuneCountInString(stored)) > maxFilename:
		return "", badEvent("file name %q is too long: GraceDB takes at most %d characters", errs.Clean(base), maxFilename)
	}
	return base, nil
}

// lastElement returns the last element of a path of Unix or Windows; "" if the path ends in
// a separator.
func lastElement(path string) string { return path[strings.LastIndexAny(path, `/\`)+1:] }

// storedName returns what GraceDB makes of a file name: Django undoes HTML entities,
// drops directories, and then what Python does not call printable.
func storedName(name string) string {
	name = html.UnescapeString(strings.ReplaceAll(name, `"`, "%22"))
	name = lastElement(name)
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)
}

// CheckGraceID guards the URLs that a graceid is put into, whether it comes from
// the caller or from the server.
func CheckGraceID(id string) error {
	if !graceid.Is(id) {
		return badEvent("%q is not a graceid: %s", errs.Clean(id), graceid.Form)
	}
	return nil
}

func badEvent(format string, args ...any) error {
	return errs.New([]error{errs.Event}, format, args...)
}

// expandTemplate puts a graceid into a template of the root document, as text: a
// template is not yet a URL, and {graceid} may stand anywhere in it.
func expandTemplate(template, graceID string) (string, error) {
	const placeholder = "{graceid}"
	if err := CheckGraceID(graceID); err != nil {
		return "", err
	}
	if !strings.Contains(template, placeholder) {
		return "", errs.New(nil, "the server's template %q has no %s", errs.Clean(template), placeholder)
	}
	expanded := strings.ReplaceAll(template, placeholder, graceID)
	if strings.ContainsAny(expanded, "{}") {
		return "", errs.New(nil, "the server's template %q has placeholders other than %s", errs.Clean(template), placeholder)
	}
	return expanded, nil
}

// sameOrigin reports whether two URLs have the same scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) &&
		strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if strings.EqualFold(u.Scheme, "http") {
		return "80"
	}
	return "443"
}
