package faults_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A lateSource has a good token, but for the time of an outage.
type lateSource struct {
	good    gracedb.TokenSource
	expired string // what it returns in an outage; if empty, an error
	back    time.Time
}

func (l *lateSource) token(ctx context.Context) (string, error) {
	switch {
	case !time.Now().Before(l.back):
		return l.good(ctx)
	case l.expired != "":
		return l.expired, nil
	}
	return "", errors.New("token: no such file")
}

// A token that comes late is waited for, as long as by a Producer.
func TestLateToken(t *testing.T) {
	for _, what := range []string{"none", "expired"} {
		for _, tt := range []struct {
			name  string
			late  time.Duration
			limit time.Duration // of ctx; 0: none
			grace time.Duration // of the Producer, for PublishEvent alone
			took  time.Duration // until the call returned
			ok    bool
		}{
			{"a second", time.Second, 0, 0, time.Second, true},
			{"almost too late", 4900 * time.Millisecond, 0, 0, 5 * time.Second, true},
			{"too late", time.Hour, 0, 0, 5 * time.Second, false},
			{"beyond ctx", time.Hour, 1100 * time.Millisecond, 0, 1100 * time.Millisecond, false},
			{"a longer grace", 10 * time.Second, 0, 20 * time.Second, 10 * time.Second, true},
			{"no grace", time.Second, 0, -1, 0, false},
		} {
			for _, kind := range []string{"reserve", "create", "upload", "publish"} {
				if tt.grace != 0 && kind != "publish" {
					continue
				}
				t.Run(what+"/"+tt.name+"/"+kind, func(t *testing.T) {
					late := &lateSource{}
					testrig.InRig(t, testrig.RigConfig{
						Client: func(c *gracedb.ClientConfig) { late.good = c.Token; c.Token = late.token },
						Producer: func(c *gracedb.ProducerConfig) {
							c.AuthGrace, c.Cluster.Token = tt.grace, late.good
						},
					}, func(t *testing.T, r *testrig.Rig) {
						testLateToken(t, r, late, what == "expired", kind, tt.late, tt.limit, tt.took, tt.ok)
					})
				})
			}
		}
	}
}

func testLateToken(t *testing.T, r *testrig.Rig, late *lateSource, expired bool, kind string, by, limit, took time.Duration, ok bool) {
	reservation, err := r.Client.Reserve(t.Context(), testrig.Event())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	start := time.Now()
	late.back = start.Add(by)
	if expired {
		if late.expired, err = r.Token(testauth.Claims{IssuedAt: start.Add(-time.Hour), Expires: start}); err != nil {
			t.Fatal(err)
		}
	}
	call := func() (err error) {
		switch kind {
		case "publish":
			_, err = r.Client.PublishEvent(ctx, r.Producer, testrig.Event(), gracedb.PublishOptions{})
		case "upload":
			_, err = r.Client.UploadReservedEvent(ctx, reservation.GraceID, testrig.Event(), gracedb.Provenance{})
		default:
			err = r.Call(ctx, kind)
		}
		return err
	}
	err = call()
	if d := time.Since(start); (err == nil) != ok || d != took {
		t.Errorf("%v after %v, want success %v after %v", err, d, ok, took)
	}
	if ok {
		return
	}
	if !errors.Is(err, gracedb.ErrToken) || limit > 0 && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not ErrToken, or not the end of ctx", err)
	}
	if limit == 0 {
		start = time.Now()
		if err := call(); !errors.Is(err, gracedb.ErrToken) || time.Since(start) != 0 {
			t.Errorf("the next call: %v after %v, want ErrToken at once", err, time.Since(start))
		}
	}
}

// A GraceDB that is away is waited for within ctx and Retries.
func TestAway(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	for _, tt := range []struct {
		name    string
		away    time.Duration
		err     error
		limit   time.Duration // of ctx; 0: none
		retries int
		took    time.Duration // until the call returned
		ok      bool
	}{
		{"a restart, no deadline", 2 * time.Second, refused, 0, 0, 3 * time.Second, true},
		{"long, no deadline", time.Hour, refused, 0, 0, 3 * time.Second, false},
		{"long, no deadline, Retries 20", time.Minute, refused, 0, 20, 61200 * time.Millisecond, true},
		{"too long for Retries 20", time.Hour, refused, 0, 20, 76200 * time.Millisecond, false},
		{"within a deadline", time.Minute, refused, 2 * time.Minute, 0, 61200 * time.Millisecond, true},
		{"beyond a deadline", time.Hour, refused, time.Minute, 0, 56200 * time.Millisecond, false},
		{"within a deadline, Retries 2", time.Minute, refused, 2 * time.Minute, 2, 200 * time.Millisecond, false},
		{"within a deadline, no Retries", time.Minute, refused, 2 * time.Minute, -1, 0, false},
		{"a network that swallows all", time.Hour, timeoutError{}, 0, 0, 0, false},
		{"a network that swallowed all", time.Minute, timeoutError{}, 2 * time.Minute, 0, 61200 * time.Millisecond, true},
		{"a name that is unknown", time.Hour, &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}, time.Minute, 0, 0, false},
	} {
		for _, kind := range []string{"root", "reserve", "create"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				var back time.Time
				testrig.InBubble(t, gracetest.Config{}, func(c *gracedb.ClientConfig) {
					c.Retries = tt.retries
					transport := c.HTTP.Transport.(*http.Transport)
					dial := transport.DialContext
					transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
						if time.Now().Before(back) {
							return nil, tt.err
						}
						return dial(ctx, network, address)
					}
				}, func(t *testing.T, s *testrig.Service) {
					if kind != "root" {
						if err := s.Call(t.Context(), "root"); err != nil {
							t.Fatal(err)
						}
						s.CloseIdle()
						synctest.Wait() // until the client has seen that its connection is closed
					}
					ctx := t.Context()
					if tt.limit > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.limit)
						defer cancel()
					}
					start := time.Now()
					back = start.Add(tt.away)
					err := s.Call(ctx, kind)
					if d := time.Since(start); (err == nil) != tt.ok || d != tt.took {
						t.Errorf("%v after %v, want success %v after %v", err, d, tt.ok, tt.took)
					}
					if err != nil && (!errors.Is(err, gracedb.ErrConnection) || errors.Is(err, gracedb.ErrOutcomeUnknown) || strings.Contains(err.Error(), "may exist")) {
						t.Errorf("%v: want ErrConnection and nothing done", err)
					}
				})
			})
		}
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
