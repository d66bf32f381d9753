package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gracedb-go/gracedb/internal/interop"
)

//go:embed install.py
var installScript string

// sizesSection builds the smallest program that does everything, and weighs it.
func sizesSection(ctx context.Context, _ *bench) (r result, err error) {
	dir, err := os.MkdirTemp("", "sizes-*")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary := filepath.Join(dir, "smallest")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./smallest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return r, fmt.Errorf("go build: %w\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		return r, err
	}
	modules, err := linked(ctx)
	if err != nil {
		return r, err
	}
	python, err := interop.Python(ctx)
	if err != nil {
		return r, err
	}
	out, err := exec.CommandContext(ctx, python, "-c", installScript).Output()
	if err != nil {
		return r, fmt.Errorf("install.py: %w", err)
	}
	var installed struct{ Packages, Bytes float64 }
	if err := json.Unmarshal(out, &installed); err != nil {
		return r, err
	}
	r.Text = "Ours: one static binary that publishes, consumes and uploads (`internal/bench/smallest`, stripped), and the modules linked into it, " +
		"the library's own apart. Peer: the files of ligo-gracedb[kafka] and of what it needs, without Python, pip and what Python compiles on first use."
	size := newFigure("installed", "MB", map[string][]float64{ours: {float64(info.Size()) / 1e6}, peer: {installed.Bytes / 1e6}})
	size.atMost(12)
	r.Figures = append(r.Figures, size, newFigure("dependencies", "modules or packages",
		map[string][]float64{ours: {float64(len(modules))}, peer: {installed.Packages - 1}}))
	r.After = "Linked: " + strings.Join(modules, ", ") + "."
	return r, nil
}

// linked returns the modules that the program is made of, this repository's apart.
func linked(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./smallest").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var modules []string
	seen := map[string]bool{"": true}
	for path := range strings.SplitSeq(string(out), "\n") {
		if !seen[path] && !strings.HasPrefix(path, "github.com/gracedb-go/") {
			modules = append(modules, path)
		}
		seen[path] = true
	}
	return modules, nil
}
