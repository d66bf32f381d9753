package faults_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// recorded reads an answer of testdata/replies as a fault.
func recorded(t *testing.T, name string) gracetest.Fault {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "replies", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return gracetest.Fault{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
}

// Whatever form an error of the server has, its Messages say what a person needs.
func TestErrorShapes(t *testing.T) {
	want := map[string][]string{
		"detail":         {"Request was throttled. Expected available in 1 second."},
		"error":          {"Please provide a valid pipeline."},
		"errors":         {"labels: * Select a valid choice. NOPE is not one of the available choices.", "eventFile: * The submitted file is empty."},
		"warnings":       {"Problem creating event (no such group)"},
		"text":           {"You don't have permission on this pipeline."},
		"json-string":    {"replay_id: too long"},
		"json-list":      {"one", "two"},
		"serializer":     {"Both.", "replay_id: Too long."},
		"json-in-json":   {"bad label"},
		"html-gateway":   {"502 Bad Gateway"},
		"html-no-title":  {"Server Error (500) Sorry & goodbye"},
		"truncated-json": {`{"errors":["labels: * Select a valid ch`},
		"empty":          nil,
		"ansi":           {"[2J[31mred secondline"},
		"numbers":        {"42", "ok: false"},
		"utf16":          {`{"detail":"BOM"}`},
	}
	files, err := filepath.Glob("../../testdata/replies/*.http")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%d recorded answers, want %d (%v)", len(files), len(want), err)
	}
	for name, messages := range want {
		t.Run(name, func(t *testing.T) {
			s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.Retries = -1 })
			f := recorded(t, name)
			f.On = "reserve"
			s.Script(f)
			err := s.Call(t.Context(), "reserve")
			status, ok := errors.AsType[*gracedb.StatusError](err)
			if !ok {
				t.Fatalf("%v is not a StatusError", err)
			}
			if diff := cmp.Diff(messages, status.Messages); diff != "" {
				t.Errorf("Messages (-want +got):\n%s", diff)
			}
			if status.Method != "POST" || status.URL != s.URL()+"v2/events/reserve/" || status.StatusCode != f.Status || status.Attempts != 1 {
				t.Errorf("%+v", status)
			}
			if len(messages) > 0 && !strings.Contains(err.Error(), messages[0]) {
				t.Errorf("%v does not say %q", err, messages[0])
			}
			if strings.ContainsAny(err.Error()+status.Body, "\n\x1b\x00") {
				t.Errorf("control characters: %q, body %q", err, status.Body)
			}
			if name == "detail" && status.RetryAfter != time.Second {
				t.Errorf("RetryAfter = %v, want 1s", status.RetryAfter)
			}
		})
	}
}

