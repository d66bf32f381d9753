package token_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// Case 57, fault row T19.
func TestCase57_ThousandCallers(t *testing.T) {
	for name, held := range map[string]bool{"at the start": false, "at the expiry": true} {
		bubble(t, name, func(t *testing.T) {
			s := &issuer{raw: tokenIn(time.Hour)}
			r := gracedb.ReloadToken(s.token, 5*time.Minute)
			if held {
				wantToken(t.Context(), t, r, s.raw)
				time.Sleep(time.Hour)
			}
			before := s.count()
			s.delay = 20 * time.Millisecond
			s.set(tokenIn(time.Hour), nil)
			var wg sync.WaitGroup
			for range 1000 {
				wg.Go(func() {
					if got, err := r(t.Context()); err != nil || got != s.raw {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			wantAsked(t, s, before+1)
		})
	}
}

func TestCase58_CallersWhoLeave(t *testing.T) {
	bubble(t, "the first of two", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour), delay: time.Second}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			start := time.Now()
			if _, err := r(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errs.Token) {
				t.Errorf("the first: %v", err)
			}
			if took := time.Since(start); took != 100*time.Millisecond {
				t.Errorf("the first waited %v", took)
			}
		})
		synctest.Wait()
		wantToken(t.Context(), t, r, s.raw)
		wg.Wait()
		wantAsked(t, s, 1)
	})
	bubble(t, "all", func(t *testing.T) {
		ended := make(chan error, 1)
		r := gracedb.ReloadToken(func(ctx context.Context) (string, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return "", ctx.Err()
		}, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := r(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := <-ended; err == nil {
			t.Error("the source was not told")
		}
	})
	// Who comes while the question of those who left is dying asks anew.
	bubble(t, "one too late", func(t *testing.T) {
		raw := tokenIn(time.Hour)
		var n atomic.Int32
		r := gracedb.ReloadToken(func(ctx context.Context) (string, error) {
			if n.Add(1) > 1 {
				return raw, nil
			}
			<-ctx.Done()
			time.Sleep(time.Second) // slow to notice
			return "", ctx.Err()
		}, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := r(ctx); err == nil {
			t.Error("no error")
		}
		wantToken(t.Context(), t, r, raw)
	})
}

func TestCase59_BrokenSources(t *testing.T) {
	for name, src := range map[string]gracedb.TokenSource{
		"panics":             func(context.Context) (string, error) { panic("oops") },
		"ends its goroutine": func(context.Context) (string, error) { runtime.Goexit(); return "", nil },
		"fails":              func(context.Context) (string, error) { return "", errors.New("oops") },
		"is empty":           func(context.Context) (string, error) { return "", nil },
		"expired":            func(context.Context) (string, error) { return tokenIn(-time.Hour), nil },
		"hangs":              func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() },
	} {
		bubble(t, name, func(t *testing.T) {
			broken := false
			raw := tokenIn(time.Hour)
			r := gracedb.ReloadToken(func(ctx context.Context) (string, error) {
				if broken {
					return src(ctx)
				}
				return raw, nil
			}, 5*time.Minute)
			wantToken(t.Context(), t, r, raw)
			broken = true
			time.Sleep(55 * time.Minute)
			start := time.Now()
			wantToken(t.Context(), t, r, raw)
			if took := time.Since(start); took > 250*time.Millisecond {
				t.Errorf("a valid token was held back for %v", took)
			}
			start = time.Now()
			for range 1000 {
				wantToken(t.Context(), t, r, raw)
			}
			if took := time.Since(start); took > 0 {
				t.Errorf("a valid token was held back for another %v", took)
			}
			time.Sleep(5 * time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			start = time.Now()
			_, err := r(ctx)
			if !errors.Is(err, errs.Token) || time.Since(start) > 2*time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
	}
}

// A renewal that takes longer than a caller is made to wait is not lost.
func TestSlowRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		first := s.raw
		wantToken(t.Context(), t, r, first)
		time.Sleep(55 * time.Minute)
		s.delay = 10 * time.Second
		s.set(tokenIn(time.Hour), nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		wantToken(ctx, t, r, first)
		cancel() // the caller's end does not end the question
		time.Sleep(11 * time.Second)
		wantToken(t.Context(), t, r, s.raw)
		wantAsked(t, s, 2)
	})
}

func TestCase60_Refused(t *testing.T) {
	bubble(t, "a better one is there", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		refused := s.raw
		wantToken(t.Context(), t, r, refused)
		s.set(tokenIn(30*time.Minute), nil)
		hint := token.WithHints(t.Context(), refused, nil)
		for range 10 {
			wantToken(hint, t, r, s.raw)
		}
		wantToken(t.Context(), t, r, s.raw)
		wantAsked(t, s, 2)
	})
	bubble(t, "the same again", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		wantToken(t.Context(), t, r, s.raw)
		hint := token.WithHints(t.Context(), s.raw, nil)
		for i := range 5 {
			wantToken(hint, t, r, s.raw) // whoever presents it knows that it was refused
			wantAsked(t, s, i+2)
		}
	})
	bubble(t, "an error", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		raw := s.raw
		wantToken(t.Context(), t, r, raw)
		cause := errors.New("away")
		s.set("", cause)
		if _, err := r(token.WithHints(t.Context(), raw, nil)); !errors.Is(err, errs.Token) || !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
		wantToken(t.Context(), t, r, raw) // others, who were not refused, go on
	})
	bubble(t, "one long gone", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		wantToken(t.Context(), t, r, s.raw)
		for range 10 {
			wantToken(token.WithHints(t.Context(), tokenIn(time.Hour), nil), t, r, s.raw)
		}
		wantAsked(t, s, 1)
	})
	bubble(t, "the source goes back to it", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 2*time.Hour)
		refused := s.raw
		wantToken(t.Context(), t, r, refused)
		hint := token.WithHints(t.Context(), refused, nil)
		better := tokenIn(50 * time.Minute)
		s.set(better, nil)
		wantToken(hint, t, r, better)
		s.set(refused, nil)
		time.Sleep(5 * time.Second)
		wantToken(hint, t, r, better)
	})
	// A question under way may be answered with what was refused meanwhile.
	bubble(t, "asked before the refusal", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 2*time.Hour)
		refused := s.raw
		wantToken(t.Context(), t, r, refused)
		time.Sleep(5 * time.Second)
		s.delay = 100 * time.Millisecond
		go r(t.Context())
		synctest.Wait()
		s.set(tokenIn(time.Hour), nil)
		wantToken(token.WithHints(t.Context(), refused, nil), t, r, s.raw)
		wantAsked(t, s, 3)
	})
}

