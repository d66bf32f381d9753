package savefile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/savefile"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// Whatever somebody else calls a file, it is one file in the directory.
func TestName(t *testing.T) {
	long := strings.Repeat("é", 300)
	for _, tt := range []struct{ id, file, want string }{
		{"G1001", "coinc.xml", "G1001-coinc.xml"},
		{"G1001", "a/b/coinc.xml.gz", "G1001-coinc.xml.gz"},
		{"G1001", "../../etc/passwd", "G1001-passwd"},
		{"G1001", `C:\windows\x.dll`, "G1001-x.dll"},
		{"G1001", "", "G1001-event"},
		{"G1001", "..", "G1001-event"},
		{"G1001", "a/", "G1001-event"},
		{"G1001", " . ", "G1001-event"},
		{"COM1", "", "COM1-event"},
		{"NUL", "NUL", "NUL-NUL"},
		{"G1001", "a\x00b\nc\x1b[31md\u202ee", "G1001-a_b_c__31md_e"},
		{"G1001", "a b;rm -rf $HOME`|<>*?:\"'", "G1001-a_b_rm_-rf__HOME_________"},
		{"G1001", "x.xml:stream", "G1001-x.xml_stream"},
		{"G1001", "x.xml. ", "G1001-x.xml._"},
		{"G1001", "x.xml.", "G1001-x.xml_"},
		{"G1001", long + ".xml", "G1001-" + strings.Repeat("_", 96) + ".xml"},
		{"../../x", "y", "_._.._x-y"},
		{".x", "y", "_x-y"},
		{"-x", "y", "_x-y"},
		{"", "y", "_y"},
		{long, "y", strings.Repeat("_", savefile.MaxID) + "-y"},
		{"G1001", "\xff\xfe", "G1001-__"},
	} {
		got := savefile.Name(tt.id, tt.file)
		if got != tt.want {
			t.Errorf("%q, %q: %q, want %q", tt.id, tt.file, got, tt.want)
		}
		if !filepath.IsLocal(got) || filepath.Base(got) != got || len(got) > 200 {
			t.Errorf("%q is no name in a directory", got)
		}
	}
}

func withoutLinks(*os.Root, string, string) error {
	return &os.LinkError{Op: "linkat", Err: syscall.EPERM}
}

// ways are the file systems with hard links and those without.
var ways = map[string]savefile.Linker{"links": (*os.Root).Link, "no links": withoutLinks}

func TestSave(t *testing.T) {
	for way, link := range ways {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			const name = "G1-x.xml"
			for range 2 { // the second finds the first's
				path, err := savefile.SaveBy(dir, name, []byte("event"), link)
				if got, readErr := os.ReadFile(path); err != nil || readErr != nil || string(got) != "event" {
					t.Fatal(path, err, readErr, got)
				}
			}
			for _, other := range []string{"", "event ", "even", "Event"} {
				path, err := savefile.SaveBy(dir, name, []byte(other), link)
				wantErr(t, err, fs.ErrExist, filepath.Join(dir, name), "another content")
				if path != "" {
					t.Error(path)
				}
			}
			if path, err := savefile.SaveBy(dir, "empty", nil, link); err != nil || path == "" {
				t.Error(path, err)
			}
			wantFiles(t, dir, map[string]string{name: "event", "empty": ""})

			_, err := savefile.SaveBy(filepath.Join(dir, "missing"), name, nil, link)
			wantErr(t, err, fs.ErrNotExist, "missing")
			_, err = savefile.SaveBy(filepath.Join(dir, name), name, nil, link)
			wantErr(t, err, nil, name, "not a directory")
		})
	}
}

