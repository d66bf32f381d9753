//go:build !synctests

package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// rebuilt runs the tests of this package with the tag synctests. Without it kgo's
// mutexes are those of package sync, and while one is waited for virtual time
// stands still: what holds it may wait for that time.
func rebuilt() (ran bool, code int) {
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true, 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	exe := filepath.Join(dir, "faults.test")
	args := []string{"test", "-c", "-tags", "synctests", "-o", exe}
	if raced {
		args = append(args, "-race")
	}
	if mode := testing.CoverMode(); mode != "" {
		args = append(args, "-covermode", mode)
	}
	build := exec.Command("go", append(args, ".")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the tests with -tags synctests:", err)
		return true, 1
	}
	test := exec.Command(exe, os.Args[1:]...)
	test.Stdin, test.Stdout, test.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = test.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return true, exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true, 1
	}
	return true, 0
}
