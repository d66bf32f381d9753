package token_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

func TestCase51_VanishesInsideBuffer(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{})
	file := filepath.Join(tmp, "file")
	t.Setenv("BEARER_TOKEN_FILE", file)
	synctest.Test(t, func(t *testing.T) {
		raw := tokenIn(time.Hour)
		writeToken(t, file, raw)
		r := gracedb.ReloadToken(find, 5*time.Minute)
		log, logged := newTestLogger()
		ctx := token.WithHints(t.Context(), "", log)
		wantToken(ctx, t, r, raw)
		end := time.Now().Add(time.Hour)
		os.Remove(file)
		time.Sleep(55 * time.Minute)
		for time.Now().Before(end) {
			if got, err := r(ctx); err != nil || got != raw {
				t.Fatalf("%v before the expiry: %v", time.Until(end), err)
			}
			time.Sleep(time.Second)
		}
		_, err := r(ctx)
		if !errors.Is(err, errs.Token) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), file) {
			t.Errorf("after the expiry: %v", err)
		}
		if n := strings.Count(logged.String(), "token not renewed yet"); n != 1 {
			t.Errorf("warned %d times:\n%s", n, logged)
		}
	})
}

func TestCase52_DamagedDuringRotation(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{Audience: []string{"https://kafka.test"}})
	dir := filepath.Join(tmp, "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(file, raw string) error{
		"empty":     func(file, raw string) error { return os.WriteFile(file, nil, 0o600) },
		"truncated": func(file, raw string) error { return os.WriteFile(file, []byte(raw[:len(raw)-40]), 0o600) },
		"garbage":   func(file, raw string) error { return os.WriteFile(file, []byte("garbage"), 0o600) },
		"directory": func(file, raw string) error { return errors.Join(os.Remove(file), os.Mkdir(file, 0o700)) },
	} {
		bubble(t, name, func(t *testing.T) {
			file := filepath.Join(dir, name)
			t.Setenv("BEARER_TOKEN_FILE", file)
			raw := tokenIn(time.Hour)
			writeToken(t, file, raw)
			r := gracedb.ReloadToken(find, 5*time.Minute)
			wantToken(t.Context(), t, r, raw)
			time.Sleep(55 * time.Minute)
			if err := damage(file, raw); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				wantToken(t.Context(), t, r, raw)
				time.Sleep(time.Second)
			}
			next := tokenIn(time.Hour)
			os.Remove(file)
			writeToken(t, file, next)
			time.Sleep(5 * time.Second)
			wantToken(t.Context(), t, r, next)
		})
	}
	// A source of the user's own may have read half a file.
	bubble(t, "half a token from another source", func(t *testing.T) {
		s := &issuer{raw: tokenIn(time.Hour)}
		r := gracedb.ReloadToken(s.token, 5*time.Minute)
		raw := s.raw
		wantToken(t.Context(), t, r, raw)
		time.Sleep(55 * time.Minute)
		for _, half := range []string{raw[:300], ""} {
			s.set(half, nil)
			wantToken(t.Context(), t, r, raw)
			time.Sleep(5 * time.Second)
		}
	})
}

