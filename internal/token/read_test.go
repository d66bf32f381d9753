package token

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// testBuildFiles checks that each system gets one way to open files.
func testBuildFiles(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "freebsd", "openbsd", "illumos", "windows", "js", "wasip1"} {
		ctx := build.Default
		ctx.GOOS = goos
		var got []string
		for _, name := range []string{"open_unix.go", "open_other.go"} {
			if ok, err := ctx.MatchFile(".", name); err != nil {
				t.Fatal(err)
			} else if ok {
				got = append(got, name)
			}
		}
		want := "open_unix.go"
		if slices.Contains([]string{"windows", "js", "wasip1"}, goos) {
			want = "open_other.go"
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s is built with %v, want %s", goos, got, want)
		}
	}
}

// A scripted Finder reads from a script instead of a file.
func scripted(t *testing.T, steps ...func() (content, error)) (*Finder, *atomic.Int32) {
	unset(t)
	t.Setenv("BEARER_TOKEN_FILE", "/scripted")
	var reads atomic.Int32
	return &Finder{Query: gracedb, Tmp: t.TempDir(), readFile: func(path string, r rules) (content, error) {
		if path != "/scripted" {
			return readFile(path, r)
		}
		return steps[min(int(reads.Add(1)), len(steps))-1]()
	}}, &reads
}

func young(text string) func() (content, error) {
	return func() (content, error) { return content{text: text}, nil }
}

func old(text string) func() (content, error) {
	return func() (content, error) { return content{text: text, settled: true}, nil }
}

func failing(err error) func() (content, error) {
	return func() (content, error) { return content{}, err }
}

