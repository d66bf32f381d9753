package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// nearest lists the cases that name an option, a type or a kind of error that this
// package does not have. They are tested as the nearest that it has.
var nearest = map[int]string{
	6:  "the advice is to set APIVersion to \"default\"",
	13: "one kind, ErrEvent, for all three",
	28: "an Event holds bytes and opens no file: no data is ErrEvent",
	29: "there is no stdin: \"-\" is a file name like others",
	30: "no file is opened: \"~/x.xml\" has the base name x.xml",
	31: "no file is opened, ever",
	40: "403 is ErrAuthentication, which is all a program can act on",
	41: "401 is ErrAuthentication",
	46: "429 is a StatusError with its RetryAfter",
	49: "negative Retries means none (api.go.txt)",
	52: "there is no way to opt into repeating a creation",
	58: "there are no client certificates of X.509 users; ClientConfig.HTTP may have them",
	62: "there is no anonymous use: no token is ErrToken before anything is sent",
	70: "a ReservedError that is both causes",
	71: "a success with Fallback ErrOutcomeUnknown",
	79: "no log messages are written by this package; UploadReservedEvent on a graceid is what may come before the supervisor",
}

// The numbered cases of the reference on GraceDB's REST API.
func TestCases(t *testing.T) {
	cases := slices.Concat(casesRoot, casesEvent, casesAnswer, casesTransport, casesPublish)
	for i, c := range cases {
		if c.n != i+1 {
			t.Fatalf("case %d is missing", i+1)
		}
		t.Run(fmt.Sprintf("%02d %s", c.n, c.title), func(t *testing.T) {
			if why, ok := nearest[c.n]; ok {
				t.Log("tested as the nearest that there is: " + why)
			}
			c.run(t)
		})
	}
	if len(cases) != 80 {
		t.Errorf("%d cases, want 80", len(cases))
	}
}

// provedBy returns a case that a test of the root proves, which must be there.
func provedBy(test string) func(*testing.T) {
	return func(t *testing.T) {
		files, err := filepath.Glob("../../*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(source), "\nfunc "+test+"(t *testing.T)") {
				t.Logf("%s is in %s", test, file)
				return
			}
		}
		t.Errorf("there is no %s", test)
	}
}

type restCase struct {
	n     int
	title string
	run   func(*testing.T)
}

// wantHTTPErr fails unless err is kind (if not nil) and says what.
func wantHTTPErr(t *testing.T, err, kind error, what string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) || !strings.Contains(err.Error(), what) {
		t.Errorf("error %v, want %v that says %q", err, kind, what)
	}
}

// wantStatus fails unless err is a StatusError with that status after that many
// attempts.
func wantStatus(t *testing.T, err error, status, attempts int) {
	t.Helper()
	if s, ok := errors.AsType[*gracedb.StatusError](err); !ok || s.StatusCode != status || s.Attempts != attempts {
		t.Errorf("error %v, want status %d after %d attempts", err, status, attempts)
	}
}

// creates returns a case in which an event, edited, is created, and then looked at
// as it arrived.
func creates(edit func(*gracedb.Event), check func(*testing.T, gracetest.Request, gracetest.Event)) func(*testing.T) {
	return func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{}, nil)
		e := testrig.Event()
		edit(&e)
		if _, err := s.Client.CreateEvent(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		all := s.Requests()
		check(t, all[len(all)-1], s.Events()[0])
	}
}

// refusesEvent returns a case in which an event, edited, is refused before it is
// sent.
func refusesEvent(edit func(*gracedb.Event), says string) func(*testing.T) {
	return func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{}, nil)
		e := testrig.Event()
		edit(&e)
		_, err := s.Client.CreateEvent(t.Context(), e)
		wantHTTPErr(t, err, gracedb.ErrEvent, says)
		_, err = s.Client.PublishEvent(t.Context(), nil, e, gracedb.PublishOptions{HTTPFallback: true})
		wantHTTPErr(t, err, gracedb.ErrEvent, says)
		s.WantPosts(t, 0, 0, 0)
	}
}

// answers returns a case in which the server answers a call of a kind so, for
// ever.
func answers(kind string, f gracetest.Fault, check func(*testing.T, *testrig.Service, error)) func(*testing.T) {
	return func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			f.On, f.Times = kind, -1
			s.Script(f)
			check(t, s, s.Call(t.Context(), kind))
		})
	}
}