// Case 53, fault rows T10, T12-T14: whatever the writer does to the file, no
// reader gets an error or half a token, as long as the token in use is valid.
func TestCase53_WriterAndReadersReload(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{})
	for style, write := range map[string]func(file, raw string){
		"rename": func(file, raw string) {
			os.WriteFile(file+".tmp", []byte(raw), 0o600)
			os.Rename(file+".tmp", file)
		},
		"remove and rename": func(file, raw string) {
			os.Remove(file)
			time.Sleep(3 * time.Millisecond)
			os.WriteFile(file+".tmp", []byte(raw), 0o600)
			os.Rename(file+".tmp", file)
		},
		"truncate and write": func(file, raw string) {
			f, err := os.Create(file)
			if err != nil {
				return
			}
			defer f.Close()
			f.WriteString(raw[:len(raw)/2])
			time.Sleep(8 * time.Millisecond)
			f.WriteString(raw[len(raw)/2:])
		},
	} {
		bubble(t, style, func(t *testing.T) {
			file := filepath.Join(tmp, strings.ReplaceAll(style, " ", "_"))
			t.Setenv("BEARER_TOKEN_FILE", file)
			var written sync.Map
			renew := func() {
				raw := tokenIn(time.Hour)
				written.Store(raw, true)
				write(file, raw)
			}
			renew()
			// Always inside the buffer, so asked every 5 s, and one for each reader.
			var sources [100]gracedb.TokenSource
			for i := range sources {
				sources[i] = gracedb.ReloadToken(find, 2*time.Hour)
				if _, err := sources[i](t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			end := time.Now().Add(20 * time.Second)
			var wg sync.WaitGroup
			wg.Go(func() {
				for time.Now().Before(end) {
					renew()
					time.Sleep(7 * time.Millisecond)
				}
			})
			for i, r := range sources {
				wg.Go(func() {
					for time.Now().Before(end) {
						got, err := r(t.Context())
						if _, ok := written.Load(got); err != nil || !ok {
							t.Errorf("a whole token: %v, error: %v", ok, err)
							return
						}
						time.Sleep(time.Duration(900+i) * time.Millisecond)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestCase61_LastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		find, tmp := noTokens(t, gracedb.TokenQuery{})
		file := filepath.Join(tmp, "file")
		t.Setenv("BEARER_TOKEN_FILE", file)
		raw := tokenIn(time.Hour)
		writeToken(t, file, raw)
		r := gracedb.ReloadToken(find, 5*time.Minute)
		end := time.Now().Add(time.Hour)
		wantToken(t.Context(), t, r, raw)
		time.Sleep(59*time.Minute + 1*time.Second)
		for time.Until(end) > 0 {
			wantToken(t.Context(), t, r, raw)
			time.Sleep(time.Second)
		}
		if got, err := r(t.Context()); got != "" || !errors.Is(err, errs.Token) || !strings.Contains(err.Error(), "expired 0s ago") {
			t.Errorf("after the expiry: %v", err)
		}
		// T6: three hours later, the error says so.
		time.Sleep(3 * time.Hour)
		if _, err := r(t.Context()); err == nil || !strings.Contains(err.Error(), "expired 3h ago") {
			t.Errorf("after three hours: %v", err)
		}
	})
}

func TestCase62_SourceMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		find, tmp := noTokens(t, gracedb.TokenQuery{})
		file, creds := filepath.Join(tmp, "file"), filepath.Join(tmp, "creds")
		t.Setenv("BEARER_TOKEN_FILE", file)
		t.Setenv("_CONDOR_CREDS", creds)
		a := tokenIn(time.Hour)
		writeToken(t, file, a)
		r := gracedb.ReloadToken(find, 5*time.Minute)
		wantToken(t.Context(), t, r, a)
		time.Sleep(55 * time.Minute)
		b := tokenIn(time.Hour)
		if err := errors.Join(os.Remove(file), os.Mkdir(creds, 0o700)); err != nil {
			t.Fatal(err)
		}
		writeToken(t, filepath.Join(creds, "igwn.use"), b+"\n")
		wantToken(t.Context(), t, r, b)
	})
}

func TestCase63_VariableExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		find, tmp := noTokens(t, gracedb.TokenQuery{})
		a := tokenIn(time.Hour)
		t.Setenv("BEARER_TOKEN", a)
		r := gracedb.ReloadToken(find, 5*time.Minute)
		wantToken(t.Context(), t, r, a)
		time.Sleep(time.Hour)
		_, err := r(t.Context())
		if err == nil || !strings.Contains(err.Error(), "a variable cannot be renewed while the program runs, a file can") {
			t.Errorf("error %v", err)
		}
		b := tokenIn(time.Hour)
		if os.Geteuid() >= 0 {
			writeToken(t, filepath.Join(tmp, "bt_u"+strconv.Itoa(os.Geteuid())), b)
			wantToken(t.Context(), t, r, b)
		}
	})
}

func TestCase66_NothingLeft(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{})
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	writeToken(t, filepath.Join(tmp, "file"), tokenIn(time.Hour))
	t.Setenv("BEARER_TOKEN_FILE", filepath.Join(tmp, "file"))
	for range 200 {
		r := gracedb.ReloadToken(find, 2*time.Hour)
		for range 3 {
			if _, err := r(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Fault row C2: a month with tokens of three hours, renewed as htgettoken and
// HTCondor do, with a call every twenty seconds.
func TestThirtyDays(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{})
	file := filepath.Join(tmp, "file")
	t.Setenv("BEARER_TOKEN_FILE", file)
	start := time.Now()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		r := gracedb.ReloadToken(func(ctx context.Context) (string, error) {
			asked.Add(1)
			return find(ctx)
		}, 5*time.Minute)
		end := time.Now().Add(30 * 24 * time.Hour)
		var seen string
		var expires, ends time.Time
		for time.Now().Before(end) {
			// Written a minute before the old one ends, the latest of all habits.
			if time.Until(expires) <= 58*time.Second {
				expires = time.Now().Add(3 * time.Hour)
				os.Remove(file)
				writeToken(t, file, tokenOf(expires)+"\n")
			}
			got, err := r(t.Context())
			if err != nil {
				t.Fatalf("%v before the end: %v", time.Until(end), err)
			}
			if got != seen {
				c, err := token.Parse(got)
				if err != nil {
					t.Fatal(err)
				}
				seen, ends = got, c.Expires
			}
			if !time.Now().Before(ends) {
				t.Fatal("got an expired token")
			}
			time.Sleep(20 * time.Second)
		}
		t.Logf("asked %d times", asked.Load())
		// 240 tokens, each asked for in its last five minutes at every call.
		if n := asked.Load(); n > 241*17 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Logf("took %v", time.Since(start))
}

// Fault row C4: a process that was stopped past the expiry of its token.
func TestStoppedPastExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		find, tmp := noTokens(t, gracedb.TokenQuery{})
		file := filepath.Join(tmp, "file")
		t.Setenv("BEARER_TOKEN_FILE", file)
		writeToken(t, file, tokenIn(time.Hour))
		r := gracedb.ReloadToken(find, 5*time.Minute)
		if _, err := r(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + time.Minute)
		next := tokenIn(time.Hour)
		writeToken(t, file, next)
		start := time.Now()
		wantToken(t.Context(), t, r, next)
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}
