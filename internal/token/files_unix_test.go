//go:build unix

package token

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCase10_Unreadable(t *testing.T) {
	if asNobody(t, 0o755, credentials()) {
		return
	}
	for _, place := range []string{"SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR", "tmp"} {
		w := newWorld(t)
		path := w.put(place, mint(nil))
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		err := w.wantError(gracedb, path+": permission denied")
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: no fs.ErrPermission inside: %v", place, err)
		}
		if place != "tmp" {
			w.put("tmp", mint(claims{"sub": "good"}))
			w.wantSub(gracedb, "good")
		}
	}
}

// A program that runs as another user than the one who started it looks where
// that other user's token is.
func TestCase14_EffectiveUser(t *testing.T) {
	if os.Getenv("TOKEN_TEST_CHILD") == "" && os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	if asNobody(t, 0o755|os.ModeSetuid, nil) { // set-uid, started by root
		return
	}
	if os.Getuid() == os.Geteuid() {
		t.Skip("the set-uid bit has no effect here (mounted nosuid?)")
	}
	w := newWorld(t)
	w.file("tmp/bt_u0", mint(nil))
	w.wantError(gracedb, "bt_u65534: no such file")
	w.file("tmp/bt_u65534", mint(claims{"sub": "good"}))
	w.wantSub(gracedb, "good")
}

func TestCase71_FileCap(t *testing.T) {
	w := newWorld(t)
	w.put("BEARER_TOKEN_FILE", strings.Repeat("\n", maxFile-2000)+mint(claims{"sub": "good"}))
	w.wantSub(gracedb, "good")

	huge := w.file("huge", "")
	for _, size := range []int64{maxFile + 1, 1 << 30} {
		if err := os.Truncate(huge, size); err != nil {
			t.Fatal(err)
		}
		w.set("BEARER_TOKEN_FILE", huge)
		w.wantError(gracedb, "huge: longer than such a file can be (64 KiB)")
	}
	if err := os.Symlink("/dev/zero", filepath.Join(w.dir, "zero")); err != nil {
		t.Fatal(err)
	}
	w.set("BEARER_TOKEN_FILE", filepath.Join(w.dir, "zero"))
	w.wantError(gracedb, "zero: it is not a regular file")
}

func TestCase73_ForeignOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	for place, refused := range map[string]bool{"XDG_RUNTIME_DIR": true, "tmp": true, "BEARER_TOKEN_FILE": false, "SCITOKEN_FILE": false, "_CONDOR_CREDS": false} {
		w := newWorld(t)
		path := w.put(place, mint(nil))
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if refused {
			w.wantError(gracedb, path+": it belongs to another user (uid 65534)")
		} else if _, err := w.find(gracedb); err != nil {
			t.Errorf("%s: %v", place, err)
		}
	}
}

// What root put there is trusted too.
func TestCase73_RootOwned(t *testing.T) {
	dir := os.Getenv("TOKEN_TEST_ROOT_OWNED")
	if dir == "" {
		if os.Getuid() != 0 {
			t.Skip("only root can make a file of root's")
		}
		dir, err := os.MkdirTemp("", "token-test")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "bt_u65534")
		writeOld(t, path, mint(claims{"sub": "good"}), time.Hour)
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o644)); err != nil {
			t.Fatal(err)
		}
		asNobody(t, 0o755, credentials(), "TOKEN_TEST_ROOT_OWNED="+dir)
		return
	}
	w := newWorld(t)
	w.tmp = dir
	w.wantSub(gracedb, "good")
	w.set("XDG_RUNTIME_DIR", dir)
	w.tmp = w.dir
	w.wantSub(gracedb, "good")
}

func TestCase74_Links(t *testing.T) {
	for _, place := range []string{"SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR", "tmp"} {
		w := newWorld(t)
		path := w.put(place, mint(claims{"sub": "good"}))
		if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
			t.Fatal(err)
		}
		if place == "tmp" {
			w.wantError(gracedb, path+": it is a symbolic link")
		} else {
			w.wantSub(gracedb, "good")
		}
	}
}

// Where anybody may put files, a link chooses which of the user's tokens is sent.
func TestCase74_LinksInSharedDirectories(t *testing.T) {
	for place, shared := range map[string]bool{"XDG_RUNTIME_DIR": true, "XDG_RUNTIME_DIR of one's own": false, "tmp": true, "BEARER_TOKEN_FILE": false} {
		for _, hard := range []bool{false, true} {
			w := newWorld(t)
			name, _, _ := strings.Cut(place, " ")
			path := w.put(name, mint(claims{"sub": "good"}))
			if shared {
				if err := os.Chmod(filepath.Dir(path), 0o777|os.ModeSticky); err != nil {
					t.Fatal(err)
				}
			}
			w.wantSub(gracedb, "good")
			link, reason := os.Symlink, "it is a symbolic link"
			if hard {
				link, reason = os.Link, "it has another name"
			}
			if err := errors.Join(os.Rename(path, path+".real"), link(path+".real", path)); err != nil {
				t.Fatal(err)
			}
			if shared {
				w.wantError(gracedb, path+": "+reason)
			} else {
				w.wantSub(gracedb, "good")
			}
		}
	}
}

// Between a check by name and the opening, a file can be exchanged: the checks
// must hold for what was opened. Here the exchange never stops.
func TestCase76_Exchanged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	w := newWorld(t)
	path := w.put("tmp", mint(claims{"sub": "mine"}))
	mine, theirs := w.file("mine", mint(claims{"sub": "mine"})), w.file("theirs", mint(claims{"sub": "theirs"}))
	if err := os.Chown(theirs, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			file := []string{mine, theirs}[i%2] // with one name at a time: hard links are refused anyhow
			os.Rename(file, path)
			os.Rename(path, file)
		}
	}()
	for range 300 {
		l := newFileLook("", path, rules{ours: true, noFollow: true})
		new(Finder).look(t.Context(), &l)
		if l.claims.Subject == "theirs" {
			t.Fatal("took a foreign token")
		}
	}
	close(stop)
	<-stopped
}

func TestCase77_OpenToOthers(t *testing.T) {
	for mode, warn := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o440: false, 0o640: false, 0o644: true, 0o666: true, 0o620: true} {
		w := newWorld(t)
		path := w.put("BEARER_TOKEN_FILE", mint(claims{"sub": "good"}))
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		found := w.wantSub(gracedb, "good")
		if got := len(found.Warnings) == 1 && strings.Contains(found.Warnings[0], "open to other users"); got != warn {
			t.Errorf("mode %v: warnings %q", mode, found.Warnings)
		}
	}
}

// Kubernetes exchanges a whole directory of links.
func TestCase65_LinkSwap(t *testing.T) {
	w := newWorld(t)
	w.file("..a/token", mint(claims{"sub": "a"}))
	w.file("..b/token", mint(claims{"sub": "b"}))
	data := filepath.Join(w.dir, "..data")
	if err := errors.Join(os.Symlink("..a", data), os.Symlink("..data/token", filepath.Join(w.dir, "token"))); err != nil {
		t.Fatal(err)
	}
	w.set("BEARER_TOKEN_FILE", filepath.Join(w.dir, "token"))
	f := Finder{Query: gracedb, Tmp: w.tmp}
	for _, sub := range []string{"a", "b"} {
		if found, err := f.Find(t.Context()); err != nil || found.Claims.Subject != sub {
			t.Fatalf("found %q: %v", found.Claims.Subject, err)
		}
		if err := errors.Join(os.Symlink("..b", data+"_tmp"), os.Rename(data+"_tmp", data)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCase84_NonUnixBuilds(t *testing.T) {
	testBuildFiles(t)
}
