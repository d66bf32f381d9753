package gracedb_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestCreateEvent(t *testing.T) {
	s := newService(t, gracetest.Config{
		Warnings: func(gracetest.Event) []string { return []string{"Problem scanning data.\x1b[31m No alert issued"} },
	}, nil)
	e := event()
	e.Offline, e.ReplayID, e.Filename = true, "r_2", "/data/run 1/coinc.xml"
	r, err := s.Client.CreateEvent(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if r.Timing.Upload <= 0 {
		t.Errorf("Timing.Upload = %v, want more than 0", r.Timing.Upload)
	}
	r.Timing = gracedb.Timing{}
	want := gracedb.Receipt{GraceID: "G1001", Submitter: "alice", Warnings: []string{"Problem scanning data.[31m No alert issued"}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("receipt (-want +got):\n%s", diff)
	}
	got := s.Events()
	if len(got) != 1 {
		t.Fatalf("%d events on the server, want 1", len(got))
	}
	got[0].Created = time.Time{}
	if diff := cmp.Diff(gracetest.Event{
		GraceID: "G1001", Submitter: "alice", Group: "CBC", Pipeline: "gstlal", Search: "AllSky", ReplayID: "r_2",
		ContentID: "e3523d90-1de1-cf71-07c3-c3cf24d98f29", Uploaded: true, Uploader: "alice", Offline: true,
		Labels: []string{"INJ", "DQV"}, Filename: "coinc.xml", ContentType: "application/xml", Data: e.Data,
	}, got[0]); diff != "" {
		t.Errorf("event on the server (-want +got):\n%s", diff)
	}
}

func TestReserveAndUpload(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	e := event()
	e.Group = "Test"
	res, err := s.Client.Reserve(t.Context(), e)
	if want := (gracedb.Reservation{GraceID: "T1001", Submitter: "alice"}); err != nil || res != want {
		t.Fatalf("Reserve = %+v, %v, want %+v", res, err, want)
	}
	if len(s.Events()) != 0 {
		t.Fatal("the reservation made an event")
	}
	r, err := s.Client.UploadReservedEvent(t.Context(), res.GraceID, e, gracedb.Provenance{KafkaServer: "k", KafkaTopic: "x.test"})
	if err != nil || r.GraceID != "T1001" || r.Submitter != "alice" {
		t.Fatalf("UploadReservedEvent = %+v, %v", r, err)
	}
	got := s.Events()
	if len(got) != 1 || got[0].KafkaServer != "k" || got[0].KafkaTopic != "x.test" || !bytes.Equal(got[0].Data, e.Data) {
		t.Errorf("events on the server: %+v", got)
	}
	// A second upload to the same graceid is no success: nothing went unanswered.
	_, err = s.Client.UploadReservedEvent(t.Context(), res.GraceID, e, gracedb.Provenance{})
	if status, ok := errors.AsType[*gracedb.StatusError](err); !ok || status.StatusCode != 409 || status.Attempts != 1 {
		t.Errorf("second upload: %v, want a StatusError of 409 after one attempt", err)
	}
	if errors.Is(err, gracedb.ErrOutcomeUnknown) {
		t.Errorf("%v is ErrOutcomeUnknown", err)
	}
}

func TestServiceInfo(t *testing.T) {
	s := newService(t, gracetest.Config{Groups: []string{"CBC", "Test"}}, nil)
	info, err := s.Client.ServiceInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CBC", "Test"}, info.Groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if info.ServerVersion != "gracetest" || info.Links["events"] != s.URL()+"v2/events/" ||
		info.Templates["event-upload-template"] != s.URL()+"v2/events/{graceid}/upload/" {
		t.Errorf("info = %+v", info)
	}
	info.Groups[0] = "changed by the caller"
	info.Links["events"] = "changed by the caller"
	if _, err := s.Client.CreateEvent(t.Context(), event()); err != nil {
		t.Errorf("after the caller changed its copy: %v", err)
	}
	if n := s.Count("root"); n != 1 {
		t.Errorf("%d requests for the root document, want 1", n)
	}
}

func TestNewClientConfig(t *testing.T) {
	dir := t.TempDir()
	notPEM := filepath.Join(dir, "not.pem")
	if err := os.WriteFile(notPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	const ok = "https://gracedb.ligo.org/api/"
	for _, tt := range []struct {
		name string
		cfg  gracedb.ClientConfig
		want string // in the error; "" means none
	}{
		{"plain", gracedb.ClientConfig{ServiceURL: ok}, ""},
		{"no slash", gracedb.ClientConfig{ServiceURL: "https://gracedb.ligo.org/api"}, ""},
		{"no path", gracedb.ClientConfig{ServiceURL: "https://gracedb.ligo.org"}, ""},
		{"port", gracedb.ClientConfig{ServiceURL: "https://gracedb.ligo.org:8443/api/"}, ""},
		{"IPv6", gracedb.ClientConfig{ServiceURL: "https://[2001:db8::1]/api/"}, ""},
		{"loopback http", gracedb.ClientConfig{ServiceURL: "http://127.0.0.1:5000/api"}, ""},
		{"loopback http name", gracedb.ClientConfig{ServiceURL: "http://LocalHost/api"}, ""},
		{"loopback http IPv6", gracedb.ClientConfig{ServiceURL: "http://[::1]:1/api"}, ""},
		{"version", gracedb.ClientConfig{ServiceURL: ok, APIVersion: "v1"}, ""},
		{"empty", gracedb.ClientConfig{}, "required"},
		{"relative", gracedb.ClientConfig{ServiceURL: "/api/"}, "no host"},
		{"host only", gracedb.ClientConfig{ServiceURL: "gracedb.ligo.org"}, "write https://"},
		{"ftp", gracedb.ClientConfig{ServiceURL: "ftp://gracedb.ligo.org/api/"}, "not https"},
		{"http", gracedb.ClientConfig{ServiceURL: "http://gracedb.ligo.org/api/"}, "use https"},
		{"http that looks local", gracedb.ClientConfig{ServiceURL: "http://127.0.0.1.evil.test/api/"}, "use https"},
		{"userinfo", gracedb.ClientConfig{ServiceURL: "https://user:hunter2@gracedb.ligo.org/api/"}, "user and password"},
		{"userinfo in no URL", gracedb.ClientConfig{ServiceURL: "https://user:hunter2@gracedb.ligo.org:port/"}, "not a URL"},
		{"query", gracedb.ClientConfig{ServiceURL: ok + "?x=1"}, "query"},
		{"fragment", gracedb.ClientConfig{ServiceURL: ok + "#x"}, "fragment"},
		{"bad version", gracedb.ClientConfig{ServiceURL: ok, APIVersion: "../v2"}, "APIVersion"},
		{"CA and HTTP", gracedb.ClientConfig{ServiceURL: ok, CAFile: notPEM, HTTP: &http.Client{}}, "at most one"},
		{"CA missing", gracedb.ClientConfig{ServiceURL: ok, CAFile: filepath.Join(dir, "none.pem")}, "none.pem: no such file"},
		{"CA no PEM", gracedb.ClientConfig{ServiceURL: ok, CAFile: notPEM}, "not.pem: no certificate"},
		{"CA directory", gracedb.ClientConfig{ServiceURL: ok, CAFile: dir}, "it is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Token = tokenIs("t")
			_, err := gracedb.NewClient(tt.cfg)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, gracedb.ErrConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want an ErrConfig with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestClientCAFile(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, s.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), CAFile: file, Token: tokenIs(s.Bearer)})
	if _, err := c.ServiceInfo(t.Context()); err != nil {
		t.Errorf("with the right authority: %v", err)
	}
	c = newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), Token: tokenIs(s.Bearer)})
	if _, err := c.ServiceInfo(t.Context()); !errors.Is(err, gracedb.ErrConnection) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with the system's authorities: %v", err)
	}
}