func root(t *testing.T, url string) error {
	_, err := testrig.NewClient(t, gracedb.ClientConfig{ServiceURL: url, Token: testrig.TokenIs("t"), Retries: -1}).ServiceInfo(t.Context())
	return err
}

var casesRoot = []restCase{
	{1, "no trailing slash", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{Plain: true, Check: anyToken}, nil)
		if err := root(t, strings.TrimSuffix(s.URL(), "/")); err != nil || s.Requests()[0].Path != "/api/v2/" {
			t.Error(err, s.Requests())
		}
	}},
	{2, "port", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{Plain: true, Check: anyToken}, nil)
		if _, err := s.Client.CreateEvent(t.Context(), testrig.Event()); err != nil {
			t.Error(err)
		}
	}},
	{3, "IPv6", func(t *testing.T) {
		s, err := gracetest.Start(gracetest.Config{Plain: true, Addr: "[::1]:0", Check: anyToken})
		if err != nil {
			t.Skipf("no IPv6 on this machine: %v", err)
		}
		defer s.Close()
		if err := root(t, s.URL()); err != nil {
			t.Error(err)
		}
	}},
	{4, "bad service URL", func(t *testing.T) {
		for _, u := range []string{"", "/api/", "ftp://gracedb.ligo.org/api/"} {
			_, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: u})
			wantHTTPErr(t, err, gracedb.ErrConfig, "ServiceURL")
		}
	}},
	{5, "unknown version", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.APIVersion = "v9" })
		wantHTTPErr(t, s.Call(t.Context(), "root"), gracedb.ErrConfig, "default, v1, v2")
	}},
	{6, "no versions", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.APIVersion = "v9" })
		s.Script(gracetest.Fault{Skip: 1, Status: 200, Body: "{}"})
		wantHTTPErr(t, s.Call(t.Context(), "root"), gracedb.ErrConfig, "no versions of its API")
	}},
	{7, "versioned root 500", answers("root", gracetest.Fault{Status: 500}, func(t *testing.T, s *testrig.Service, err error) {
		wantStatus(t, err, 500, 1)
		if n := len(s.Requests()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})},
	{8, "root is HTML", answers("root", gracetest.Fault{Status: 200, Body: "<html>"}, func(t *testing.T, _ *testrig.Service, err error) {
		wantHTTPErr(t, err, nil, "/api/v2/: 200 OK: the answer is not a JSON object")
	})},
	{9, "no events link", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{EditRoot: func(doc map[string]any) { delete(doc, "links") }}, nil)
		wantHTTPErr(t, s.Call(t.Context(), "create"), nil, `no link "events"`)
	}},
	{10, "root fetched once for 100 creates", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{Plain: true}, nil)
		errs := make(chan error, 100)
		for range 100 {
			go func() { errs <- s.Call(t.Context(), "create") }()
		}
		for range 100 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if n := s.Count("root"); n != 1 || len(s.Events()) != 100 {
			t.Errorf("%d root documents, %d events", n, len(s.Events()))
		}
	}},
	{11, "root failure not cached", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{}, nil)
		s.Script(gracetest.Fault{Status: 500})
		if err := s.Call(t.Context(), "root"); err == nil {
			t.Error("no error")
		}
		if err := s.Call(t.Context(), "root"); err != nil {
			t.Error(err)
		}
	}},
	{12, "root cancelled by one", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{Think: time.Second, Times: -1})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
			defer cancel()
			first := make(chan error)
			go func() { first <- s.Call(ctx, "root") }()
			time.Sleep(time.Second / 4)
			if err := s.Call(t.Context(), "root"); err != nil {
				t.Error(err)
			}
			wantHTTPErr(t, <-first, context.DeadlineExceeded, "")
		})
	}},
}

