package faults_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

func after(s string) http.Header { return http.Header{"Retry-After": {s}} }

// What is sent again after which answer, how often and after what pauses: lasting
// is the fault for ever, once is the fault and then a server that works.
func TestRetryTable(t *testing.T) {
	const (
		fast = 3 * time.Second // 0 + .2 + .4 + .8 + 1.6
		no   = 0
	)
	type tries struct {
		n     int
		pause time.Duration
	}
	for _, tt := range []struct {
		name  string
		fault gracetest.Fault
		// What a lasting fault leads to: for what is safe to repeat, and for create.
		safe, create tries
		exists       bool // create's error says that the event may exist
	}{
		{"400", gracetest.Fault{Status: 400}, tries{1, no}, tries{1, no}, false},
		{"401", gracetest.Fault{Status: 401}, tries{1, no}, tries{1, no}, false},
		{"403", gracetest.Fault{Status: 403}, tries{1, no}, tries{1, no}, false},
		{"403 for a token, no other", gracetest.Fault{Status: 403, Body: `{"detail": "Authentication credentials were not provided."}`}, tries{1, no}, tries{1, no}, false},
		{"404", gracetest.Fault{Status: 404}, tries{1, no}, tries{1, no}, false},
		{"408", gracetest.Fault{Status: 408}, tries{6, fast}, tries{1, no}, false},
		{"409", gracetest.Fault{Status: 409}, tries{1, no}, tries{1, no}, false},
		{"409 Retry-After", gracetest.Fault{Status: 409, Header: after("1")}, tries{1, no}, tries{1, no}, false},
		{"413 Retry-After", gracetest.Fault{Status: 413, Header: after("1")}, tries{1, no}, tries{1, no}, false},
		{"415", gracetest.Fault{Status: 415}, tries{1, no}, tries{1, no}, false},
		{"429", gracetest.Fault{Status: 429}, tries{6, fast}, tries{6, fast}, false},
		{"429 Retry-After 1", gracetest.Fault{Status: 429, Header: after("1")}, tries{6, 5600 * time.Millisecond}, tries{6, 5600 * time.Millisecond}, false},
		{"429 Retry-After 999999", gracetest.Fault{Status: 429, Header: after("999999")}, tries{6, 150 * time.Second}, tries{6, 150 * time.Second}, false},
		{"429 Retry-After junk", gracetest.Fault{Status: 429, Header: after("soon")}, tries{6, fast}, tries{6, fast}, false},
		{"500", gracetest.Fault{Status: 500}, tries{1, no}, tries{1, no}, true},
		{"502", gracetest.Fault{Status: 502}, tries{6, fast}, tries{1, no}, true},
		{"503", gracetest.Fault{Status: 503}, tries{1, no}, tries{1, no}, false},
		{"503 Retry-After junk", gracetest.Fault{Status: 503, Header: after("tomorrow")}, tries{1, no}, tries{1, no}, false},
		{"503 Retry-After 0", gracetest.Fault{Status: 503, Header: after("0")}, tries{6, fast}, tries{6, fast}, false},
		{"503 Retry-After 2", gracetest.Fault{Status: 503, Header: after("2")}, tries{6, 10 * time.Second}, tries{6, 10 * time.Second}, false},
		{"504", gracetest.Fault{Status: 504}, tries{6, fast}, tries{1, no}, true},
		{"507", gracetest.Fault{Status: 507}, tries{1, no}, tries{1, no}, true},
		{"cut before it is read", gracetest.Fault{Refuse: true}, tries{6, fast}, tries{1, no}, true},
		{"cut before the answer", gracetest.Fault{Status: 1, Drop: true}, tries{6, fast}, tries{1, no}, true},
		{"cut in the answer", gracetest.Fault{Status: 201, Body: `{"graceid": "G1001"}`, Half: true}, tries{6, fast}, tries{1, no}, true},
		{"301", gracetest.Fault{Status: 301, Header: http.Header{"Location": {"/api/"}}}, tries{1, no}, tries{1, no}, false},
	} {
		for _, kind := range []string{"root", "reserve", "upload", "create"} {
			want := tt.safe
			if kind == "create" {
				want = tt.create
			}
			if kind == "create" && tt.fault.Refuse {
				continue // depends on whether the connection was fresh: TestCutWhileSending
			}
			if kind == "root" && tt.fault.Status == 404 {
				want.n++ // the root without a version is asked which versions there are
			}
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
					f := tt.fault
					f.On, f.Times = kind, -1
					s.Script(f)
					start := time.Now()
					err := s.Call(t.Context(), kind)
					if err == nil {
						t.Fatal("no error")
					}
					if n, d := s.Count(kind), time.Since(start); n != want.n || d != want.pause {
						t.Errorf("%d requests in %v, want %d in %v", n, d, want.n, want.pause)
					}
					if kind != "root" || tt.fault.Status != 404 {
						checkRetryError(t, err, tt.fault, want.n)
					}
					if unknown := errors.Is(err, gracedb.ErrOutcomeUnknown); kind == "create" && unknown != tt.exists {
						t.Errorf("%v: is ErrOutcomeUnknown: %v, want %v", err, unknown, tt.exists)
					}
					if says := strings.Contains(err.Error(), "may exist"); kind == "create" && says != tt.exists {
						t.Errorf("%v: says that the event may exist: %v, want %v", err, says, tt.exists)
					}
				})
				testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
					f := tt.fault
					f.On = kind
					s.Script(f)
					err := s.Call(t.Context(), kind)
					if again := want.pause > 0; (err == nil) != again {
						t.Errorf("after one such answer: %v, want success: %v", err, again)
					}
					if n := s.Count(kind); n != min(want.n, 2) {
						t.Errorf("after one such answer: %d requests, want %d", n, min(want.n, 2))
					}
					if n := len(s.Events()); n > 1 {
						t.Errorf("%d events", n)
					}
				})
			})
		}
	}
}