// Case 54 and what else a look-up meets while a file is renewed.
func TestCase54_Rotation(t *testing.T) {
	a, b := mint(claims{"sub": "a"}), mint(claims{"sub": "b"})
	gone := failing(fs.ErrNotExist)
	for _, tt := range []struct {
		name  string
		steps []func() (content, error)
		want  string // the subject, or what the error says
		reads int32
		took  time.Duration
	}{
		{"old file", []func() (content, error){old(a)}, "a", 1, 0},
		{"young file", []func() (content, error){young(a), young(a)}, "a", 2, 20 * time.Millisecond},
		{"young, then old", []func() (content, error){young(a), old(b)}, "b", 2, 20 * time.Millisecond},
		{"half written", []func() (content, error){young(a[:300]), young(a), young(a)}, "a", 3, 40 * time.Millisecond},
		{"changes between the readings", []func() (content, error){young(a), young(b), young(b)}, "b", 3, 40 * time.Millisecond},
		{"never stops", []func() (content, error){young(a), young(b), young(a), young(b), young(a), young(a)}, "it is being rewritten", 5, 80 * time.Millisecond},
		{"removed and put back", []func() (content, error){gone, young(a), young(a)}, "a", 3, 40 * time.Millisecond},
		{"emptied and written", []func() (content, error){old(""), old(a)}, "a", 2, 20 * time.Millisecond},
		{"emptied long ago", []func() (content, error){old("")}, "scripted: empty", 3, 40 * time.Millisecond},
		{"stays away", []func() (content, error){gone}, "scripted: file does not exist", 3, 40 * time.Millisecond},
		{"vanishes between the readings", []func() (content, error){young(a), gone, young(a), young(a)}, "a", 4, 60 * time.Millisecond},
		{"not to be read", []func() (content, error){failing(fs.ErrPermission)}, "permission denied", 1, 40 * time.Millisecond},
		{"half written, for good", []func() (content, error){old(a[:300])}, "not a token", 1, 40 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, reads := scripted(t, tt.steps...)
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				found, err := f.Find(t.Context())
				if got := found.Claims.Subject + errText(err); !strings.Contains(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if got := reads.Load(); got != tt.reads {
					t.Errorf("%d readings, want %d", got, tt.reads)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

// A place that has to be read again keeps its rank over those behind it.
func TestYoungFileKeepsItsPlace(t *testing.T) {
	w := newWorld(t)
	path := w.put("SCITOKEN_FILE", mint(claims{"sub": "first", "aud": gracedb.Audience}))
	w.put("BEARER_TOKEN", mint(claims{"sub": "second", "aud": gracedb.Audience}))
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	w.wantSub(gracedb, "first")
}

// A young file that somebody touched into the future is read twice, not refused:
// that covers the fake clock of tests as well as the real one of a file server.
func TestFutureFile(t *testing.T) {
	w := newWorld(t)
	path := w.put("BEARER_TOKEN_FILE", mint(claims{"sub": "good"}))
	ahead := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, ahead, ahead); err != nil {
		t.Fatal(err)
	}
	w.wantSub(gracedb, "good")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := Finder{Query: gracedb, Tmp: w.tmp}
		if _, err := f.Find(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// Case 59: a file system that does not answer. ctx holds; other places are still
// looked at; the stuck reading is picked up again instead of repeated.
func TestCase59_HungRead(t *testing.T) {
	answer := make(chan struct{})
	f, reads := scripted(t, func() (content, error) { return content{}, nil })
	synctest.Test(t, func(t *testing.T) {
		answer = make(chan struct{})
		raw := mint(claims{"sub": "late"})
		f.readFile = func(path string, r rules) (content, error) {
			if path != "/scripted" {
				return readFile(path, r)
			}
			reads.Add(1)
			<-answer
			return content{text: raw, settled: true}, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := f.Find(ctx)
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("with ctx: took %v", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "/scripted: context deadline exceeded") {
			t.Errorf("with ctx: %v", err)
		}

		start = time.Now()
		_, err = f.Find(t.Context())
		if took := time.Since(start); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("without ctx: took %v", took)
		}
		if err == nil || !strings.Contains(err.Error(), "/scripted: no answer within 2s") {
			t.Errorf("without ctx: %v", err)
		}

		t.Setenv("SCITOKEN", mint(claims{"sub": "other", "aud": "https://elsewhere"}))
		if found, err := f.Find(t.Context()); err != nil || found.Claims.Subject != "other" {
			t.Errorf("with another place: %q, %v", found.Claims.Subject, err)
		}

		for range 100 {
			go f.Find(ctx)
		}
		synctest.Wait()
		if n := reads.Load(); n != 1 {
			t.Errorf("%d readings hang, want 1", n)
		}
		time.AfterFunc(time.Second, func() { close(answer) })
		if found, err := f.Find(t.Context()); err != nil || found.Claims.Subject != "late" {
			t.Errorf("once it answers: %q, %v", found.Claims.Subject, err)
		}
		if len(f.readings.stuck) != 0 {
			t.Error("a reading is still marked as stuck")
		}
	})
}

// rewrite replaces the content of a file in one of the styles seen in the field.
var rewrite = map[string]func(path, text string) error{
	"rename": func(path, text string) error {
		if err := os.WriteFile(path+".tmp", []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(path+".tmp", path)
	},
	"remove and rename": func(path, text string) error {
		os.Remove(path)
		if err := os.WriteFile(path+".tmp", []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(path+".tmp", path)
	},
	"truncate and write": func(path, text string) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		half := len(text) / 2
		_, err1 := f.WriteString(text[:half])
		time.Sleep(500 * time.Microsecond)
		_, err2 := f.WriteString(text[half:])
		return errors.Join(err1, err2, f.Close())
	},
}

// rewrites is how often each race test writes; TOKEN_REWRITES makes it more.
func rewrites() int {
	if n, err := strconv.Atoi(os.Getenv("TOKEN_REWRITES")); err == nil {
		return n
	}
	return 150
}

// Case 53, fault rows T13 and T14: whatever the writer's style, no reader gets a
// token that was not written as a whole. (That none gets an error either is for
// ReloadToken, which has an old token to fall back on.)
func TestCase53_WriterAndReaders(t *testing.T) {
	for style, write := range rewrite {
		t.Run(style, func(t *testing.T) {
			w := newWorld(t)
			path := w.put("BEARER_TOKEN_FILE", mint(claims{"jti": "first"}))
			var written sync.Map
			raw, _ := os.ReadFile(path)
			written.Store(string(raw), true)

			done := make(chan struct{})
			var found, failed atomic.Int64
			var readers sync.WaitGroup
			f := Finder{Query: gracedb, Tmp: w.tmp}
			for range 100 {
				readers.Go(func() {
					for {
						got, err := f.Find(context.Background())
						if err != nil {
							failed.Add(1)
						} else if _, ok := written.Load(got.Token); !ok {
							t.Errorf("torn token of %d bytes", len(got.Token))
							return
						} else {
							found.Add(1)
						}
						select {
						case <-done:
							return
						default:
						}
					}
				})
			}
			for i := range rewrites() {
				text := mint(claims{"jti": fmt.Sprint(i)})
				written.Store(text, true)
				if err := write(path, text); err != nil {
					t.Error(err)
				}
				// A pause now and then, as a writer in the field makes.
				if i%10 == 0 {
					time.Sleep(25 * time.Millisecond)
				}
				runtime.Gosched()
			}
			close(done)
			readers.Wait()
			t.Logf("%d tokens, %d times none", found.Load(), failed.Load())
			if found.Load() == 0 {
				t.Error("no token was found at all")
			}
		})
	}
}