var casesEvent = []restCase{
	{13, "bad group, pipeline, search", func(t *testing.T) {
		refusesEvent(func(e *gracedb.Event) { e.Group = "x" }, "group")(t)
		refusesEvent(func(e *gracedb.Event) { e.Pipeline = "x" }, "pipeline")(t)
		refusesEvent(func(e *gracedb.Event) { e.Search = "x" }, "search")(t)
	}},
	{14, "pipeline in another case", refusesEvent(func(e *gracedb.Event) { e.Pipeline = "GSTLAL" }, `"GSTLAL"`)},
	{15, "no search", creates(func(e *gracedb.Event) { e.Search = "" }, func(t *testing.T, r gracetest.Request, _ gracetest.Event) {
		if len(r.Values("search")) != 0 {
			t.Error("field search was sent")
		}
	})},
	{16, "unknown label", refusesEvent(func(e *gracedb.Event) { e.Labels = []string{"INJ", "NOPE"} }, `"NOPE"`)},
	{17, "no labels", func(t *testing.T) {
		for _, labels := range [][]string{nil, {}} {
			creates(func(e *gracedb.Event) { e.Labels = labels }, func(t *testing.T, r gracetest.Request, _ gracetest.Event) {
				if len(r.Values("labels")) != 0 {
					t.Error("field labels was sent")
				}
			})(t)
		}
	}},
	{18, "two labels", creates(func(e *gracedb.Event) { e.Labels = []string{"DQV", "INJ"} }, func(t *testing.T, r gracetest.Request, _ gracetest.Event) {
		if got := r.Values("labels"); !slices.Equal(got, []string{"DQV", "INJ"}) {
			t.Error(got)
		}
	})},
	{19, "the same label twice", creates(func(e *gracedb.Event) { e.Labels = []string{"INJ", "INJ"} }, func(t *testing.T, _ gracetest.Request, e gracetest.Event) {
		if !slices.Equal(e.Labels, []string{"INJ"}) {
			t.Error(e.Labels)
		}
	})},
	{20, "warning passed on", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{Warnings: func(gracetest.Event) []string { return []string{"protected label"} }}, nil)
		r, err := s.Client.CreateEvent(t.Context(), testrig.Event())
		if err != nil || !slices.Equal(r.Warnings, []string{"protected label"}) {
			t.Error(r, err)
		}
	}},
	{21, "offline", func(t *testing.T) {
		for offline, want := range map[bool]string{false: "False", true: "True"} {
			creates(func(e *gracedb.Event) { e.Offline = offline }, func(t *testing.T, r gracetest.Request, e gracetest.Event) {
				if r.Value("offline") != want || e.Offline != offline {
					t.Error(r.Value("offline"))
				}
			})(t)
		}
	}},
	{22, "path as file name", arrivesAs("/a/b/coinc.xml", "coinc.xml")},
	{23, "odd file names", func(t *testing.T) {
		for name, want := range map[string]string{
			`a";b c.xml`: `a%22;b c.xml`, "ü.xml": "ü.xml", `x\y.xml`: "y.xml",
		} {
			arrivesAs(name, want)(t)
		}
		refusesEvent(func(e *gracedb.Event) { e.Filename = "a\r\nb.xml" }, "control characters")(t)
	}},
	{24, "no file name", func(t *testing.T) {
		for _, name := range []string{"", "..", "."} {
			refusesEvent(func(e *gracedb.Event) { e.Filename = name }, "not a file name")(t)
		}
	}},
	{25, "gzip as it is", arrivesWith("coinc.xml.gz", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"))},
	{26, "binary", arrivesWith("x.bin", []byte("\x00\xff\r\n--boundary--\r\n\n"))},
	{27, "empty file", refusesEvent(func(e *gracedb.Event) { e.Data = []byte{} }, "empty")},
	{28, "missing file", refusesEvent(func(e *gracedb.Event) { e.Filename, e.Data = "does-not-exist.xml", nil }, "empty")},
	{29, "dash", arrivesAs("-", "-")},
	{30, "tilde", arrivesAs("~/x.xml", "x.xml")},
	{31, "file named is never opened", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "x.xml")
		if err := os.WriteFile(name, []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		creates(func(e *gracedb.Event) { e.Filename = name }, func(t *testing.T, _ gracetest.Request, e gracetest.Event) {
			if !bytes.Equal(e.Data, testrig.Event().Data) || e.Filename != "x.xml" {
				t.Errorf("%+v", e)
			}
		})(t)
	}},
	{32, "same bytes in each try", TestRepeatedBody},
}

func arrivesAs(name, want string) func(*testing.T) {
	return creates(func(e *gracedb.Event) { e.Filename = name }, func(t *testing.T, _ gracetest.Request, e gracetest.Event) {
		if e.Filename != want {
			t.Errorf("%q arrived as %q, want %q", name, e.Filename, want)
		}
	})
}