// badAnswers are 2xx answers without what was asked for, and what the error says.
var badAnswers = []struct{ name, body, want string }{
	{"HTML", "<html><head><title>Log in</title></head></html>", "not a JSON object"},
	{"empty", "", "not a JSON object"},
	{"truncated", `{"graceid": "G10`, "not a JSON object"},
	{"list", `[{"graceid": "G1001"}]`, "not a JSON object"},
	{"null", `null`, "no graceid"},
	{"no graceid", `{"submitter": "alice"}`, "no graceid"},
	{"graceid null", `{"graceid": null}`, "graceid that is none"},
	{"graceid number", `{"graceid": 1001}`, "graceid that is none"},
	{"graceid path", `{"graceid": "G1/../../x"}`, "graceid that is none"},
	{"graceid query", `{"graceid": "G1?x=1"}`, "graceid that is none"},
	{"graceid CRLF", `{"graceid": "G1\r\nX: y"}`, "graceid that is none"},
	{"graceid empty", `{"graceid": ""}`, "graceid that is none"},
	{"deep", strings.Repeat("[", 10_000), "not a JSON object"},
	{"deep inside", `{"graceid":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, "graceid that is none"},
}

// H6, S8: a 2xx that is not what it should be is an error that names what is
// missing, shows little of it, and leaves nothing half done.
func TestFault_H6_GoodStatusBadAnswer(t *testing.T) {
	for _, tt := range badAnswers {
		for _, kind := range []string{"reserve", "upload", "create"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				s := testrig.NewService(t, gracetest.Config{}, nil)
				s.Script(gracetest.Fault{On: kind, Status: 201, Body: tt.body})
				err := s.Call(t.Context(), kind)
				status, ok := errors.AsType[*gracedb.StatusError](err)
				if !ok || status.StatusCode != 201 || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 512 {
					t.Fatalf("%v, want a StatusError of 201 that says %q", err, tt.want)
				}
				if n := s.Count(kind); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
				if got := errors.Is(err, gracedb.ErrOutcomeUnknown); got != (kind != "reserve") {
					t.Errorf("%v: is ErrOutcomeUnknown: %v", err, got)
				}
			})
		}
	}
	t.Run("upload about another event", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{}, nil)
		s.Script(gracetest.Fault{On: "upload", Status: 201, Body: `{"graceid": "G7777"}`})
		err := s.Call(t.Context(), "upload")
		if !errors.Is(err, gracedb.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "is about G7777 instead of G1001") {
			t.Error(err)
		}
	})
}

// Only the graceid has to be there: no oddity in the rest loses an event.
func TestAnswerTolerance(t *testing.T) {
	for _, tt := range []struct {
		body      string
		submitter string
		warnings  []string
	}{
		{`{"graceid": "G1001", "submitter": "bob", "warnings": ["w"], "far": null, "superevent_neighbours": {"S1": {}}}`, "bob", []string{"w"}},
		{`{"graceid": "G1001", "superevent_neighbours": []}`, "", nil},
		{`{"graceid": "G1001", "submitter": 7, "warnings": "one"}`, "", []string{"one"}},
		{`{"graceid": "G1001", "submitter": null, "warnings": null}`, "", nil},
		{`{"graceid": "M1234567", "submitter": "a\u001bb"}`, "ab", nil},
		// Python writes these, and so may GraceDB: an event's FAR is a float.
		{`{"graceid": "G1001", "far": Infinity, "x": [NaN, -Infinity, -1], "submitter": "N\"NaN", "warnings": ["NaN"]}`, `N"NaN`, []string{"NaN"}},
		{"\ufeff" + `{"graceid": "G1001", "submitter": "bob", "warnings": ["w"]}`, "bob", []string{"w"}},
		{`{"graceid": "G1001", "warnings": ["[&quot;INJ&quot;] &amp; &#x27;x&#x27;"]}`, "", []string{`["INJ"] & 'x'`}},
		{`{"graceid": "G1001", "extra": "` + strings.Repeat("x", 31<<20) + `", "warnings": ["w"]}`, "", []string{"w"}},
	} {
		s := testrig.NewService(t, gracetest.Config{}, nil)
		s.Script(gracetest.Fault{On: "create", Status: 201, Body: tt.body})
		r, err := s.Client.CreateEvent(t.Context(), testrig.Event())
		if err != nil || r.Submitter != tt.submitter || !cmp.Equal(r.Warnings, tt.warnings) {
			t.Errorf("%.200s: %+v, %v", tt.body, r, err)
		}
	}
}

