package gracedbapi

import (
	"bytes"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// seeds adds the bodies of the recorded answers.
func seeds(f *testing.F) {
	files, err := filepath.Glob("../../testdata/replies/*.http")
	if err != nil || len(files) == 0 {
		f.Fatalf("no recorded answers: %v", err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		f.Add(body)
	}
}

// Whatever a server answers, what is shown of it is bounded, in one line, and
// without the token.
func FuzzStatusError(f *testing.F) {
	seeds(f)
	const token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
	errs.NoteToken(token)
	f.Add([]byte(`{"detail": "` + token + `"}`))
	f.Add([]byte(strings.Repeat("<a ", 1000)))
	f.Fuzz(func(t *testing.T, body []byte) {
		req := &http.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "gracedb.test", Path: "/api/v2/events/", RawQuery: "q=1"}}
		for _, ct := range []string{"application/json", "text/html", ""} {
			resp := &http.Response{StatusCode: 400, Request: req, Header: http.Header{"Content-Type": {ct}}}
			e := statusOf(resp, body, 0)
			if len(e.Text()) > 1<<10 || len(e.Body) > maxErrorBody || len(e.Messages) > maxMessages || strings.Contains(e.URL, "?") {
				t.Errorf("%d bytes, body %d, %d messages", len(e.Text()), len(e.Body), len(e.Messages))
			}
			for _, s := range append([]string{e.Text(), e.Body}, e.Messages...) {
				if strings.ContainsAny(s, "\n\r\x00\x1b") || !utf8.ValidString(s) || strings.Contains(s, token) {
					t.Errorf("shown: %q", s)
				}
			}
		}
	})
}

// Whatever a server answers to a creation, a graceid that is accepted is fit for a
// URL.
func FuzzDecodeCreated(f *testing.F) {
	seeds(f)
	f.Add([]byte(`{"graceid": "G1001", "submitter": "alice", "warnings": ["w"]}`))
	f.Add([]byte(`{"graceid": "G1/../x", "warnings": {"a": [[["b"]]]}}`))
	f.Add([]byte(`{"graceid": "G1001", "graceid": 7}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := decodeCreated(body)
		if err != nil {
			if len(err.Error()) > 1<<10 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if url.PathEscape(c.GraceID) != c.GraceID || c.GraceID == "" || len(c.Warnings) > maxMessages {
			t.Errorf("%+v", c)
		}
	})
}

// Whatever a root document says, nothing is sent to another place.
func FuzzRootDocument(f *testing.F) {
	seeds(f)
	f.Add([]byte(`{"groups": ["CBC"], "links": {"events": "https://gracedb.test/api/v2/events/"}, "templates": {"event-upload-template": "https://gracedb.test/api/v2/events/{graceid}/upload/"}}`))
	f.Add([]byte(`{"links": {"events": "//evil.test/"}, "templates": {"event-upload-template": "https://gracedb.test@evil.test/{graceid}"}}`))
	f.Add([]byte(`{"links": {"events": "https://gracedb.test:443\\@evil.test/"}}`))
	c, err := New(Config{ServiceURL: "https://gracedb.test/api/"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		info, err := decodeInfo(body)
		if err != nil {
			return
		}
		_ = (Event{Group: "CBC", Pipeline: "gstlal", Labels: []string{"INJ"}}).checkNames(info)
		check := func(u *url.URL, err error) {
			if err != nil {
				return
			}
			req, err := http.NewRequest(http.MethodGet, u.String(), nil)
			if err == nil && (req.URL.Scheme != "https" || !strings.EqualFold(req.URL.Hostname(), "gracedb.test") || portOf(req.URL) != "443" || req.URL.User != nil) {
				t.Errorf("a request would go to %s", req.URL)
			}
		}
		check(c.linkURL(info, "events"))
		check(c.templateURL(info, "event-reserve-template", ""))
		check(c.templateURL(info, "event-upload-template", "G1001"))
	})
}

// A template gives a URL that holds the graceid and has no placeholder left.
func FuzzTemplate(f *testing.F) {
	f.Add("https://gracedb.test/api/v2/events/{graceid}/upload/", "G1001")
	f.Add("https://gracedb.test/{graceid}/{filename}", "G1001")
	f.Add("{graceid}{graceid}", "G1/../x")
	f.Add("{{graceid}}", "T1")
	f.Fuzz(func(t *testing.T, template, id string) {
		got, err := expandTemplate(template, id)
		if err != nil {
			return
		}
		if !strings.Contains(got, id) || strings.ContainsAny(got, "{}") || CheckGraceID(id) != nil {
			t.Errorf("expandTemplate(%q, %q) = %q", template, id, got)
		}
	})
}

// Retry-After, whatever it says, is a wait between nothing and a year.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "0", "-1", "1.5", "1e999", "NaN", "Inf", "abc", "", " 2 ", "999999999999999999999", "Sun, 06 Nov 1994 08:49:37 GMT", "0x10", "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		wait, ok := retryAfter(http.Header{"Retry-After": {s}}, now)
		if wait < 0 || wait > 366*24*time.Hour || !ok && wait != 0 {
			t.Errorf("retryAfter(%q) = %v, %v", s, wait, ok)
		}
	})
}

// A file name that is accepted is a name and no path, and cannot end the header it
// is put into.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"coinc.xml", "/a/b.xml", `C:\x.xml`, "..", "", "a\r\nb", `a"b`, "\x00", "ü", "a/../..", "a&comma;b", "&#47;", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := baseName(name)
		if err != nil {
			return
		}
		if got == "" || got == "." || got == ".." || strings.ContainsAny(got, "/\\\x00") || !strings.HasSuffix(name, got) || utf8.RuneCountInString(got) > maxFilename || strings.Contains(storedName(got), ",") {
			t.Errorf("baseName(%q) = %q", name, got)
		}
		if quoted := escapeQuoted(got); strings.ContainsAny(quoted, "\"\r\n") {
			t.Errorf("%q is quoted as %q", got, quoted)
		}
		if again, err := baseName(got); err != nil || again != got {
			t.Errorf("baseName(%q) = %q, %v", got, again, err)
		}
		_ = contentTypeOf(got)
	})
}

// A graceid that is accepted stays itself in a path.
func FuzzGraceID(f *testing.F) {
	for _, s := range []string{"G1001", "T123456789", "G", "1", "", "G1/..", "G1?x", "g1", "G１", "G1\n", "%471"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if CheckGraceID(id) != nil {
			return
		}
		u, err := url.Parse("https://gracedb.test/api/v2/events/" + id + "/upload/")
		if err != nil || u.Path != "/api/v2/events/"+id+"/upload/" || u.EscapedPath() != u.Path || u.RawQuery != "" || u.Fragment != "" {
			t.Errorf("%q becomes %v, %v", id, u, err)
		}
	})
}