// What a source panics with is shown, but for the token in it.
func TestPanicTextIsRedacted(t *testing.T) {
	raw := tokenIn(time.Hour)
	first := true
	r := gracedb.ReloadToken(func(context.Context) (string, error) {
		if first {
			first = false
			return raw, nil
		}
		panic("index out of range in " + raw[40:])
	}, 0)
	wantToken(t.Context(), t, r, raw)
	_, err := r(token.WithHints(t.Context(), raw, nil))
	if err == nil || !strings.Contains(err.Error(), "panicked: index out of range in [token removed]") {
		t.Fatalf("error %v", err)
	}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, raw[60:100]) {
			t.Errorf("shows the token: %s", text)
		}
	}
}

// A broker's refusal makes the source be asked again. Who closes the client meanwhile does
// not wait for that.
func TestRefusedWhileTheSourceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		m := gracedb.OAuthBearer(func(ctx context.Context) (string, error) {
			if asked++; asked == 1 {
				return tokenIn(time.Hour), nil
			}
			<-ctx.Done()
			return "", ctx.Err()
		})
		s, _, err := m.Authenticate(ctx, "kafka.test")
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if _, _, err := s.Challenge([]byte(`{"status":"invalid_token"}`)); !errors.Is(err, errs.Authentication) {
			t.Errorf("%v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}