// Where an answer is too long, cut short or damaged behind the graceid, the event is
// there, and its graceid is known.
func TestGraceIDAtTheHead(t *testing.T) {
	long := `, "extra_attributes": "` + strings.Repeat("x", 33<<20) + `"}`
	for _, tt := range []struct {
		name  string
		fault gracetest.Fault
		known bool
	}{
		{"too long", gracetest.Fault{Body: `{"submitter": "alice", "graceid": "G1001"` + long}, true},
		{"cut", gracetest.Fault{Body: `{"submitter": "alice", "far": NaN, "graceid": "G1001", "x": "` + strings.Repeat("x", 1000), Half: true}, true},
		{"cut behind it", gracetest.Fault{Body: `{"graceid": "G1001"`}, true},
		{"damaged", gracetest.Fault{Body: `{"graceid": "G1001", "far": inf, "labels": []}`}, true},
		{"two answers", gracetest.Fault{Body: `{"graceid": "G1001"}{"graceid": "G1002"}`}, true},
		{"cut in it", gracetest.Fault{Body: `{"graceid": "G1001`}, false},
		{"no graceid", gracetest.Fault{Body: `{"graceid": "../..", "x": inf}`}, false},
		{"another's graceid", gracetest.Fault{Body: `{"superevent": {"graceid": "G1001"}, "x": inf}`}, false},
		{"behind the damage", gracetest.Fault{Body: `{"x": inf, "graceid": "G1001"}`}, false},
	} {
		for _, kind := range []string{"reserve", "upload", "create"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				var said strings.Builder
				s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) {
					c.Logger = slog.New(slog.NewTextHandler(&said, nil))
				})
				f := tt.fault
				f.On, f.Status, f.Times = kind, 201, -1
				s.Script(f)
				if err := s.Call(t.Context(), kind); (err == nil) != tt.known {
					t.Errorf("%v, want success %v", err, tt.known)
				}
				if n := s.Count(kind); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
				if logged := strings.Contains(said.String(), "level=WARN") && strings.Contains(said.String(), "graceid=G1001"); logged != tt.known {
					t.Errorf("logged %q", said.String())
				}
			})
		}
	}
}

// Warnings are logged, since a 201 with one may be an alert that nobody gets.
func TestWarningsAreLogged(t *testing.T) {
	for _, kind := range []string{"upload", "create"} {
		var said strings.Builder
		s := testrig.NewService(t, gracetest.Config{
			Warnings: func(gracetest.Event) []string { return []string{"Problem scanning data. No alert issued (x)"} },
		}, func(c *gracedb.ClientConfig) { c.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
		if err := s.Call(t.Context(), kind); err != nil {
			t.Fatal(err)
		}
		if got := said.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "graceid=G1001") || !strings.Contains(got, "No alert issued") {
			t.Errorf("%s: logged %q", kind, got)
		}
	}
}

// S8: no answer makes us hold more than its limit, however small it is on the wire.
func TestFault_S8_HugeAnswers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault gracetest.Fault
		want  string
	}{
		{"gzip bomb", gracetest.Fault{Bomb: 1 << 30}, "more than 33554432 bytes"},
		{"long answer", gracetest.Fault{Status: 200, Body: strings.Repeat(" ", 33<<20)}, "more than 33554432 bytes"},
		{"long error", gracetest.Fault{Status: 400, Body: strings.Repeat("x", 10<<20)}, "400 Bad Request"},
		{"many errors", gracetest.Fault{Status: 400, Body: `{"errors": [` + strings.Repeat(`"e",`, 15_000) + `"e"]}`}, "400 Bad Request"},
		{"deep error", gracetest.Fault{Status: 400, Body: strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)}, "400 Bad Request"},
		{"angle brackets", gracetest.Fault{Status: 500, Body: strings.Repeat("<", 64<<10)}, "500 Internal"},
	} {
		for _, kind := range []string{"root", "reserve", "create"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				s := testrig.NewService(t, gracetest.Config{}, nil)
				tt.fault.On = kind
				s.Script(tt.fault)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				err := s.Call(t.Context(), kind)
				took := time.Since(start)
				runtime.ReadMemStats(&after)
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("%v, want %q", err, tt.want)
				}
				status, ok := errors.AsType[*gracedb.StatusError](err)
				if !ok || len(status.Body) > 4<<10 || len(err.Error()) > 1<<10 || len(status.Messages) > 20 {
					t.Errorf("%d bytes of text, %d of body, %d messages", len(err.Error()), len(status.Body), len(status.Messages))
				}
				// The longest answers take 0.3 s, and ten times as long under -race; the
				// server is in this process.
				t.Logf("took %v", took)
				if took > 30*time.Second {
					t.Errorf("took %v", took)
				}
			})
		}
	}
}

