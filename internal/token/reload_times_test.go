package token_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// An issuer is a token source under the control of a test.
type issuer struct {
	mu    sync.Mutex
	raw   string
	err   error
	delay time.Duration
	asked int
	last  time.Time
}

func (s *issuer) set(raw string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw, s.err = raw, err
}

func (s *issuer) token(ctx context.Context) (string, error) {
	s.mu.Lock()
	s.asked, s.last = s.asked+1, time.Now()
	raw, err, delay := s.raw, s.err, s.delay
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return raw, err
}

func (s *issuer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// wantToken asks src and compares.
func wantToken(ctx context.Context, t *testing.T, src gracedb.TokenSource, want string) {
	t.Helper()
	if got, err := src(ctx); err != nil || got != want {
		t.Fatalf("got the token wanted: %v, error: %v", got == want, err)
	}
}

func wantAsked(t *testing.T, s *issuer, want int) {
	t.Helper()
	if got := s.count(); got != want {
		t.Fatalf("the source was asked %d times, want %d", got, want)
	}
}

// bubble runs f on a fake clock.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestCase42_BufferExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		first := s.raw
		wantToken(t.Context(), t, r, first)
		time.Sleep(55*time.Minute - time.Second)
		wantToken(t.Context(), t, r, first)
		wantAsked(t, s, 1)
		time.Sleep(time.Second)
		s.set(tokenIn(time.Hour), nil)
		wantToken(t.Context(), t, r, s.raw)
		wantAsked(t, s, 2)
	})
}

func TestCase44_NoExpiryEachMinute(t *testing.T) {
	for name, raw := range map[string]string{"without exp": tokenOf(nil), "opaque": "opaque"} {
		bubble(t, name, func(t *testing.T) {
			s := &issuer{raw: raw}
			r := gracedb.ReloadToken(s.token, 5*time.Minute)
			for range 10 {
				wantToken(t.Context(), t, r, raw)
				time.Sleep(6 * time.Second)
			}
			wantAsked(t, s, 1)
			wantToken(t.Context(), t, r, raw)
			wantAsked(t, s, 2)
			s.set("", errors.New("away"))
			time.Sleep(time.Minute)
			wantToken(t.Context(), t, r, raw)
			wantAsked(t, s, 3)
		})
	}
}

func TestCase47_OddBuffers(t *testing.T) {
	for _, buffer := range []time.Duration{0, -time.Hour, 1<<63 - 1, -1 << 63, 24 * time.Hour} {
		bubble(t, buffer.String(), func(t *testing.T) {
			s := &issuer{raw: tokenIn(30 * time.Minute)}
			r := gracedb.ReloadToken(s.token, buffer)
			end := time.Now().Add(30 * time.Minute)
			for time.Now().Before(end) {
				wantToken(t.Context(), t, r, s.raw)
				time.Sleep(100 * time.Millisecond)
			}
			want := 1 // at the beginning only
			if buffer > 30*time.Minute {
				want = 30 * 60 / 5
			}
			wantAsked(t, s, want)
			if _, err := r(t.Context()); !errors.Is(err, errs.Token) {
				t.Errorf("after the expiry: %v", err)
			}
		})
	}
}

// Case 48, fault row C1: clocks that are set. A jump forward is a long sleep; for a jump
// backward see TestReloaderClockSetBack.
func TestCase48_Clocks(t *testing.T) {
	bubble(t, "forward", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		wantToken(t.Context(), t, r, s.raw)
		time.Sleep(24 * time.Hour)
		s.set(tokenIn(time.Hour), nil)
		wantToken(t.Context(), t, r, s.raw)
		wantAsked(t, s, 2)
	})
	bubble(t, "far future", func(t *testing.T) {
		for _, exp := range []time.Time{time.Unix(1<<31, 0), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
			s := &issuer{raw: tokenOf(exp)}
			r := gracedb.ReloadToken(s.token, 5*time.Minute)
			wantToken(t.Context(), t, r, s.raw)
			time.Sleep(24 * time.Hour)
			wantToken(t.Context(), t, r, s.raw)
			wantAsked(t, s, 1)
		}
	})
}

