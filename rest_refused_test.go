package gracedb_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

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
