package gracedb_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
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
					_ = s.call(t.Context(), kind)
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