func checkRetryError(t *testing.T, err error, f gracetest.Fault, tries int) {
	t.Helper()
	if errors.Is(err, gracedb.ErrKafka) {
		t.Errorf("%v is ErrKafka", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	if f.Status <= 1 || f.Half { // no answer
		if !errors.Is(err, gracedb.ErrConnection) {
			t.Errorf("%v is not ErrConnection", err)
		}
		return
	}
	status, ok := errors.AsType[*gracedb.StatusError](err)
	if !ok || status.StatusCode != f.Status || status.Attempts != tries {
		t.Errorf("%v: want a StatusError of %d after %d attempts", err, f.Status, tries)
	}
	if want := f.Status == 401 || f.Status == 403; errors.Is(err, gracedb.ErrAuthentication) != want {
		t.Errorf("%v: is ErrAuthentication: %v, want %v", err, !want, want)
	}
}

func TestRetriesConfigured(t *testing.T) {
	for retries, want := range map[int]int{-1: 1, 0: 6, 1: 2, 8: 9} {
		testrig.InBubble(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.Retries = retries }, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{Status: 502, Times: -1})
			err := s.Call(t.Context(), "root")
			if n := s.Count("root"); err == nil || n != want {
				t.Errorf("Retries %d: %d requests, %v; want %d", retries, n, err, want)
			}
		})
	}
}

// A ctx ends every wait, and a wait that ctx would end is not begun.
func TestRetryContext(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fault   gracetest.Fault
		timeout time.Duration
		cancel  time.Duration // instead of a deadline
		want    time.Duration // when the call returns
		ended   error         // what of ctx the error is
		status  int           // of the StatusError that the error is too
	}{
		{"Retry-After beyond the deadline", gracetest.Fault{Status: 429, Header: after("20")}, 10 * time.Second, 0, 0, nil, 429},
		{"backoff beyond the deadline", gracetest.Fault{Status: 502}, 300 * time.Millisecond, 0, 200 * time.Millisecond, nil, 502},
		{"cancelled in a backoff", gracetest.Fault{Status: 502}, 0, 700 * time.Millisecond, 700 * time.Millisecond, context.Canceled, 502},
		{"cancelled in a Retry-After", gracetest.Fault{Status: 503, Header: after("20")}, 0, time.Second, time.Second, context.Canceled, 503},
		{"cancelled while throttled", gracetest.Fault{Status: 429, Header: after("20")}, 0, time.Second, time.Second, context.Canceled, 429},
		{"no answer", gracetest.Fault{Think: time.Hour}, time.Second, 0, time.Second, context.DeadlineExceeded, 0},
		{"slow answer", gracetest.Fault{Drip: time.Second}, 5 * time.Second, 0, 5 * time.Second, context.DeadlineExceeded, 0},
		{"cancelled in a slow answer", gracetest.Fault{Drip: time.Second}, 0, 5 * time.Second, 5 * time.Second, context.Canceled, 0},
	} {
		for _, kind := range []string{"reserve", "create"} {
			if kind == "create" && tt.status == 502 {
				continue // not repeated
			}
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
					if err := s.Call(t.Context(), "root"); err != nil {
						t.Fatal(err)
					}
					tt.fault.On, tt.fault.Times = kind, -1
					s.Script(tt.fault)
					ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(tt.timeout, time.Hour))
					defer cancel()
					if tt.cancel > 0 {
						time.AfterFunc(tt.cancel, cancel)
					}
					start := time.Now()
					err := s.Call(ctx, kind)
					if d := time.Since(start); err == nil || d != tt.want {
						t.Errorf("%v after %v, want an error after %v", err, d, tt.want)
					}
					if tt.ended != nil && !errors.Is(err, tt.ended) {
						t.Errorf("%v is not %v", err, tt.ended)
					}
					status, ok := errors.AsType[*gracedb.StatusError](err)
					if ok != (tt.status != 0) || ok && status.StatusCode != tt.status {
						t.Errorf("%v: want status %d", err, tt.status)
					}
					if canceled := errors.Is(tt.ended, context.Canceled); tt.status == 0 && errors.Is(err, gracedb.ErrConnection) == canceled {
						t.Errorf("%v: is ErrConnection: %v, want %v", err, canceled, !canceled)
					}
				})
			})
		}
	}
}