func TestUserAgent(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	if _, err := s.Client.CreateEvent(t.Context(), event()); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Requests() {
		if got := r.Header.Get("User-Agent"); !strings.HasPrefix(got, "gracedb-go/") || strings.Contains(got, "gracedb-client") {
			t.Errorf("%s %s: User-Agent %q", r.Method, r.Path, got)
		}
	}
}

// JSON that is no root document is not kept: the next call asks again.
func TestRootDocumentOfSomethingElse(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	s.Script(gracetest.Fault{On: "root", Status: http.StatusOK, Body: `{"error": "upgrading"}`})
	if _, err := s.Client.Reserve(t.Context(), event()); err == nil || !strings.Contains(err.Error(), "no root document of GraceDB") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Client.Reserve(t.Context(), event()); err != nil {
		t.Errorf("after the server is back: %v", err)
	}
}

// A list that the server does not give refuses nothing.
func TestRootDocumentWithoutLists(t *testing.T) {
	s := newService(t, gracetest.Config{EditRoot: func(doc map[string]any) {
		for _, list := range []string{"groups", "pipelines", "searches", "labels"} {
			delete(doc, list)
		}
	}}, nil)
	e := event()
	e.Search, e.Labels = "AllSky", []string{"INJ"}
	if _, err := s.Client.Reserve(t.Context(), e); err != nil {
		t.Error(err)
	}
}