func arrivesWith(name string, data []byte) func(*testing.T) {
	return creates(func(e *gracedb.Event) { e.Filename, e.Data = name, data }, func(t *testing.T, _ gracetest.Request, e gracetest.Event) {
		if !bytes.Equal(e.Data, data) {
			t.Errorf("%q arrived", e.Data)
		}
	})
}

func anyToken(string) (string, []string, error) { return "alice", []string{"gracedb.read"}, nil }

var casesAnswer = []restCase{
	{33, "201", creates(func(*gracedb.Event) {}, func(t *testing.T, r gracetest.Request, e gracetest.Event) {
		if r.Status != 201 || e.GraceID != "G1001" {
			t.Errorf("%d %+v", r.Status, e)
		}
	})},
	{34, "200 with a list", answers("create", gracetest.Fault{Status: 200, Body: `{"events": [], "numRows": 0}`}, mayExist("no graceid"))},
	{35, "201 with broken JSON", func(t *testing.T) {
		for _, body := range []string{"{", "", `{"graceid": "G1`} {
			answers("create", gracetest.Fault{Status: 201, Body: body}, mayExist("not a JSON object"))(t)
		}
	}},
	{36, "201 without graceid", answers("create", gracetest.Fault{Status: 201, Body: "{}"}, mayExist("no graceid"))},
	{37, "unknown and null members", TestAnswerTolerance},
	{38, "graceids", func(t *testing.T) {
		for _, id := range []string{"G1234", "G1234567", "E1234", "H1234", "M1234", "T1234", "C1234"} {
			answers("create", gracetest.Fault{Status: 201, Body: `{"graceid": "` + id + `"}`}, func(t *testing.T, _ *testrig.Service, err error) {
				if err != nil {
					t.Error(err)
				}
			})(t)
		}
		TestFault_S7_GraceIDs(t)
	}},
	{39, "error shapes", TestErrorShapes},
	{40, "403 in both forms", func(t *testing.T) {
		for _, body := range []string{"You don't have permission on this pipeline.", `{"detail": "You don't have permission on this pipeline."}`} {
			answers("create", gracetest.Fault{Status: 403, Body: body}, func(t *testing.T, _ *testrig.Service, err error) {
				wantHTTPErr(t, err, gracedb.ErrAuthentication, "permission on this pipeline")
				wantStatus(t, err, 403, 1)
			})(t)
		}
	}},
	{41, "401", TestFault_T23_TokenLookedUpAfresh},
	{42, "415", answers("create", gracetest.Fault{Status: 415}, statusOnce(415))},
	{43, "500 HTML", answers("create", gracetest.Fault{Status: 500, Body: "<h1>Server Error (500)</h1>"}, statusOnce(500))},
	{44, "429 then 201", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{On: "create", Status: 429, Header: after("1")})
			start := time.Now()
			if err := s.Call(t.Context(), "create"); err != nil || time.Since(start) != time.Second || len(s.Events()) != 1 {
				t.Errorf("%v after %v, %d events", err, time.Since(start), len(s.Events()))
			}
		})
	}},
	{45, "Retry-After forms", func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			"Sat, 01 Jan 2000 00:00:10 GMT": 10 * time.Second, // the bubble's clock begins at 00:00:00
			"Sat, 01 Jan 2050 00:00:00 GMT": 30 * time.Second,
			"Sat, 01 Jan 1990 00:00:00 GMT": 0,
			"0":                             0, "1.5": 1500 * time.Millisecond, "-1": 0, "abc": 0, "": 0, "999999": 30 * time.Second,
			"1e999": 0, "NaN": 0, "Inf": 30 * time.Second, strings.Repeat("9", 1000): 0,
		} {
			testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
				s.Script(gracetest.Fault{On: "create", Status: 429, Header: after(value)})
				if err := s.Call(t.Context(), "root"); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if err := s.Call(t.Context(), "create"); err != nil || time.Since(start) != want {
					t.Errorf("Retry-After %.40q: %v after %v, want %v", value, err, time.Since(start), want)
				}
			})
		}
	}},
	{46, "Retry-After beyond the deadline", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{On: "create", Status: 429, Header: after("20")})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			start := time.Now()
			err := s.Call(ctx, "create")
			wantStatus(t, err, 429, 1)
			if status, ok := errors.AsType[*gracedb.StatusError](err); !ok || status.RetryAfter != 20*time.Second || time.Since(start) != 0 {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	}},
	{47, "429 without Retry-After", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{On: "create", Status: 429, Times: 3})
			start := time.Now()
			if err := s.Call(t.Context(), "create"); err != nil || time.Since(start) != 600*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	}},
	{48, "no retries", TestRetriesConfigured},
	{49, "negative retries", TestRetriesConfigured},
	{50, "502 twice on GET", func(t *testing.T) {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{Status: 502, Times: 2})
			start := time.Now()
			if err := s.Call(t.Context(), "root"); err != nil || time.Since(start) != 200*time.Millisecond || s.Count("root") != 3 {
				t.Errorf("%v after %v and %d requests", err, time.Since(start), s.Count("root"))
			}
		})
	}},
	{51, "502 always on GET", answers("root", gracetest.Fault{Status: 502}, func(t *testing.T, _ *testrig.Service, err error) {
		wantStatus(t, err, 502, 6)
	})},
	{52, "answer lost after the creation", answers("create", gracetest.Fault{Drop: true}, func(t *testing.T, s *testrig.Service, err error) {
		mayExist("EOF")(t, s, err)
		if n := len(s.Events()); n != 1 {
			t.Errorf("%d events", n)
		}
	})},
	{53, "connection refused", TestConnectionRefused},
	{54, "answer lost after the reservation", func(t *testing.T) {
		s := testrig.NewService(t, gracetest.Config{}, nil)
		s.Script(gracetest.Fault{On: "reserve", Drop: true})
		r, err := s.Client.Reserve(t.Context(), testrig.Event())
		if err != nil || r.GraceID != "G1002" || len(s.Reservations()) != 2 {
			t.Errorf("%+v, %v, %d reservations", r, err, len(s.Reservations()))
		}
	}},
	{55, "idle connection closed by the server", TestFault_H14_DeadKeepAlive},
	{56, "slow body", TestFault_H4_SlowAnswers},
	{57, "cancelled in a backoff", TestRetryContext},
}

