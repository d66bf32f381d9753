package gracedb_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

// What is wrong with an event is told before anything of it is sent, over whatever
// way it was to go.
func TestEventRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*gracedb.Event)
		want string
	}{
		{"no group", func(e *gracedb.Event) { e.Group = "" }, "no group"},
		{"group", func(e *gracedb.Event) { e.Group = "Nope" }, `unknown group "Nope": the server knows CBC, Burst`},
		{"no pipeline", func(e *gracedb.Event) { e.Pipeline = "" }, "no pipeline"},
		{"pipeline case", func(e *gracedb.Event) { e.Pipeline = "GSTLAL" }, `unknown pipeline "GSTLAL": did you mean "gstlal"?`},
		{"pipeline", func(e *gracedb.Event) { e.Pipeline = "../x?y\r\n" }, `unknown pipeline "../x?y"`},
		{"search case", func(e *gracedb.Event) { e.Search = "allsky" }, `did you mean "AllSky"?`},
		{"label", func(e *gracedb.Event) { e.Labels = []string{"INJ", "NOPE"} }, `unknown label "NOPE"`},
		{"empty label", func(e *gracedb.Event) { e.Labels = []string{""} }, `unknown label ""`},
		{"joined labels", func(e *gracedb.Event) { e.Labels = []string{"INJ,DQV"} }, `unknown label "INJ,DQV"`},
		{"replay_id", func(e *gracedb.Event) { e.ReplayID = "a b&c=ü" }, `replay_id "a b&c=ü"`},
		{"replay_id long", func(e *gracedb.Event) { e.ReplayID = strings.Repeat("r", 31) }, "1 to 30"},
		{"no data", func(e *gracedb.Event) { e.Data = nil }, `"coinc.xml" is empty`},
		{"empty data", func(e *gracedb.Event) { e.Data = []byte{} }, "empty"},
		{"no name", func(e *gracedb.Event) { e.Filename = "" }, `"" is not a file name`},
		{"dot", func(e *gracedb.Event) { e.Filename = "." }, "not a file name"},
		{"dots", func(e *gracedb.Event) { e.Filename = "a/.." }, "not a file name"},
		{"backslash dots", func(e *gracedb.Event) { e.Filename = `a\..` }, "not a file name"},
		{"directory", func(e *gracedb.Event) { e.Filename = "a/b/" }, "not a file name"},
		{"NUL", func(e *gracedb.Event) { e.Filename = "a\x00.xml" }, "control characters"},
		{"not UTF-8", func(e *gracedb.Event) { e.Filename = "a\xff.xml" }, "not UTF-8"},
		{"LF", func(e *gracedb.Event) { e.Filename = "a\nb.xml" }, "control characters"},
		{"CR", func(e *gracedb.Event) { e.Filename = "a\rb.xml" }, "control characters"},
		{"long name", func(e *gracedb.Event) { e.Filename = strings.Repeat("ü", 101) }, "at most 100 characters"},
		{"name that gets too long", func(e *gracedb.Event) { e.Filename = `"` + strings.Repeat("x", 98) }, "at most 100 characters"},
		{"comma", func(e *gracedb.Event) { e.Filename = "coinc.xml,0" }, "has a comma"},
		{"comma in HTML", func(e *gracedb.Event) { e.Filename = "a&#44;b.xml" }, "has a comma"},
		{"slash in HTML", func(e *gracedb.Event) { e.Filename = "a.xml&#47;" }, "is none to GraceDB"},
		{"nothing to print", func(e *gracedb.Event) { e.Filename = "\u200b\u00a0" }, "is none to GraceDB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newService(t, gracetest.Config{}, nil)
			e := event()
			tt.edit(&e)
			calls := map[string]func() error{
				"create":  func() error { _, err := s.Client.CreateEvent(t.Context(), e); return err },
				"reserve": func() error { _, err := s.Client.Reserve(t.Context(), e); return err },
				"upload": func() error {
					_, err := s.Client.UploadReservedEvent(t.Context(), "G1001", e, gracedb.Provenance{})
					return err
				},
				"publish": func() error {
					_, err := s.Client.PublishEvent(t.Context(), nil, e, gracedb.PublishOptions{HTTPFallback: true})
					return err
				},
			}
			for name, call := range calls {
				err := call()
				if !errors.Is(err, gracedb.ErrEvent) || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\r\n\x00") {
					t.Errorf("%s: %q, want an ErrEvent that says %q", name, err, tt.want)
				}
			}
			if got := len(s.Requests()) - s.Count("root"); got != 0 {
				t.Errorf("%d requests beside the root document's", got)
			}
		})
	}
}

