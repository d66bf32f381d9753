package gracedbapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A seen is a service that answers as it is told, and counts.
type seen struct {
	*httptest.Server
	client *gracedb.Client
	count  atomic.Int32
	bodies chan string // of the requests
}

func newSeen(t *testing.T, token gracedb.TokenSource, answer func(http.ResponseWriter, *http.Request)) *seen {
	t.Helper()
	s := &seen{bodies: make(chan string, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.count.Add(1)
		body, _ := io.ReadAll(r.Body)
		s.bodies <- string(body)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	h := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	t.Cleanup(h.CloseIdleConnections)
	s.client = testrig.NewClient(t, gracedb.ClientConfig{ServiceURL: s.URL + "/api/", Token: token, HTTP: h})
	return s
}

// do sends a request to a path of the service, or to a URL.
func (s *seen) do(t *testing.T, method, to string, body io.Reader) (*http.Response, string, error) {
	t.Helper()
	if strings.HasPrefix(to, "/") {
		to = s.URL + to
	}
	req, err := http.NewRequestWithContext(t.Context(), method, to, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.HTTPClient().Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(said), nil
}

// turns is a source of these tokens, one after the other once one is refused.
func turns(tokens ...string) gracedb.TokenSource {
	var asked atomic.Int32
	return func(context.Context) (string, error) {
		return tokens[min(int(asked.Add(1)), len(tokens))-1], nil
	}
}

func TestRouteCarriesToken(t *testing.T) {
	s := newSeen(t, testrig.TokenIs("first"), func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer first" || !strings.HasPrefix(r.Header.Get("User-Agent"), "gracedb-go/") || r.Host != r.Context().Value(http.LocalAddrContextKey).(interface{ String() string }).String() {
			t.Error(r.Header, r.Host)
		}
		_, _ = io.WriteString(w, "ok")
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v2/events/G1/log/", strings.NewReader("comment=x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "elsewhere.invalid"
	req.Header.Set("Authorization", "Basic of-the-caller")
	resp, err := s.client.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if body := <-s.bodies; resp.StatusCode != 200 || body != "comment=x" {
		t.Error(resp.Status, body)
	}
	if got := resp.Request.Header.Get("Authorization"); got != "Basic of-the-caller" {
		t.Errorf("the answer's request has %q", got)
	}
}

// The token goes to the service's own origin, whatever the caller or the server says.
func TestRouteStaysHome(t *testing.T) {
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Error("reached", r.URL, r.Header) }))
	defer thief.Close()
	var status int
	var to string
	s := newSeen(t, testrig.TokenIs("first"), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			w.Header().Set("Location", to)
			w.WriteHeader(status)
		}
	})
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, u := range []string{thief.URL + "/api/", "https://127.0.0.1" + port, "http://localhost" + port, "http://user:pw@127.0.0.1" + port + "/api/", "http://127.0.0.1/"} {
		_, _, err := s.do(t, http.MethodPost, u, strings.NewReader("x"))
		if !errors.Is(err, gracedb.ErrConfig) || !strings.Contains(err.Error(), "are for http://127.0.0.1"+port+" alone") {
			t.Errorf("%s: %v", u, err)
		}
	}
	if n := s.count.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
	for _, tt := range []struct {
		method string
		status int
		to     string
		want   string // or empty
	}{
		{http.MethodGet, 302, thief.URL, "redirects away from http://127.0.0.1"},
		{http.MethodGet, 302, "//evil.invalid/x", "this one leads to http://evil.invalid"},
		{http.MethodPost, 307, thief.URL, "redirects away"},
		{http.MethodGet, 301, "/home", ""},
		{http.MethodHead, 301, "/home", ""},
		{http.MethodPost, 308, "/home", ""},
		{http.MethodPost, 301, "/home", "would make a GET of a POST"},
		{http.MethodPut, 303, "/home", "would make a GET of a PUT"},
		{http.MethodGet, 302, "/moved", "10 redirects"},
	} {
		status, to = tt.status, tt.to
		_, _, err := s.do(t, tt.method, "/moved", strings.NewReader("x"))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// A token that is refused is replaced once, in either of the ways in which it may be refused.
func TestRouteRenewsToken(t *testing.T) {
	const refusal = `{"detail":"Authentication credentials were not provided."}`
	for _, tt := range []struct {
		name   string
		status int
		says   string
		tokens []string
		body   io.Reader
		want   int // status in the end
		tries  int32
	}{
		{"401", 401, "", []string{"first", "second"}, strings.NewReader("body"), 200, 2},
		{"403 of the token", 403, refusal, []string{"first", "second"}, strings.NewReader("body"), 200, 2},
		{"no body", 401, "", []string{"first", "second"}, nil, 200, 2},
		{"403 of rights", 403, `{"detail":"You do not have permission."}`, []string{"first", "second"}, nil, 403, 1},
		{"no other token", 401, "no", []string{"first"}, nil, 401, 1},
		{"the other refused, too", 401, "no", []string{"first", "third", "second"}, nil, 401, 2},
		{"a body that is read once", 401, "no", []string{"first", "second"}, io.MultiReader(strings.NewReader("body")), 401, 1},
		{"another status", 500, "no", []string{"first", "second"}, nil, 500, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSeen(t, turns(tt.tokens...), func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer second" {
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.says)
				}
			})
			resp, said, err := s.do(t, http.MethodPost, "/api/x/", tt.body)
			if err != nil || resp.StatusCode != tt.want || tt.want != 200 && said != tt.says {
				t.Fatal(resp, said, err)
			}
			if n := s.count.Load(); n != tt.tries {
				t.Errorf("%d tries, want %d", n, tt.tries)
			}
			for range s.count.Load() {
				if body := <-s.bodies; tt.body != nil && body != "body" {
					t.Errorf("sent %q", body)
				}
			}
		})
	}
}

