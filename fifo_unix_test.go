//go:build unix

package gracedb_test

import (
	"path/filepath"
	"syscall"
	"testing"
)

// makeFIFO returns a FIFO that nobody writes to.
func makeFIFO(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "fifo.pem")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