func TestLongListsAreNotRepeated(t *testing.T) {
	labels := strings.Fields(strings.Repeat("SOME_LONG_LABEL ", 1000))
	s := newService(t, gracetest.Config{Labels: labels}, nil)
	_, err := s.Client.CreateEvent(t.Context(), event())
	if !errors.Is(err, gracedb.ErrEvent) || !strings.Contains(err.Error(), `unknown label "INJ": the server knows 1000 others`) {
		t.Error(err)
	}
}

// File names arrive as the base name, whatever is in them, and break nothing.
func TestFileNames(t *testing.T) {
	for name, want := range map[string]string{
		"coinc.xml":              "coinc.xml",
		"/a/b/coinc.xml":         "coinc.xml",
		`C:\data\coinc.xml`:      "coinc.xml",
		`a/b\c/d.xml`:            "d.xml",
		`a"b.xml`:                "a%22b.xml", // as browsers and the peer escape it; nobody undoes it
		`a";filename="x.xml`:     "a%22;filename=%22x.xml",
		"a;b c.xml":              "a;b c.xml",
		"gräce-グ😀.xml":           "gräce-グ😀.xml",
		"-":                      "-",
		"~":                      "~",
		"...":                    "...",
		"a%2Fb.xml":              "a%2Fb.xml",
		"<a&b>.xml":              "<a&b>.xml",
		strings.Repeat("ü", 100): strings.Repeat("ü", 100),
		"a,b/coinc.xml":          "coinc.xml",
	} {
		s := newService(t, gracetest.Config{}, nil)
		e := event()
		e.Filename = name
		if _, err := s.Client.CreateEvent(t.Context(), e); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		got := s.Events()[0]
		if got.Filename != want || !bytes.Equal(got.Data, e.Data) || !slices.Equal(got.Labels, e.Labels) {
			t.Errorf("%q arrived as %q, want %q (%+v)", name, got.Filename, want, got)
		}
	}
}

