package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// A commit of this repository may be measured beside what is here: its library, in the
// child program that is here. That does the same with both, as long as the library's
// surface is the same.

// buildBefore builds the child program of the library as a commit has it, below dir, and
// returns where it is.
func buildBefore(ctx context.Context, commit, dir string) (program string, err error) {
	tree := filepath.Join(dir, before)
	if err := os.Mkdir(tree, 0o700); err != nil {
		return "", err
	}
	archive := exec.CommandContext(ctx, "git", "archive", "--format=tar", commit)
	archive.Dir = root // git archives the directory that it is called in
	var files, said bytes.Buffer
	archive.Stdout, archive.Stderr = &files, &said
	if err := archive.Run(); err != nil {
		return "", fmt.Errorf("git archive %s: %w: %s(a shallow clone does not have it; -before= measures without)", commit, err, &said)
	}
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", tree)
	unpack.Stdin = &files
	if out, err := unpack.CombinedOutput(); err != nil {
		return "", fmt.Errorf("tar: %w: %s", err, out)
	}
	module := filepath.Join(tree, "internal", "bench")
	if err := os.RemoveAll(filepath.Join(module, "child")); err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(module, "child"), os.DirFS("child")); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "child-"+before)
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./child")
	build.Dir = module
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build at %s: %w\n%s", commit, err, out)
	}
	return program, nil
}