// A source that does not honour its ctx keeps no call of a Client from doing so.
func TestClientTokenSourceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan string)
		c, err := gracedb.NewClient(gracedb.ClientConfig{
			ServiceURL: "https://gracedb.test/api/",
			Token:      func(context.Context) (string, error) { return <-answer, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err = c.ServiceInfo(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
		close(answer)
	})
}

// Which refusals are about the token, and make the source be asked for another.
func TestWhichRefusalsAreTheTokens(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	notProvided := "Authentication credentials were not provided."
	for _, tt := range []struct {
		name   string
		answer gracetest.Fault
		tokens bool
	}{
		{"401", gracetest.Fault{Status: 401}, true},
		{"403 as GraceDB says it", gracetest.Fault{Status: 403, Body: `{"detail": "` + notProvided + `"}`}, true},
		{"403 for a pipeline", gracetest.Fault{Status: 403, Header: html, Body: "You don't have permission on this pipeline."}, false},
		{"403 for a user", gracetest.Fault{Status: 403, Body: `{"detail": "User inactive or deleted."}`}, false},
		{"403 in HTML", gracetest.Fault{Status: 403, Header: html, Body: notProvided}, false},
		{"403 as a text", gracetest.Fault{Status: 403, Body: `"` + notProvided + `"`}, false},
		{"403 that says more", gracetest.Fault{Status: 403, Body: `{"detail": "` + notProvided + ` Really."}`}, false},
		{"403 empty", gracetest.Fault{Status: 403}, false},
		{"400 in those words", gracetest.Fault{Status: 400, Body: `{"detail": "` + notProvided + `"}`}, false},
	} {
		for _, kind := range []string{"root", "reserve", "upload", "create"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				asked := 0
				another := func(context.Context) (string, error) {
					asked++
					return "token" + strconv.Itoa(asked), nil
				}
				anybody := func(string) (string, []string, error) { return "alice", []string{"gracedb.read"}, nil }
				inBubble(t, gracetest.Config{Check: anybody}, func(c *gracedb.ClientConfig) { c.Token = another }, func(t *testing.T, s *service) {
					tt.answer.On, tt.answer.Times = kind, -1
					s.Script(tt.answer)
					_ = s.Call(t.Context(), kind)
					want := 1
					if tt.tokens {
						want = 2
					}
					if got := s.Count(kind); got != want {
						t.Errorf("%d requests, want %d", got, want)
					}
				})
			})
		}
	}
}