// MBTA's files are read only if they are called XML: whoever calls them otherwise
// hears of it.
func TestUnreadFileIsLogged(t *testing.T) {
	for _, tt := range []struct {
		pipeline, name string
		logged         bool
	}{
		{"MBTA", "initial.data", true},
		{"MBTA", "coinc.xml", false},
		{"MBTA", "coinc.xml.gz", false},
		{"gstlal", "initial.data", false},
	} {
		var said strings.Builder
		s := newService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
		e := event()
		e.Pipeline, e.Filename = tt.pipeline, tt.name
		if _, err := s.Client.CreateEvent(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if logged := strings.Contains(said.String(), "without reading it"); logged != tt.logged {
			t.Errorf("%s, %s: logged %q", tt.pipeline, tt.name, said.String())
		}
	}
}

// Data arrive byte for byte, whatever they are like.
func TestDataRoundTrip(t *testing.T) {
	for name, data := range map[string][]byte{
		"binary":        []byte("\x00\xff\r\n\n\r--boundary\r\n--\r\nContent-Disposition: form-data; name=\"group\"\r\n\r\nTest\r\n"),
		"gzip":          {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 255, 255},
		"ends in CRLF":  []byte("x\r\n"),
		"two megabytes": bytes.Repeat([]byte{1, 2, 3, 0}, 1<<19),
	} {
		s := newService(t, gracetest.Config{}, nil)
		e := event()
		e.Data, e.Filename = data, "x.xml.gz"
		if _, err := s.Client.CreateEvent(t.Context(), e); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := s.Events()[0]; !bytes.Equal(got.Data, data) || got.ContentType != "application/xml" {
			t.Errorf("%s: %d bytes of %s arrived, %d were sent", name, len(got.Data), got.ContentType, len(data))
		}
	}
}

// A large file is sent from where it is.
func TestUploadDoesNotCopy(t *testing.T) {
	// A server that keeps nothing, so that its memory does not count.
	sink := newSink(t)
	client := newClient(t, gracedb.ClientConfig{ServiceURL: sink, Token: tokenIs("t")})
	e := event()
	e.Data = bytes.Repeat([]byte("x"), 32<<20)
	if _, err := client.CreateEvent(t.Context(), event()); err != nil { // warm up
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := client.CreateEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 2<<20 {
		t.Errorf("%d bytes allocated to send %d", got, len(e.Data))
	}
}

// A vector is a submission recorded from the Python client, as far as HTTP goes.
type vector struct {
	Name string
	Call struct {
		Group, Pipeline, Search, Filename string
		Labels                            any
		Offline                           any
		ReplayID                          any    `json:"replay_id"`
		Kind                              string `json:"contents_kind"`
		B64                               string `json:"contents_b64"`
		HTTPFallback                      bool   `json:"http_fallback"`
		Comment                           string
		Upload                            *bool `json:"gracedb_upload"`
	}
	Kafka          *string
	ReserveAnswers string `json:"reserve_answers"`
	Error          string
	HTTP           []struct {
		Method, Path string
		ContentType  string `json:"content_type"`
		Body         string
		Parts        []struct {
			Headers     []string
			B64, SHA256 string
		}
	}
}

// ours are the vectors whose requests differ from the Python client's on purpose:
// by name, why. Those that are also in newNames send the file under that name.
var ours = map[string]string{
	"http/kwargs":                     "an Event has no further fields",
	"http/name-path":                  "base name only",
	"http/name-quote":                 "a backslash separates directories",
	"http/name-empty":                 "a file needs a name: ErrEvent",
	"http/replay-odd":                 "a malformed replay_id is refused before sending: ErrEvent",
	"http/str-empty":                  "an empty file is refused before sending, as the server would: ErrEvent",
	"fallback-upload/str-empty":       "an empty file is refused before sending: ErrEvent",
	"http/file-half-read":             "Data is bytes: there is no position to start from",
	"fallback-reserve/file-half-read": "Data is bytes: there is no position to start from",
	"fallback-reserve/stdin":          "there is no stdin: the name is the caller's",
}

// The requests are those of the Python client, field for field and byte for byte.
// Those with a broker in play are in TestVectorsPublish.
func TestVectorsHTTP(t *testing.T) {
	f, err := os.Open("testdata/vectors/messages.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	replayed := 0
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		if v.Error != "" || v.Kafka != nil && !v.Call.HTTPFallback {
			continue
		}
		replayed++
		t.Run(v.Name, func(t *testing.T) { v.replay(t) })
	}
	if err := lines.Err(); err != nil || replayed < 24 {
		t.Errorf("%d vectors replayed, %v", replayed, err)
	}
}

// eventOf returns the Event that a vector submits.
func (v *vector) eventOf(t *testing.T) gracedb.Event {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(v.Call.B64)
	if err != nil {
		t.Fatal(err)
	}
	if v.Call.Kind == "big" {
		data = make([]byte, 1<<20)
		for i := range data {
			data[i] = byte(7*i + 13*(i>>8) + 5*(i>>16))
		}
	}
	e := gracedb.Event{
		Group: v.Call.Group, Pipeline: v.Call.Pipeline, Search: v.Call.Search, Filename: v.Call.Filename,
		Data: data, Offline: v.Call.Offline == true,
	}
	e.ReplayID, _ = v.Call.ReplayID.(string)
	switch l := v.Call.Labels.(type) {
	case string:
		e.Labels = []string{l}
	case []any:
		for _, x := range l {
			e.Labels = append(e.Labels, x.(string))
		}
	}
	return e
}

func (v *vector) replay(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	e := v.eventOf(t)
	if v.Call.Kind == "stdin" {
		e.Filename = "initial.data"
	}
	var err error
	switch {
	case v.Kafka == nil:
		_, err = s.Client.CreateEvent(t.Context(), e)
	default:
		if v.ReserveAnswers != "" {
			s.Script(gracetest.Fault{On: "reserve", Status: 400, Times: -1})
		}
		_, err = s.Client.PublishEvent(t.Context(), nil, e, gracedb.PublishOptions{HTTPFallback: true})
	}
	why := ours[v.Name]
	if strings.HasSuffix(why, "ErrEvent") {
		if !errors.Is(err, gracedb.ErrEvent) || len(s.Requests()) != s.Count("root") {
			t.Errorf("%v after %d requests; %s", err, len(s.Requests()), why)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	got := slices.DeleteFunc(s.Requests(), func(r gracetest.Request) bool { return r.Method == "GET" })
	if len(got) != len(v.HTTP) {
		t.Fatalf("%d requests, want %d", len(got), len(v.HTTP))
	}
	id := ""
	if r := s.Reservations(); len(r) > 0 {
		id = r[0].GraceID
	}
	for i, want := range v.HTTP {
		r := got[i]
		if id != "" { // it has another letter here than in the recording
			r.Path = strings.ReplaceAll(r.Path, id, "G1001")
		}
		if r.Method != want.Method || r.Path != want.Path || r.ContentType != want.ContentType {
			t.Errorf("request %d: %s %s (%s), want %s %s (%s)", i, r.Method, r.Path, r.ContentType, want.Method, want.Path, want.ContentType)
		}
		if want.Body != "" {
			if strings.HasSuffix(v.Name, "file-half-read") {
				// The peer's content_id is that of the rest of the file.
				want.Body = want.Body[:len(want.Body)-36] + contentIDOf(e.Data)
			}
			if string(r.Body) != want.Body {
				t.Errorf("request %d: body %q, want %q", i, r.Body, want.Body)
			}
			continue
		}
		type part struct {
			Headers []string
			Content string
		}
		var wantParts, gotParts []part
		for _, p := range want.Parts {
			if h := p.Headers[0]; strings.Contains(h, `name="comment"`) {
				continue // of http/kwargs
			}
			if why == "base name only" || why == "a backslash separates directories" {
				p.Headers[0] = strings.NewReplacer(`"/data/run 1/`, `"`, `"a%22b\`, `"`).Replace(p.Headers[0])
			}
			content := p.SHA256
			if content == "" {
				raw, err := base64.StdEncoding.DecodeString(p.B64)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(p.Headers[0], `name="content_id"`) && strings.HasSuffix(v.Name, "file-half-read") {
					raw = []byte(contentIDOf(e.Data)) // the peer's is that of the rest only
				}
				content = sum(raw)
			}
			wantParts = append(wantParts, part{p.Headers, content})
		}
		for _, f := range r.Fields {
			data := f.Data
			if f.Name == "graceid" {
				data = bytes.ReplaceAll(data, []byte(cmp.Or(id, "-")), []byte("G1001"))
			}
			p := part{[]string{"Content-Disposition: " + f.Header.Get("Content-Disposition")}, sum(data)}
			if ct := f.Header.Get("Content-Type"); ct != "" {
				p.Headers = append(p.Headers, "Content-Type: "+ct)
			}
			gotParts = append(gotParts, p)
		}
		if diff := gocmp.Diff(wantParts, gotParts); diff != "" {
			t.Errorf("request %d: parts (-want +got):\n%s", i, diff)
		}
	}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// newSink starts the least of a GraceDB, which reads events and keeps nothing.
func newSink(t *testing.T) (serviceURL string) {
	t.Helper()
	const root = `{"groups":["CBC"],"pipelines":["gstlal"],"searches":["AllSky"],"labels":["INJ","DQV"],"links":{"events":"/api/v2/events/"}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, root)
			return
		}
		_, _ = io.WriteString(w, `{"graceid": "G1001"}`)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/api/"
}