// The client's own timeout is waited out once: a server that was mute for a minute
// is not asked five times more.
func TestTimeoutIsNotRepeated(t *testing.T) {
	for _, kind := range []string{"reserve", "upload", "create"} {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{On: kind, Think: time.Hour, Times: -1})
			start := time.Now()
			err := s.Call(t.Context(), kind)
			if d := time.Since(start); d != time.Minute || !errors.Is(err, gracedb.ErrConnection) || s.Count(kind) != 1 {
				t.Errorf("%s: %v after %v and %d requests, want ErrConnection after 1m0s and 1", kind, err, d, s.Count(kind))
			}
			if got := errors.Is(err, gracedb.ErrOutcomeUnknown); got != (kind != "reserve") {
				t.Errorf("%s: %v: is ErrOutcomeUnknown: %v", kind, err, got)
			}
		})
	}
}

// Where there is nobody, nothing can have been done: even a creation is tried again.
func TestConnectionRefused(t *testing.T) {
	for _, kind := range []string{"reserve", "create"} {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			if err := s.Call(t.Context(), "root"); err != nil {
				t.Fatal(err)
			}
			s.Close()
			synctest.Wait() // until the client has seen that its connection is closed
			start := time.Now()
			err := s.Call(t.Context(), kind)
			if d := time.Since(start); d != 3*time.Second || !errors.Is(err, gracedb.ErrConnection) {
				t.Errorf("%s: %v after %v, want ErrConnection after 3s", kind, err, d)
			}
			if errors.Is(err, gracedb.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "(6 attempts)") {
				t.Errorf("%s: %v", kind, err)
			}
		})
	}
}

// A creation that was cut while it was being sent is sent again only if the
// connection was one that had been idle, and may have died of it.
func TestCutWhileSending(t *testing.T) {
	for _, idle := range []bool{false, true} {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			if err := s.Call(t.Context(), "root"); err != nil {
				t.Fatal(err)
			}
			if !idle {
				s.CloseIdle()
				synctest.Wait()
			}
			s.Script(gracetest.Fault{On: "create", Refuse: true})
			err := s.Call(t.Context(), "create")
			if idle && (err != nil || len(s.Events()) != 1) {
				t.Errorf("idle connection: %v, %d events", err, len(s.Events()))
			}
			if !idle && (!errors.Is(err, gracedb.ErrOutcomeUnknown) || s.Count("create") != 1) {
				t.Errorf("fresh connection: %v after %d requests", err, s.Count("create"))
			}
		})
	}
}

// Bodies are the same in every try, byte for byte.
func TestRepeatedBody(t *testing.T) {
	testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
		s.Script(gracetest.Fault{On: "upload", Status: 502, Times: 3}, gracetest.Fault{On: "upload", Refuse: true})
		r, err := s.Client.Reserve(t.Context(), testrig.Event())
		if err != nil {
			t.Fatal(err)
		}
		e := testrig.Event()
		e.Data = []byte(strings.Repeat("0123456789", 200_000))
		if _, err := s.Client.UploadReservedEvent(t.Context(), r.GraceID, e, gracedb.Provenance{}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, req := range s.Requests() {
			if f, ok := req.File(); ok {
				n++
				if string(f.Data) != string(e.Data) {
					t.Errorf("upload %d differs from the data", n)
				}
			}
		}
		if n != 4 {
			t.Errorf("%d whole uploads, want 4", n)
		}
	})
}

