package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Finder looks for tokens. It keeps nothing that it found; it only remembers
// readings that hang. It is safe for concurrent use and must not be copied.
type Finder struct {
	Query
	Tmp string // the directory for temporary files; "/tmp" if empty, whatever TMPDIR says

	readings readings
	readFile func(path string, r rules) (content, error) // nil but in tests
}

// A Found is a token and where it was.
type Found struct {
	Token    string
	Claims   Claims
	Place    string
	Mode     fs.FileMode // of the file; 0 if a variable holds it
	Warnings []string    // what its user should know; the same texts for the same state
}

// rules say how far a file is trusted.
type rules struct {
	ours     bool  // it must belong to the effective user or root
	noFollow bool  // anybody may put files beside it: it must be no link, of either kind
	ifShared bool  // noFollow if anybody may write into its directory
	limit    int64 // of its bytes; if zero, maxFile
}

// A look is one place and what came of looking there.
type look struct {
	place string // its name, fit to be shown
	value string // the text, if a variable holds it
	path  string // the file to read otherwise
	rules rules

	done   bool    // nothing more to be learned by looking again now
	gone   bool    // absent or empty, as it is for a moment while it is renewed
	before *string // what an earlier reading gave, if that may have been half written
	mode   fs.FileMode

	token  string
	claims Claims
	score  int
	err    error // why there is no token
}

const (
	rounds = 5                     // readings of a file that keeps changing
	pause  = 20 * time.Millisecond // between two of them
)

var (
	errUnset     = errors.New("not set")
	errRewritten = errors.New("it is being rewritten")
)

// Find looks at all places, in the order of [Finder.places], and returns the token
// that the query ranks first; of equals the first. The error is ctx's, or a
// *NotFoundError.
func (f *Finder) Find(ctx context.Context) (Found, error) {
	if err := ctx.Err(); err != nil {
		return Found{}, err
	}
	looks := f.places(ctx)
	for round := range rounds {
		if round > 0 && !sleep(ctx, pause) {
			break
		}
		if f.lookAll(ctx, looks) {
			break
		}
		if retryGone := round < 2 && best(looks) == nil; !retryGone && settled(looks) {
			break
		}
	}
	l := best(looks)
	if l == nil {
		return Found{}, notFound(looks, ctx.Err())
	}
	return Found{Token: l.token, Claims: l.claims, Place: l.place, Mode: l.mode, Warnings: f.warnings(l)}, nil
}

// lookAll looks where there is something to learn. It reports whether the search
// is over: nothing is worth another look, or nothing can beat what was found.
func (f *Finder) lookAll(ctx context.Context, looks []look) bool {
	over := true
	for i := range looks {
		l := &looks[i]
		if !l.done || l.gone {
			f.look(ctx, l)
		}
		if !l.done || l.gone {
			over = false
		}
		if l.token != "" && l.score == 0 && settled(looks[:i]) {
			return true
		}
	}
	return over
}

// settled reports whether no file was caught while it was being written.
func settled(looks []look) bool {
	for i := range looks {
		if !looks[i].done {
			return false
		}
	}
	return true
}

