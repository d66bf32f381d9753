//go:build unix && !solaris

package token

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestCase75_NotFiles(t *testing.T) {
	w := newWorld(t)
	fifo, socket := filepath.Join(w.dir, "fifo"), filepath.Join(w.dir, "s")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, path := range []string{fifo, socket, "/dev/zero", "/dev/null", "/dev/tty"} {
		for _, name := range []string{"SCITOKEN_FILE", "BEARER_TOKEN_FILE", "_CONDOR_CREDS"} {
			w := newWorld(t)
			w.set(name, path)
			start := time.Now()
			w.wantError(gracedb, "$"+name+" "+path+": ")
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: took %v", path, took)
			}
		}
	}
	for _, place := range []string{"XDG_RUNTIME_DIR", "tmp"} {
		w := newWorld(t)
		path := w.put(place, "")
		if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		w.wantError(gracedb, path+": it is not a regular file")
	}
}