// What was sent and not answered is not called failed, unless it only reads.
func TestRouteWithoutAnswer(t *testing.T) {
	s := newSeen(t, testrig.TokenIs("first"), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for method, unknown := range map[string]bool{http.MethodPost: true, http.MethodDelete: true, http.MethodGet: false} {
		_, _, err := s.do(t, method, "/api/x/", nil)
		if !errors.Is(err, gracedb.ErrConnection) || errors.Is(err, gracedb.ErrOutcomeUnknown) != unknown {
			t.Errorf("%s: %v", method, err)
		}
	}
	s.Close()
	_, _, err := s.do(t, http.MethodPost, "/api/x/", nil)
	if !errors.Is(err, gracedb.ErrConnection) || errors.Is(err, gracedb.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "GraceDB is away, or ServiceURL is wrong") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/api/x/", nil)
	if _, err := s.client.HTTPClient().Do(req); !errors.Is(err, context.Canceled) || errors.Is(err, gracedb.ErrConnection) {
		t.Error(err)
	}
	if _, err := new(gracedb.Client).HTTPClient().Get(s.URL); !errors.Is(err, gracedb.ErrConfig) {
		t.Error(err)
	}
	testrig.InBubble(t, gracetest.Config{}, func(cc *gracedb.ClientConfig) {
		cc.Token = func(context.Context) (string, error) { return "", errors.New("no vault") }
	}, func(t *testing.T, s *testrig.Service) {
		start := time.Now()
		_, err := s.Client.HTTPClient().Get(s.URL())
		if took := time.Since(start); !errors.Is(err, gracedb.ErrToken) || !strings.Contains(err.Error(), "no vault") || took > 6*time.Second {
			t.Error(took, err)
		}
	})
}

// Requests of one's own wait, too, while the server throttles.
func TestRouteThrottled(t *testing.T) {
	testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
		made, err := s.Client.CreateEvent(t.Context(), testrig.Event())
		if err != nil {
			t.Fatal(err)
		}
		s.Script(gracetest.Fault{On: "other", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7"}}})
		start := time.Now()
		for i, want := range []struct {
			status int
			after  time.Duration
		}{{429, 0}, {201, 7 * time.Second}, {201, 7 * time.Second}} {
			resp, err := s.Client.HTTPClient().PostForm(s.URL()+"events/"+made.GraceID+"/log/", url.Values{"comment": {"x"}})
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if took := time.Since(start); resp.StatusCode != want.status || took < want.after || took > want.after+time.Second {
				t.Errorf("%d: %s after %v", i, resp.Status, took)
			}
		}
	})
}