func mayExist(says string) func(*testing.T, *testrig.Service, error) {
	return func(t *testing.T, s *testrig.Service, err error) {
		t.Helper()
		wantHTTPErr(t, err, gracedb.ErrOutcomeUnknown, says)
		wantHTTPErr(t, err, nil, "the event may exist")
		if n := s.Count("create"); n != 1 {
			t.Errorf("%d requests", n)
		}
	}
}

func statusOnce(status int) func(*testing.T, *testrig.Service, error) {
	return func(t *testing.T, s *testrig.Service, err error) {
		t.Helper()
		wantStatus(t, err, status, 1)
		s.WantPosts(t, 0, 0, 1)
	}
}

var casesTransport = []restCase{
	{58, "TLS authorities", provedBy("TestClientCAFile")},
	{59, "redirect to another host", TestFault_S5_Redirects},
	{60, "token never shown", TestFault_S11_HostileErrorText},
	{61, "token rotated on disk", func(t *testing.T) {
		var seen []string
		s := testrig.NewService(t, gracetest.Config{Check: func(token string) (string, []string, error) {
			seen = append(seen, token)
			return anyToken(token)
		}}, func(c *gracedb.ClientConfig) {
			n := 0
			c.Token = func(context.Context) (string, error) { n++; return fmt.Sprintf("token%d", n), nil }
		})
		for range 2 {
			if err := s.Call(t.Context(), "create"); err != nil {
				t.Fatal(err)
			}
		}
		// The root document is for everybody, but comes to whoever shows a token too.
		if !slices.Equal(seen, []string{"token1", "token2", "token3"}) {
			t.Errorf("tokens sent: %q", seen)
		}
	}},
	{62, "no token", TestNoToken},
	{63, "User-Agent", provedBy("TestUserAgent")},
	{64, "proxies of the environment", testProxy},
}

