package gracedbapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// Limits on what a server may make us hold and show.
const (
	maxReply      = 32 << 20 // body of a good answer, as it comes and inflated
	maxErrorReply = 16 << 10 // body of any other
	maxErrorBody  = 4 << 10  // StatusError.Body
	maxMessages   = 20       // StatusError.Messages and Receipt.Warnings
	maxExcerpt    = 200      // of a body that is not what it should be
	maxWait       = 30 * time.Second
)

// readBody reads at most limit bytes of an answer, as they come and again when they are
// inflated. whole is false if there was more.
func readBody(resp *http.Response, limit int64) (body []byte, whole bool, err error) {
	wire := &io.LimitedReader{R: resp.Body, N: limit + 1}
	r := io.Reader(wire)
	if strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		switch z, err := gzip.NewReader(wire); {
		case errors.Is(err, io.EOF):
			return nil, true, nil // no body at all
		case err != nil:
			return nil, true, err
		default:
			r = z
		}
	}
	body, err = io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(body)) > limit || wire.N <= 0 {
		return body[:min(int64(len(body)), limit)], false, nil
	}
	return body, true, err
}

// A Status is an answer other than the one hoped for. The StatusError of this library
// says what the fields are.
type Status struct {
	Method, URL string
	StatusCode  int
	Messages    []string
	Body        string
	RetryAfter  time.Duration
	Attempts    int
	Advice      string // what to do about it; or empty
}

// Text returns one line of method, URL, status and what the server said.
func (e Status) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "gracedb: %s %s: %d %s", e.Method, e.URL, e.StatusCode, http.StatusText(e.StatusCode))
	if said := strings.Join(e.Messages, "; "); said != "" {
		fmt.Fprintf(&b, ": %s", errs.Clean(said))
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, " (retry after %v)", e.RetryAfter)
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (%d attempts)", e.Attempts)
	}
	switch said := b.String(); {
	case e.Advice == "":
	case strings.HasSuffix(said, "."):
		b.WriteString(" " + strings.ToUpper(e.Advice[:1]) + e.Advice[1:])
	default:
		b.WriteString("; " + e.Advice)
	}
	return b.String()
}

// statusOf returns what there is to say of an answer, which asks to come back after a time.
func statusOf(resp *http.Response, body []byte, after time.Duration) Status {
	e := Status{
		Method:     resp.Request.Method,
		URL:        showURL(resp.Request.URL),
		StatusCode: resp.StatusCode,
		Body:       errs.CleanN(string(body), maxErrorBody),
		RetryAfter: after,
	}
	if resp.StatusCode/100 == 3 {
		// Redirects are refused: the token would follow to wherever they lead.
		e.Messages = []string{"redirects are refused: this one leads to " + redirectTarget(resp)}
		return e
	}
	for _, m := range messagesOf(resp.Header.Get("Content-Type"), body) {
		if m = errs.Clean(m); m != "" && len(e.Messages) < maxMessages {
			e.Messages = append(e.Messages, m)
		}
	}
	return e
}

func redirectTarget(resp *http.Response) string {
	to, err := resp.Location()
	if err != nil {
		return "nowhere"
	}
	return errs.Clean(to.Scheme + "://" + to.Host)
}

// showURL returns u as errors show it: without user, query and fragment.
func showURL(u *url.URL) string {
	return errs.Clean(u.Scheme + "://" + u.Host + u.EscapedPath())
}

// messagesOf finds what a person can read in the body of an error. GraceDB
// answers in six forms: plain text, an object with "detail", "error", "errors" or
// "warnings", and a bare JSON string or list of them; in front of it stand
// gateways that answer in HTML.
func messagesOf(contentType string, body []byte) []string {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil
	}
	var v any
	if json.Unmarshal(body, &v) == nil {
		return textsIn(v, 0)
	}
	if strings.Contains(contentType, "html") || body[0] == '<' {
		return []string{htmlText(body)}
	}
	return []string{excerpt(body)}
}