// What is no file stays, is not followed and not waited for.
func TestSaveBesideOthers(t *testing.T) {
	for way, link := range ways {
		t.Run(way, func(t *testing.T) {
			dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
			if err := os.WriteFile(outside, []byte("event"), 0o600); err != nil {
				t.Fatal(err)
			}
			fifo := testrig.MakeFIFO(t, dir)
			for name, plant := range map[string]func(string) error{
				"link":     func(p string) error { return os.Symlink(outside, p) },
				"dangling": func(p string) error { return os.Symlink(outside+"-not", p) },
				"dir":      func(p string) error { return os.Mkdir(p, 0o700) },
				"fifo":     func(p string) error { return os.Rename(fifo, p) },
			} {
				if name == "fifo" && fifo == "" {
					continue
				}
				if err := plant(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				for _, data := range []string{"event", ""} { // a FIFO has nothing in it
					_, err := savefile.SaveBy(dir, name, []byte(data), link)
					wantErr(t, err, fs.ErrExist, name)
				}
			}
			if _, err := os.Lstat(outside + "-not"); !errors.Is(err, fs.ErrNotExist) {
				t.Error("written through a link:", err)
			}
		})
	}
}

// A file that comes while another of its name is written stays.
func TestSaveOvertaken(t *testing.T) {
	for way, link := range ways {
		t.Run(way, func(t *testing.T) {
			for other, want := range map[string]error{"event": nil, "other": fs.ErrExist} {
				dir := t.TempDir()
				_, err := savefile.SaveBy(dir, "G1-x", []byte("event"), func(root *os.Root, temp, name string) error {
					if err := root.WriteFile(name, []byte(other), 0o600); err != nil {
						t.Fatal(err)
					}
					return link(root, temp, name)
				})
				if !errors.Is(err, want) {
					t.Errorf("%s: %v", other, err)
				}
				wantFiles(t, dir, map[string]string{"G1-x": other})
			}
		})
	}
}

// Of many at once that save different things under one name, one wins, and nobody ever sees
// half a file.
func TestSaveAtOnce(t *testing.T) {
	for way, link := range ways {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			const name, callers = "G1-x", 8
			content := func(i int) []byte { return bytes.Repeat([]byte(strconv.Itoa(i)), 300_000) }
			done := make(chan struct{})
			var watcher, savers sync.WaitGroup
			watcher.Go(func() {
				for {
					b, err := os.ReadFile(filepath.Join(dir, name))
					if err == nil && (len(b) != 300_000 || !bytes.Equal(b, content(int(b[0]-'0')))) {
						t.Errorf("seen with %d bytes", len(b))
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
			var mu sync.Mutex
			won := map[int]bool{}
			for i := range 2 * callers {
				savers.Go(func() {
					_, err := savefile.SaveBy(dir, name, content(i%callers), link)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						won[i%callers] = true
					case !errors.Is(err, fs.ErrExist):
						t.Error(err)
					}
				})
			}
			savers.Wait()
			close(done)
			watcher.Wait()
			if len(won) != 1 {
				t.Errorf("%d contents were saved under one name", len(won))
			}
			for i := range won {
				wantFiles(t, dir, map[string]string{name: string(content(i))})
			}
		})
	}
}

// A claim that a crash left behind is named, not removed: a program that is only slow may
// have it.
func TestSaveClaimed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".G1-x.claim"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := savefile.SaveBy(dir, "G1-x", []byte("event"), withoutLinks)
	wantErr(t, err, nil, ".G1-x.claim", "remove it")
	wantFiles(t, dir, map[string]string{".G1-x.claim": ""})
}

// An Upload is saved under what names its event, whatever else it says.
func TestUploadSave(t *testing.T) {
	const id = "2cf24dba-5fb0-a30e-26e8-3b2ac5b9e29e" // of "hello"
	for _, tt := range []struct {
		graceID, contentID, want string
	}{
		{"G1001", id, "G1001"}, {"T1", "", "T1"}, {"", id, id}, {"", strings.ToUpper(id), id}, {"", "", id},
	} {
		u := gracedb.Upload{GraceID: tt.graceID, ContentID: tt.contentID, Filename: "a/coinc.xml", Data: []byte("hello")}
		if got := u.ID(); got != tt.want {
			t.Errorf("%+v: ID is %s", tt, got)
		}
		dir := t.TempDir()
		path, err := u.Save(dir)
		if want := filepath.Join(dir, tt.want+"-coinc.xml"); err != nil || path != want {
			t.Errorf("%+v: %s, %v; want %s", tt, path, err, want)
		}
		wantFiles(t, dir, map[string]string{tt.want + "-coinc.xml": "hello"})
	}
	dir := t.TempDir()
	for _, graceID := range []string{"../../G1", "G1/..", "/etc/G1", "G1\x00", "CON"} {
		path, err := gracedb.Upload{GraceID: graceID, Filename: "x", Data: []byte("hello")}.Save(dir)
		wantErr(t, err, gracedb.ErrEvent, "is not a graceid")
		if path != "" {
			t.Error(path)
		}
	}
	wantFiles(t, dir, nil)
}

func wantErr(t *testing.T, err, is error, says ...string) {
	t.Helper()
	if err == nil || is != nil && !errors.Is(err, is) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v; want one line, and %v", err, is)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v does not say %q", err, text)
		}
	}
}

// wantFiles fails unless just these files are in dir.
func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if content, ok := want[e.Name()]; !ok || err != nil || string(got) != content {
			t.Errorf("%s is there with %d bytes, %v", e.Name(), len(got), err)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d files, want %d", len(entries), len(want))
	}
}