// S11, S4: a hostile text is bounded and stripped, and never shows the token that
// the server was sent.
func TestFault_S11_HostileErrorText(t *testing.T) {
	for name, make := range map[string]func(token string) string{
		"plain":     func(token string) string { return "bad token " + token },
		"JSON":      func(token string) string { return fmt.Sprintf(`{"detail": "bad token %s"}`, token) },
		"escaped":   func(token string) string { return fmt.Sprintf(`{"detail": "\u001b[31m%s"}`, token) },
		"a piece":   func(token string) string { return token[40:80] },
		"long":      func(token string) string { return strings.Repeat("A", 500) + token + strings.Repeat("B", 10<<20) },
		"HTML":      func(token string) string { return "<title>" + token + "</title>" },
		"at 64 KiB": func(token string) string { return strings.Repeat("A ", 32<<10-20) + token },
		"at 4 KiB":  func(token string) string { return strings.Repeat("A ", 2<<10-20) + token },
	} {
		for _, status := range []int{200, 400, 401} {
			t.Run(fmt.Sprintf("%s/%d", name, status), func(t *testing.T) {
				s := testrig.NewService(t, gracetest.Config{}, nil)
				s.Script(gracetest.Fault{On: "create", Status: status, Body: make(s.Bearer)})
				err := s.Call(t.Context(), "create")
				se, ok := errors.AsType[*gracedb.StatusError](err)
				if !ok {
					t.Fatal(err)
				}
				shown, _ := json.Marshal(se)
				all := fmt.Sprintf("%v %+v %#v %s", err, se, se, shown)
				for i := 0; i+12 <= len(s.Bearer); i++ {
					if strings.Contains(all, s.Bearer[i:i+12]) {
						t.Fatalf("shows %q of the token: %s", s.Bearer[i:i+12], all)
					}
				}
				if strings.ContainsAny(err.Error(), "\x1b\n\r") || len(err.Error()) > 1<<10 {
					t.Errorf("%d bytes: %q", len(err.Error()), err)
				}
			})
		}
	}
}

// S5: a redirect is refused, and nobody else gets to see the token.
func TestFault_S5_Redirects(t *testing.T) {
	other, err := gracetest.Start(gracetest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	plain, err := gracetest.Start(gracetest.Config{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, location := range map[string]string{
			"other port": other.URL() + "v2/", "other scheme": plain.URL() + "v2/", "other host": "https://evil.test/api/v2/",
			"same host": "/api/v1/", "nothing": "", "with a password": "https://u:hunter2@evil.test/",
		} {
			for _, kind := range []string{"root", "reserve", "upload", "create"} {
				t.Run(fmt.Sprintf("%d/%s/%s", status, name, kind), func(t *testing.T) {
					followed := false
					s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) {
						// The user's own rule does not matter.
						c.HTTP.CheckRedirect = func(*http.Request, []*http.Request) error { followed = true; return nil }
					})
					s.Script(gracetest.Fault{On: kind, Status: status, Header: http.Header{"Location": {location}}})
					err := s.Call(t.Context(), kind)
					se, ok := errors.AsType[*gracedb.StatusError](err)
					if !ok || se.StatusCode != status || !strings.Contains(err.Error(), "redirects are refused") || followed {
						t.Fatalf("%v, want a StatusError that refuses the redirect", err)
					}
					if s.Count(kind) != 1 || strings.Contains(err.Error(), "hunter2") {
						t.Errorf("%d requests, %v", s.Count(kind), err)
					}
					if name == "other host" && !strings.Contains(err.Error(), "https://evil.test") {
						t.Errorf("%v does not say where the redirect leads", err)
					}
				})
			}
		}
	}
	t.Run("no URL", func(t *testing.T) {
		// The HTTP client gives up on such an answer by itself, as if it had not come.
		s := testrig.NewService(t, gracetest.Config{}, nil)
		s.Script(gracetest.Fault{On: "create", Status: 307, Header: http.Header{"Location": {"https://[::1"}}})
		if err := s.Call(t.Context(), "create"); !errors.Is(err, gracedb.ErrConnection) || s.Count("create") != 1 {
			t.Errorf("%v after %d requests", err, s.Count("create"))
		}
	})
	if n := len(other.Requests()) + len(plain.Requests()); n != 0 {
		t.Errorf("%d requests elsewhere", n)
	}
}