// textsIn collects the texts of a decoded JSON value.
func textsIn(v any, depth int) (texts []string) {
	if depth > 4 {
		return nil
	}
	switch v := v.(type) {
	case string:
		// Some views encode their answer twice.
		var inner any
		if json.Unmarshal([]byte(v), &inner) == nil {
			switch inner.(type) {
			case map[string]any, []any:
				return textsIn(inner, depth+1)
			}
		}
		// Django escapes what its forms say for HTML, and puts that into JSON.
		return []string{html.UnescapeString(v)}
	case []any:
		for _, x := range v {
			if len(texts) < maxMessages {
				texts = append(texts, textsIn(x, depth+1)...)
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			for _, t := range textsIn(v[key], depth+1) {
				switch key {
				case "detail", "error", "errors", "warnings", "non_field_errors":
				default:
					t = key + ": " + t
				}
				if len(texts) < maxMessages {
					texts = append(texts, t)
				}
			}
		}
	case nil:
	default:
		texts = append(texts, fmt.Sprint(v))
	}
	return texts
}

var (
	htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	htmlTag   = regexp.MustCompile(`(?s)<[^<>]*>`)
	spaces    = regexp.MustCompile(`\s+`)
)

// htmlText returns the title of a page, or what is left of it without its tags.
func htmlText(page []byte) string {
	if m := htmlTitle.FindSubmatch(page); m != nil {
		page = m[1]
	}
	page = htmlTag.ReplaceAll(page, []byte(" "))
	return excerpt([]byte(html.UnescapeString(string(page))))
}

// excerpt returns the beginning of a body that is not what it should be.
func excerpt(body []byte) string {
	body = body[:min(len(body), errs.MaxLook)]
	return errs.CleanN(spaces.ReplaceAllString(string(body), " "), maxExcerpt)
}

// retryAfter reads the Retry-After header, in seconds or as a date. Whatever else
// it says, it is as if it were missing. The result is not yet limited to maxWait:
// the caller of the API may want to know.
func retryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if s == "" {
		return 0, false
	}
	const longest = 365 * 24 * time.Hour
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		// NaN and negative numbers fail the first test, 1e300 and Inf the second.
		if !(seconds >= 0) {
			return 0, false
		}
		if seconds > longest.Seconds() {
			return longest, true
		}
		return time.Duration(seconds * float64(time.Second)), true
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), longest), true
}

// A Created is what GraceDB answers to a reservation, an upload or a creation. It
// says much more, which is the server's to change.
type Created struct {
	GraceID   string
	Submitter string
	Warnings  []string
	damaged   bool // the rest of the answer could not be read
	Took      time.Duration
}

// decodeCreated reads such an answer. Only the graceid has to be there and be one:
// nothing else in the answer is worth losing track of an event that exists.
func decodeCreated(body []byte) (Created, error) {
	fields, err := decodeObject(body)
	if err != nil {
		if id := headGraceID(body); id != "" {
			return Created{GraceID: id, damaged: true}, nil
		}
		return Created{}, errs.New([]error{err}, "is not a JSON object: %q", excerpt(body))
	}
	raw, ok := fields["graceid"]
	if !ok {
		return Created{}, errs.New(nil, "has no graceid: %q", excerpt(body))
	}
	var c Created
	if err := json.Unmarshal(raw, &c.GraceID); err != nil || CheckGraceID(c.GraceID) != nil {
		return Created{}, errs.New(nil, "has a graceid that is none: %q", excerpt(raw))
	}
	if json.Unmarshal(fields["submitter"], &c.Submitter) != nil {
		c.Submitter = ""
	}
	if raw := fields["warnings"]; raw != nil {
		var v any
		if json.Unmarshal(raw, &v) == nil {
			c.Warnings = textsIn(v, 0)
		}
	}
	return c, nil
}
