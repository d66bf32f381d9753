//go:build unix && !solaris && !aix

package testrig

import (
	"path/filepath"
	"syscall"
	"testing"
)

// MakeFIFO returns a FIFO that nobody writes to.
func MakeFIFO(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "fifo.pem")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