func TestCase49_RotatedInTime(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{})
	file := filepath.Join(tmp, "file")
	t.Setenv("BEARER_TOKEN_FILE", file)
	a, b := tokenIn(time.Hour), tokenIn(2*time.Hour)
	writeToken(t, file, a)
	wantToken(t.Context(), t, find, a)
	writeToken(t, file, b)
	wantToken(t.Context(), t, find, b)

	synctest.Test(t, func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		wantToken(t.Context(), t, r, s.raw)
		s.set(tokenIn(2*time.Hour), nil)
		time.Sleep(55 * time.Minute)
		wantToken(t.Context(), t, r, s.raw)
	})
}

func TestCase50_UnchangedInsideBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		wantToken(t.Context(), t, r, s.raw)
		time.Sleep(55 * time.Minute)
		var asked []time.Time
		for range 2000 { // 200 s, ten calls a second
			before := s.count()
			wantToken(t.Context(), t, r, s.raw)
			if s.count() > before {
				asked = append(asked, time.Now())
			}
			time.Sleep(100 * time.Millisecond)
		}
		if len(asked) != 40 {
			t.Errorf("asked %d times in 200 s, want 40", len(asked))
		}
		for i := range asked[1:] {
			if d := asked[i+1].Sub(asked[i]); d < 5*time.Second {
				t.Errorf("asked again after %v", d)
			}
		}
	})
}

func TestCase55_OlderCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		current := s.raw
		wantToken(t.Context(), t, r, current)
		time.Sleep(55 * time.Minute)
		older := tokenIn(time.Minute)
		s.set(older, nil)
		wantToken(t.Context(), t, r, current)
		// Unless the current one was refused: then anything else is better.
		wantToken(token.WithHints(t.Context(), current, nil), t, r, older)
	})
}

func TestCase56_OtherUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logged := newTestLogger()
		ctx := token.WithHints(t.Context(), "", log)
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		wantToken(ctx, t, r, s.raw)
		time.Sleep(55 * time.Minute)
		s.set(tokenIn(time.Minute, "sub", "marie.curie@ligo.org"), nil)
		for range 10 {
			wantToken(ctx, t, r, s.raw)
			time.Sleep(time.Second)
		}
		if n := strings.Count(logged.String(), "another user"); n != 1 || !strings.Contains(logged.String(), "marie.curie@ligo.org") {
			t.Errorf("logged %d times:\n%s", n, logged)
		}
	})
}

// Fault row T20, and what ReloadToken(StaticToken(…)) is for: an error that says
// when the token expired.
func TestStaticTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := tokenIn(time.Hour)
		r := gracedb.ReloadToken(gracedb.StaticToken(raw), 5*time.Minute)
		wantToken(t.Context(), t, r, raw)
		time.Sleep(time.Hour)
		_, err := r(t.Context())
		want := fmt.Sprintf("gracedb: no usable token (get one with: %s): that of the token source expired 0s ago (%s)",
			token.GetCommand, time.Now().UTC().Format(time.RFC3339))
		if !errors.Is(err, errs.Token) || err.Error() != want {
			t.Errorf("error %v\nwant  %s", err, want)
		}
	})
}

func TestReloadTokenFastPathAllocatesNothing(t *testing.T) {
	r := gracedb.ReloadToken(gracedb.StaticToken(tokenIn(time.Hour)), 5*time.Minute)
	ctx := token.WithHints(t.Context(), "another", nil)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := r(ctx); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReloadToken(b *testing.B) {
	r := gracedb.ReloadToken(gracedb.StaticToken(tokenIn(time.Hour)), 5*time.Minute)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReloadTokenParallel(b *testing.B) {
	r := gracedb.ReloadToken(gracedb.StaticToken(tokenIn(time.Hour)), 5*time.Minute)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r(b.Context()); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkFindToken(b *testing.B) {
	find, tmp := noTokens(b, gracedb.TokenQuery{Audience: []string{"https://kafka.test"}, Scopes: []string{"gracedb.read"}})
	file := filepath.Join(tmp, "file")
	writeToken(b, file, tokenIn(time.Hour, "aud", "https://kafka.test"))
	b.Setenv("BEARER_TOKEN_FILE", file)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := find(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