// A refused token makes the client look for another, once, and use it at once.
func TestFault_T23_TokenLookedUpAfresh(t *testing.T) {
	for _, status := range []int{401, 403} {
		t.Run(strconv.Itoa(status), func(t *testing.T) { testTokenLookedUpAfresh(t, status) })
	}
}

func testTokenLookedUpAfresh(t *testing.T, status int) {
	for _, tt := range []struct {
		name   string
		tokens []string // that the source gives; the last one for ever
		want   int      // requests
		ok     bool
	}{
		{"good one on disk", []string{"stale", "good"}, 2, true},
		{"same one", []string{"stale"}, 1, false},
		{"another bad one", []string{"stale", "bad", "good"}, 2, false},
		{"none any more", []string{"stale", ""}, 1, false},
		{"a damaged one", []string{"stale", "good\r\n"}, 1, false},
	} {
		for _, kind := range []string{"reserve", "create"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				check := func(token string) (string, []string, error) {
					if token != "good" && token != "root" {
						return "", nil, errors.New("bad")
					}
					return "alice", []string{"gracedb.read"}, nil
				}
				tokens, asked := []string{"root"}, 0
				source := func(context.Context) (string, error) {
					asked++
					token := tokens[0]
					if len(tokens) > 1 {
						tokens = tokens[1:]
					}
					if token == "" {
						return "", io.EOF
					}
					return token, nil
				}
				testrig.InBubble(t, gracetest.Config{Check: check, Refusal: status}, func(c *gracedb.ClientConfig) { c.Token = source }, func(t *testing.T, s *testrig.Service) {
					if err := s.Call(t.Context(), "root"); err != nil {
						t.Fatal(err)
					}
					tokens, asked = tt.tokens, 0
					err := s.Call(t.Context(), kind)
					if (err == nil) != tt.ok || s.Count(kind) != tt.want || asked > 2 {
						t.Errorf("%v after %d requests and %d look-ups, want %d requests", err, s.Count(kind), asked, tt.want)
					}
					if !tt.ok {
						checkRetryError(t, err, gracetest.Fault{Status: status}, tt.want)
					}
				})
			})
		}
	}
}

// Whoever has no token sends nothing.
func TestNoToken(t *testing.T) {
	for name, source := range map[string]gracedb.TokenSource{
		"error":    func(context.Context) (string, error) { return "", io.ErrUnexpectedEOF },
		"ErrToken": func(context.Context) (string, error) { return "", gracedb.ErrToken },
		"empty":    testrig.TokenIs(""),
		"CR":       testrig.TokenIs("a\rb"),
		"NUL":      testrig.TokenIs("a\x00b"),
		"\\x01":    testrig.TokenIs("a\x01auth=Bearer b"),
		"é":        testrig.TokenIs("é"),
		"space":    testrig.TokenIs("a b"),
	} {
		t.Run(name, func(t *testing.T) {
			testrig.InBubble(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.Token = source }, func(t *testing.T, s *testrig.Service) {
				for _, kind := range []string{"root", "reserve", "create"} {
					err := s.Call(t.Context(), kind)
					if !errors.Is(err, gracedb.ErrToken) || !errors.Is(err, gracedb.ErrAuthentication) || errors.Is(err, gracedb.ErrKafka) {
						t.Errorf("%s: %v, want ErrToken", kind, err)
					}
					if name == "error" && !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("%v is not the source's error", err)
					}
				}
				if n := len(s.Requests()); n != 0 {
					t.Errorf("%d requests, want none", n)
				}
			})
		})
	}
}

// A source that waits is bounded by ctx and its end is told as such.
func TestTokenSourceWaits(t *testing.T) {
	waits := func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	testrig.InBubble(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.Token = waits }, func(t *testing.T, s *testrig.Service) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := s.Call(ctx, "root")
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, gracedb.ErrToken) || time.Since(start) != time.Second {
			t.Errorf("%v after %v, want the end of ctx after 1s", err, time.Since(start))
		}
	})
}