// testProxy calls the API in another process, since a process reads its
// environment for proxies once.
func testProxy(t *testing.T) {
	if service := os.Getenv("GRACEDB_TEST_PROXY_CHILD"); service != "" {
		c := testrig.NewClient(t, gracedb.ClientConfig{ServiceURL: service, Token: testrig.TokenIs("t"), Retries: -1})
		_, err := c.ServiceInfo(t.Context())
		t.Logf("result: %v", err)
		return
	}
	var hosts []string
	proxy := newHTTPServer(t, func(w http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.Method+" "+r.Host+" "+r.Header.Get("Authorization"))
		http.Error(w, "no", http.StatusForbidden)
	})
	run := func(service string) string {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCases$/^64", "-test.v")
		cmd.Env = append(os.Environ(), "GRACEDB_TEST_PROXY_CHILD="+service, "HTTPS_PROXY="+proxy, "NO_PROXY=direct.invalid")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	out := run("https://gracedb.invalid/api/")
	if !slices.Equal(hosts, []string{"CONNECT gracedb.invalid:443 "}) || !strings.Contains(out, "Forbidden") {
		t.Errorf("the proxy was asked for %q; the child says %s", hosts, out)
	}
	hosts = nil
	if out = run("https://direct.invalid/api/"); hosts != nil || !strings.Contains(out, "direct.invalid") {
		t.Errorf("the proxy was asked for %q; the child says %s", hosts, out)
	}
}

// publishes returns a case with a broker, in which an event is published.
func publishes(opts gracedb.PublishOptions, setup func(*testing.T, *matrixRig), check func(*testing.T, *matrixRig, gracedb.Receipt, error)) func(*testing.T) {
	return func(t *testing.T) {
		testrig.InRig(t, testrig.RigConfig{Producer: func(c *gracedb.ProducerConfig) { c.MaxMessageBytes = 50_000 }}, func(t *testing.T, rig *testrig.Rig) {
			r := &matrixRig{rig, rig.Producer, testrig.Event(), opts}
			if setup != nil {
				setup(t, r)
			}
			receipt, err := r.Client.PublishEvent(t.Context(), r.p, r.event, r.opts)
			check(t, r, receipt, err)
		})
	}
}

// failsWith is a setup in which a request fails for ever.
func failsWith(on string, f gracetest.Fault) func(*testing.T, *matrixRig) {
	return func(_ *testing.T, r *matrixRig) {
		f.On, f.Times = on, -1
		r.Script(f)
	}
}

var kafkaFaults = []step{publishSteps[2], publishSteps[3], publishSteps[4], publishSteps[6], publishSteps[7]}