// S6: links and templates that lead elsewhere are refused before anything is sent.
func TestFault_S6_LinksLeadElsewhere(t *testing.T) {
	for name, hostile := range map[string]string{
		"other host":     "https://evil.test/api/v2/events/{graceid}/upload/",
		"subdomain":      "https://localhost.evil.test/{graceid}",
		"other port":     "https://127.0.0.1:1/api/v2/events/{graceid}/upload/",
		"other scheme":   "http://%s/api/v2/events/{graceid}/upload/",
		"no scheme":      "//evil.test/{graceid}",
		"userinfo":       "https://u:p@%s/{graceid}",
		"userinfo trick": "https://%s@evil.test/{graceid}",
		"file":           "file:///etc/{graceid}",
		"opaque":         "mailto:{graceid}@evil.test",
		"graceid host":   "https://{graceid}.evil.test/",
		"backslash":      `https://%s\@evil.test/{graceid}`,
		"not a URL":      "https://[::1/{graceid}",
		"CRLF":           "https://%s/{graceid}\r\nX-Evil: 1",
		"number":         "",
	} {
		for kind, key := range map[string]string{
			"create": "links/events", "reserve": "templates/event-reserve-template", "upload": "templates/event-upload-template",
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				var s *testrig.Service
				edit := func(doc map[string]any) {
					part, name, _ := strings.Cut(key, "/")
					host := strings.Split(s.URL(), "/")[2]
					url := strings.ReplaceAll(hostile, "%s", host)
					if kind != "upload" {
						url = strings.ReplaceAll(url, "{graceid}", "G1")
					}
					links := map[string]any{}
					for k, v := range doc[part].(map[string]string) {
						links[k] = v
					}
					links[name] = url
					if url == "" {
						links[name] = 7
					}
					doc[part] = links
				}
				dialed := map[string]bool{}
				s = testrig.NewService(t, gracetest.Config{EditRoot: edit}, func(c *gracedb.ClientConfig) {
					c.HTTP.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
						dialed[address] = true
						return new(net.Dialer).DialContext(ctx, network, address)
					}
				})
				err := s.Call(t.Context(), kind)
				others := s.Count("root")
				if kind == "upload" {
					others += s.Count("reserve")
				}
				if err == nil || len(s.Requests()) != others || len(dialed) != 1 {
					t.Fatalf("%v, %d requests, connections to %v; want an error before anything is sent", err, len(s.Requests()), dialed)
				}
				if len(s.Events()) != 0 || strings.ContainsAny(err.Error(), "\r\n") {
					t.Errorf("%q", err)
				}
			})
		}
	}
}

