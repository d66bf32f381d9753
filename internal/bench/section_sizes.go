package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	heaviest, err := heaviest(ctx, dir)
	r.Tables = append(r.Tables, heaviest)
	return r, err
}

// heaviest says whose code and data the program is made of, as far as symbols tell.
func heaviest(ctx context.Context, dir string) (table, error) {
	t := table{Title: "Whose symbols are the largest together, the standard library apart, before the program is stripped:", Head: []string{"module", "kB"}}
	binary := filepath.Join(dir, "unstripped")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./smallest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return t, fmt.Errorf("go build: %w\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, "go", "tool", "nm", "-size", binary).Output()
	if err != nil {
		return t, fmt.Errorf("go tool nm: %w", err)
	}
	sums := make(map[string]float64)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)                       // address, size, kind, name
		if len(f) < 4 || strings.EqualFold(f[2], "b") { // what is zero at the start takes no room in the file
			continue
		}
		size, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			continue
		}
		if module := moduleOf(f[3]); module != "" {
			sums[module] += size / 1000
		}
	}
	names := slices.SortedFunc(maps.Keys(sums), func(a, b string) int { return cmp.Compare(sums[b], sums[a]) })
	for _, name := range names[:min(12, len(names))] {
		t.row(name, sums[name])
	}
	return t, nil
}

// moduleOf returns roughly the module of a symbol, or "" for the standard library,
// whose symbols overlap.
func moduleOf(symbol string) string {
	path := strings.TrimLeft(symbol, "*")
	for _, prefix := range []string{"type:.eq.", "type:.hash.", "type:*", "type:", "go:itab.*", "go:itab."} {
		path = strings.TrimPrefix(path, prefix)
	}
	path, _, _ = strings.Cut(path, "[") // the types of an instance
	parts := strings.Split(path, "/")
	if len(parts) < 3 || !strings.Contains(parts[0], ".") {
		return ""
	}
	last, _, _ := strings.Cut(parts[2], ".")
	return strings.Join(append(parts[:2:2], last), "/")
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