var casesPublish = []restCase{
	{65, "Kafka works", publishes(gracedb.PublishOptions{}, nil, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
		log := r.Messages(t, "gstlal")
		if err != nil || got.GraceID != "G1001" || len(log) != 1 || string(log[0].Key) != "G1001" {
			t.Errorf("%+v, %v, %d messages", got, err, len(log))
		}
		r.WantPosts(t, 1, 0, 0)
	})},
	{66, "reservation fails, fallback", func(t *testing.T) {
		for _, f := range []gracetest.Fault{{Status: 404}, {Status: 429}, {Status: 500}, {Think: time.Hour}} {
			publishes(gracedb.PublishOptions{HTTPFallback: true}, failsWith("reserve", f), func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
				if err != nil || got.Fallback == nil || got.Message.Topic != "" || len(r.Messages(t, "gstlal")) != 0 {
					t.Errorf("%+v, %v", got, err)
				}
				if e := r.Events(); len(e) != 1 || e[0].GraceID != got.GraceID || e[0].Reserved || r.Count("create") != 1 {
					t.Errorf("events %+v, receipt %+v", e, got)
				}
			})(t)
		}
		publishes(gracedb.PublishOptions{HTTPFallback: true}, failsWith("reserve", gracetest.Fault{Status: 403}), func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
			wantStatus(t, err, 403, 1)
			r.WantPosts(t, 1, 0, 0)
		})(t)
	}},
	{67, "reservation fails, no fallback", publishes(gracedb.PublishOptions{}, failsWith("reserve", gracetest.Fault{Status: 404}), func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		wantStatus(t, err, 404, 1)
		r.WantPosts(t, 1, 0, 0)
	})},
	{68, "Kafka fails, fallback", func(t *testing.T) {
		for _, s := range kafkaFaults {
			publishes(gracedb.PublishOptions{HTTPFallback: true}, s.setup, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
				e := r.Events()
				if err != nil || got.Fallback == nil || len(e) != 1 || e[0].GraceID != got.GraceID || e[0].KafkaServer != "kafka delivery failed, reverted to http" {
					t.Errorf("%s: %+v, %v, %+v", s.name, got, err, e)
				}
				r.WantPosts(t, 1, 1, 0)
			})(t)
		}
	}},
	{69, "Kafka fails, no fallback", publishes(gracedb.PublishOptions{}, publishSteps[7].setup, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		if res, ok := errors.AsType[*gracedb.ReservedError](err); !ok || res.Reservation.GraceID != "G1001" || !errors.Is(err, gracedb.ErrKafka) {
			t.Error(err)
		}
		r.WantPosts(t, 1, 0, 0)
	})},
	{70, "the fallback fails too", publishes(gracedb.PublishOptions{HTTPFallback: true}, func(t *testing.T, r *matrixRig) {
		r.opts.Topic = "nosuch"
		failsWith("upload", gracetest.Fault{Status: 400})(t, r)
	}, func(t *testing.T, _ *matrixRig, _ gracedb.Receipt, err error) {
		wantHTTPErr(t, err, gracedb.ErrTopic, "G1001")
		wantStatus(t, err, 400, 1)
	})},
	{71, "the supervisor was faster", publishes(gracedb.PublishOptions{HTTPFallback: true}, publishSteps[9].setup, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
		e := r.Events()
		if err != nil || !errors.Is(got.Fallback, gracedb.ErrOutcomeUnknown) || len(e) != 1 || e[0].Uploader != "supervisor" || e[0].Conflicts != 1 {
			t.Errorf("%+v, %v, %+v", got, err, e)
		}
	})},
	{72, "reservation without graceid", func(t *testing.T) {
		noID := failsWith("reserve", gracetest.Fault{Status: 201, Body: `{"submitter": "alice"}`})
		publishes(gracedb.PublishOptions{}, noID, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
			wantHTTPErr(t, err, nil, "no graceid")
			if len(r.Messages(t, "gstlal")) != 0 {
				t.Error("published")
			}
		})(t)
		publishes(gracedb.PublishOptions{HTTPFallback: true}, noID, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
			if err != nil || len(r.Messages(t, "gstlal")) != 0 {
				t.Error(err)
			}
			r.WantPosts(t, 1, 0, 1)
		})(t)
	}},
	{73, "publish only", publishes(gracedb.PublishOptions{PublishOnly: true}, nil, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
		if err != nil || got.GraceID != "" || len(r.Messages(t, "gstlal")) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		r.WantPosts(t, 0, 0, 0)
	})},
	{74, "skip supervisor", publishes(gracedb.PublishOptions{SkipSupervisor: true}, nil, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		r.superviseLog(t)
		u, err2 := r.Messages(t, "gstlal")[0].Upload()
		if err != nil || err2 != nil || !u.SkipSupervisor || len(r.Events()) != 0 || len(r.Reservations()) != 1 {
			t.Errorf("%+v, %v, %v", u, err, err2)
		}
	})},
	{75, "topics", provedBy("TestPublishOptions")},
	{76, "producer of another instance", provedBy("TestPublishConfig")},
	{77, "base64 in the message", publishes(gracedb.PublishOptions{}, func(_ *testing.T, r *matrixRig) {
		r.event.Data = []byte("\x00\xff\xfe>?~\r\n")
	}, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		if err != nil || !bytes.Contains(r.Messages(t, "gstlal")[0].Value, []byte(`"AP/+Pj9+DQo="`)) {
			t.Errorf("%v, %s", err, r.Messages(t, "gstlal")[0].Value)
		}
	})},
	{78, "cancelled between reservation and publication", TestPublishCancelled},
	{79, "before the supervisor", publishes(gracedb.PublishOptions{}, nil, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
		if err != nil {
			t.Fatal(err)
		}
		resp, err := r.HTTPClient().Do(newGET(t, r.URL()+"v2/events/"+got.GraceID, r.Bearer))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Status string `json:"processing_status"`
		}
		err = json.NewDecoder(resp.Body).Decode(&doc)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || err != nil || doc.Status != "reserved" {
			t.Errorf("%d, %v, %q", resp.StatusCode, err, doc.Status)
		}
	})},
	{80, "50 callers", TestPublishConcurrently},
}

func newGET(t *testing.T, url, token string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("User-Agent", "test")
	req.Close = true
	return req
}