func best(looks []look) *look {
	var first *look
	for i := range looks {
		if l := &looks[i]; l.token != "" && (first == nil || l.score < first.score) {
			first = l
		}
	}
	return first
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// places returns where tokens may be, in order. A variable that is set but empty
// counts as not set. Paths named by a variable are taken as they are.
func (f *Finder) places(ctx context.Context) []look {
	const forbid = "IGWN_AUTH_UTILS_FIND_SCITOKEN"
	if v, ok := os.LookupEnv(forbid); ok && !isTrue(v) {
		return []look{{place: "$" + forbid, done: true, err: bad("it forbids to look for a token: unset it, or set it to yes")}}
	}
	looks := make([]look, 0, 8)
	value := func(name string) {
		l := look{place: "$" + name, value: os.Getenv(name)}
		if trim(l.value) == "" {
			l.done, l.err = true, errUnset
			if l.value != "" {
				l.err = errEmpty
			}
		}
		looks = append(looks, l)
	}
	file := func(name, path string, r rules) { looks = append(looks, newFileLook(name, path, r)) }

	value("SCITOKEN")
	file("SCITOKEN_FILE", os.Getenv("SCITOKEN_FILE"), rules{})
	looks = append(looks, f.creds(ctx)...)
	value("BEARER_TOKEN")
	file("BEARER_TOKEN_FILE", os.Getenv("BEARER_TOKEN_FILE"), rules{})
	if !hasUID {
		return looks
	}
	name := "bt_u" + strconv.Itoa(os.Geteuid())
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if runtimeDir != "" {
		runtimeDir = filepath.Join(runtimeDir, name)
	}
	file("XDG_RUNTIME_DIR", runtimeDir, rules{ours: true, ifShared: true})
	if l := &looks[len(looks)-1]; !l.done && !filepath.IsAbs(l.path) {
		l.done, l.err = true, bad("it is not an absolute path")
	}
	tmp := f.Tmp
	if tmp == "" {
		tmp = "/tmp"
	}
	file("", filepath.Join(tmp, name), rules{ours: true, noFollow: true})
	return looks
}

// newFileLook is the look at the file that the variable called name stands for.
func newFileLook(name, path string, r rules) look {
	l := look{place: "$" + name, path: path, rules: r}
	switch {
	case path == "":
		l.done, l.err = true, errUnset
	case holdsToken(path):
		l.done, l.err = true, bad("it holds a token where a path should be")
	case name == "":
		l.place = showPath(path)
	default:
		l.place += " " + showPath(path)
	}
	return l
}

// creds returns the looks at the credentials that HTCondor puts into a directory.
func (f *Finder) creds(ctx context.Context) []look {
	dir := newFileLook("_CONDOR_CREDS", os.Getenv("_CONDOR_CREDS"), rules{})
	if dir.done {
		return []look{dir}
	}
	c, err := f.readings.do(ctx, dir.path, func() (content, error) { return readCreds(dir.path) })
	if err == nil && len(c.names) == 0 {
		err = bad("no *.use file in it")
	}
	if err != nil {
		dir.done, dir.err = true, err
		return []look{dir}
	}
	looks := make([]look, len(c.names))
	for i, path := range c.names {
		looks[i] = newFileLook("_CONDOR_CREDS", path, rules{})
	}
	return looks
}

// look looks at l once.
func (f *Finder) look(ctx context.Context, l *look) {
	if l.path == "" {
		l.done = true
		l.judge(l.value, f.Query)
		return
	}
	read := readFile
	if f.readFile != nil {
		read = f.readFile
	}
	c, err := f.readings.do(ctx, l.path, func() (content, error) { return read(l.path, l.rules) })
	last := l.before
	l.before, l.mode = nil, c.mode
	switch {
	case err != nil:
		l.done, l.gone, l.err = true, errors.Is(err, fs.ErrNotExist), err
	case !c.settled && (last == nil || *last != c.text):
		l.done, l.gone, l.before, l.err = false, false, &c.text, errRewritten
	default:
		l.done = true
		l.judge(unwrap(c.text), f.Query)
		l.gone = errors.Is(l.err, errEmpty)
	}
}

// judge takes the token that raw is, or says why it cannot be taken.
func (l *look) judge(raw string, q Query) {
	raw, now := trim(raw), time.Now()
	claims, err := Parse(raw)
	switch {
	case err != nil:
		l.err = err
	case claims.Expires.IsZero():
		l.err = bad("its token has no exp claim: pass it to StaticToken if it is meant")
	case !claims.Expires.After(now):
		l.err = &ExpiredError{claims.Expires, now.Sub(claims.Expires), l.path == ""}
	default:
		l.token, l.claims, l.score, l.err = raw, claims, q.score(claims, now), nil
	}
}

// warnings says what is wrong with the token that l found. The texts hold no time
// left and the like, so that each can be shown once.
func (f *Finder) warnings(l *look) []string {
	var w []string
	if l.score >= 8 {
		w = append(w, "the token of "+l.place+" is not valid yet, and there is no other: check the clock of this machine")
	}
	if !matches(l.score) {
		w = append(w, fmt.Sprintf("the token of %s may be refused, and there is no better: it has audience %s and scope %s; wanted %s and %s",
			l.place, show(l.claims.Audience), show(l.claims.Scopes), show(f.Audience), show(f.Scopes)))
	}
	if s := l.score % 8; s == 2 || s == 3 || s >= 6 {
		w = append(w, "the token of "+l.place+" expires within a minute, and there is no better")
	}
	if l.path != "" && exposed(l.mode) {
		w = append(w, fmt.Sprintf("the token file %s is open to other users (mode %#o): chmod 600 it", showPath(l.path), l.mode.Perm()))
	}
	return w
}

// unwrap returns the token inside the JSON that some credential monitors write,
// or content as it is.
func unwrap(content string) string {
	if trimmed := trim(content); strings.HasPrefix(trimmed, "{") {
		var fields map[string]json.RawMessage
		if json.Unmarshal([]byte(trimmed), &fields) == nil && text(fields["access_token"]) != "" {
			return text(fields["access_token"])
		}
	}
	return content
}

// trim removes white space as C knows it: not U+00A0, nor a byte order mark.
func trim(s string) string { return strings.Trim(s, " \f\n\r\t\v") }

func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "1", "y", "yes", "true":
		return true
	}
	return false
}

// holdsToken reports whether somebody has put a token where a path belongs.
func holdsToken(path string) bool {
	return strings.Contains(path, "eyJ") && strings.Count(path, ".") >= 2 || len(path) > 100 && checkShape(trim(path)) == nil
}