// S7: what goes into a URL is checked before anything is sent.
func TestFault_S7_GraceIDs(t *testing.T) {
	s := testrig.NewService(t, gracetest.Config{}, nil)
	for _, id := range []string{
		"", "G", "1234", "G1/../../x", "../G1", "G1?x=1", "G1#x", "G1\r\nX: y", "G1%2f", "G 1", "Ｇ1234", "G１２３", "{graceid}", "G1\x00",
		strings.Repeat("G", 9) + "1", "G" + strings.Repeat("1", 20),
	} {
		_, err := s.Client.UploadReservedEvent(t.Context(), id, testrig.Event(), gracedb.Provenance{})
		if !errors.Is(err, gracedb.ErrEvent) {
			t.Errorf("UploadReservedEvent(%q): %v, want ErrEvent", id, err)
		}
		_, err = s.Client.PublishEvent(t.Context(), nil, testrig.Event(), gracedb.PublishOptions{
			Reservation: &gracedb.Reservation{GraceID: id}, HTTPFallback: true,
		})
		if !errors.Is(err, gracedb.ErrEvent) {
			t.Errorf("PublishEvent with reservation %q: %v, want ErrEvent", id, err)
		}
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// The root document is fetched once for all who wait for it; a failure is shared by
// them and forgotten after; one caller's end is no other's.
func TestRootSingleFlight(t *testing.T) {
	many := func(ctx context.Context, s *testrig.Service, n int) map[string]int {
		results := make(chan string, n)
		for range n {
			go func() {
				err := s.Call(ctx, "root")
				if err != nil {
					results <- err.Error()
					return
				}
				results <- ""
			}()
		}
		counts := map[string]int{}
		for range n {
			counts[<-results]++
		}
		return counts
	}
	t.Run("once", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{Think: time.Second})
			if got := many(t.Context(), s, 100); got[""] != 100 || s.Count("root") != 1 {
				t.Errorf("%v after %d requests", got, s.Count("root"))
			}
		})
	})
	t.Run("failure shared, not kept", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{Think: time.Second, Status: 500})
			if got := many(t.Context(), s, 100); len(got) != 1 || got[""] != 0 || s.Count("root") != 1 {
				t.Errorf("%v after %d requests", got, s.Count("root"))
			}
			if err := s.Call(t.Context(), "root"); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	})
	t.Run("cancelled by one", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{Think: 10 * time.Second, Times: -1})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			first := make(chan error, 1)
			go func() { first <- s.Call(ctx, "root") }()
			synctest.Wait()
			short, cancel2 := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel2()
			second := make(chan error, 1)
			go func() { second <- s.Call(short, "root") }()
			start := time.Now()
			got := many(t.Context(), s, 10)
			if got[""] != 10 {
				t.Errorf("those who were not cancelled: %v", got)
			}
			if d := time.Since(start); d > 12*time.Second {
				t.Errorf("took %v", d)
			}
			for name, c := range map[string]chan error{"fetching": first, "waiting": second} {
				if err := <-c; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("who was %s: %v", name, err)
				}
			}
		})
	})
}

// Roots that are none, or not whole.
func TestRootDocuments(t *testing.T) {
	for _, tt := range []struct{ name, body, kind, want string }{
		{"HTML", "<html><title>Welcome</title></html>", "root", "/api/v2/: 200 OK: the answer is not a JSON object"},
		{"list", "[]", "root", "not a JSON object"},
		{"truncated", `{"groups": [`, "root", "not a JSON object"},
		{"null", "null", "create", "no root document"},
		{"empty object", "{}", "create", "no root document"},
		{"groups no list", `{"groups": "CBC"}`, "root", `has "groups" in another form`},
		{"groups no names", `{"groups": [1]}`, "root", `has "groups" in another form`},
		{"links no object", `{"links": []}`, "root", `has "links" in another form`},
		{"no link", `{"groups":["CBC"],"pipelines":["gstlal"],"searches":["AllSky"],"labels":["INJ","DQV"],"links":{}}`, "create", `no link "events"`},
		{"no templates", `{"groups":["CBC"],"pipelines":["gstlal"],"searches":["AllSky"],"labels":["INJ","DQV"]}`, "reserve", "does not reserve graceids"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testrig.NewService(t, gracetest.Config{}, nil)
			s.Script(gracetest.Fault{On: "root", Status: 200, Body: tt.body})
			err := s.Call(t.Context(), tt.kind)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if tt.kind == "reserve" && !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%v is not ErrUnsupported", err)
			}
			if tt.name != "null" && len(s.Requests()) != 1 {
				t.Errorf("%d requests, want that of the root document alone", len(s.Requests()))
			}
		})
	}
}

func TestAPIVersion(t *testing.T) {
	for _, tt := range []struct {
		version, want string // want: in the error
		root          string // in answer to the unversioned root
		requests      int
	}{
		{"v1", "", "", 1},
		{"default", "", "", 1},
		{"v9", `no API version "v9": it has default, v1, v2`, "", 2},
		{"v9", `no versions of its API`, `{"links": {}}`, 2},
		{"v9", `404 Not Found`, "<html>", 2},
	} {
		s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.APIVersion = tt.version })
		if tt.root != "" {
			s.Script(gracetest.Fault{On: "root", Skip: 1, Status: 200, Body: tt.root})
		}
		err := s.Call(t.Context(), "root")
		switch {
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.version, err, tt.want)
		case len(s.Requests()) != tt.requests:
			t.Errorf("%s: %d requests, want %d", tt.version, len(s.Requests()), tt.requests)
		}
	}
}