// A refused token is not kept until it expires: what replaces it is used.
func TestRefusedTokenIsReplaced(t *testing.T) {
	s, err := gracetest.Start(gracetest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "token")
	write := func(c testauth.Claims) {
		t.Helper()
		token, err := s.Token(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-time.Minute) // not being written any more
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("BEARER_TOKEN_FILE", file)
	h := s.HTTPClient()
	t.Cleanup(h.CloseIdleConnections)
	client := newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), HTTP: h})

	write(testauth.Claims{Scope: "openid"})
	if _, err := client.CreateEvent(t.Context(), event()); err == nil {
		t.Fatal("a token without the scope is good")
	}
	if n := s.Count("create"); n != 1 {
		t.Errorf("%d requests with a token that has no successor, want 1", n)
	}
	write(testauth.Claims{})
	if _, err := client.CreateEvent(t.Context(), event()); err != nil {
		t.Errorf("after the file was replaced: %v", err)
	}
	if n := s.Count("create"); n != 3 {
		t.Errorf("%d requests in all, want 3: the old token, and the new one", n)
	}
	if _, err := client.CreateEvent(t.Context(), event()); err != nil || s.Count("create") != 4 {
		t.Errorf("the next one: %v, %d requests", err, s.Count("create"))
	}
}

// The server has one text for every token that it refuses, so the error says what the
// token does, and what of it is wrong if that can be seen from here.
func TestRefusedTokenText(t *testing.T) {
	stranger, err := testauth.NewIssuer("https://stranger.test")
	if err != nil {
		t.Fatal(err)
	}
	const everyToken = "Authentication credentials were not provided. GraceDB says the same of every token that it does not take: "
	for _, tt := range []struct {
		name   string
		claims testauth.Claims
		from   *testauth.Issuer // nil: the server's
		edit   func(*gracetest.Config)
		want   []string
	}{
		{name: "scope", claims: testauth.Claims{Scope: "openid profile"}, want: []string{
			everyToken + "it lacks the scope gracedb.read; the token says sub alice, aud ANY, iss https://issuer.test, scope openid profile, kid ", "(in 2h",
		}},
		{name: "audience", claims: testauth.Claims{Audience: []string{"https://other.test"}, Scope: "openid"}, want: []string{
			everyToken + "it lacks the scope gracedb.read; its audience is not https://127.0.0.1; the token says sub alice, aud https://other.test, ",
		}},
		{name: "not yet", claims: testauth.Claims{NotBefore: time.Now().Add(time.Hour)}, want: []string{everyToken + "it is not valid yet (for another "}},
		{name: "issuer", from: stranger, want: []string{
			everyToken + "its issuer or its sub may be unknown there, or the clocks differ; the token says sub alice, aud ANY, iss https://stranger.test, scope gracedb.read kafka.consume, ",
		}},
		{name: "user", claims: testauth.Claims{Subject: "mallory\x1b[31m"}, edit: func(c *gracetest.Config) { c.Inactive = []string{"mallory\x1b[31m"} }, want: []string{
			"403 Forbidden: User inactive or deleted. The token says sub mallory[31m, ",
		}},
		{name: "pipeline", edit: func(c *gracetest.Config) { c.Forbidden = []string{"gstlal"} }, want: []string{
			"You don't have permission on this pipeline. The token says sub alice, aud ANY, ",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := gracetest.Config{}
			if tt.edit != nil {
				tt.edit(&cfg)
			}
			s := newService(t, cfg, nil)
			issuer := tt.from
			if issuer == nil {
				issuer = s.Issuer()
			}
			token, err := issuer.Token(tt.claims)
			if err != nil {
				t.Fatal(err)
			}
			h := s.HTTPClient()
			defer h.CloseIdleConnections()
			for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS"} {
				t.Setenv(name, "")
			}
			t.Setenv("BEARER_TOKEN", token)
			c := newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), HTTP: h})
			_, err = c.CreateEvent(t.Context(), event())
			if !errors.Is(err, gracedb.ErrAuthentication) {
				t.Fatalf("%v is not ErrAuthentication", err)
			}
			t.Log(err)
			for _, want := range append(tt.want, "(found at $BEARER_TOKEN)") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
			if parts := strings.Split(token, "."); strings.Contains(err.Error(), parts[1][:12]) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q shows the token, or controls the terminal", err)
			}
		})
	}
}
