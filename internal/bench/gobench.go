package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// root is the library's directory, for what its own benchmarks measure.
const root = "../.."

// A goBench is the library's test binary, whose benchmarks see what it does not
// export. They are run many times for a short while each, so that those that are
// compared meet the same neighbours.
type goBench struct{ dir, binary string }

func buildGoBench(ctx context.Context) (*goBench, error) {
	dir, err := os.MkdirTemp("", "gobench-*")
	if err != nil {
		return nil, err
	}
	g := &goBench{dir, filepath.Join(dir, "gracedb.test")}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", g.binary, ".")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("go test -c: %w\n%s", err, out), g.close())
	}
	return g, nil
}

func (g *goBench) close() error { return os.RemoveAll(g.dir) }

// A goResult is what a benchmark has said of one operation, once per round.
type goResult struct {
	ns     []float64
	allocs []float64
	bytes  []float64
}

// run runs the benchmarks that match pattern, with more flags if need be.
func (g *goBench) run(ctx context.Context, pattern string, rounds int, each string, flags ...string) (map[string]*goResult, error) {
	all := make(map[string]*goResult)
	flags = append([]string{"-test.run=^$", "-test.bench=" + pattern, "-test.benchtime=" + each, "-test.benchmem"}, flags...)
	for range rounds {
		cmd := exec.CommandContext(ctx, g.binary, flags...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("benchmarks %s: %w\n%s", pattern, err, out)
		}
		for line := range strings.Lines(string(out)) {
			parseBenchmark(all, line)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no benchmark matches %s", pattern)
	}
	return all, nil
}

// profile returns where the benchmarks that match pattern spend their time.
func (g *goBench) profile(ctx context.Context, pattern string) (string, error) {
	file := filepath.Join(g.dir, "cpu.prof")
	cmd := exec.CommandContext(ctx, g.binary, "-test.run=^$", "-test.bench="+pattern, "-test.benchtime=1s", "-test.cpuprofile="+file)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("benchmarks %s: %w\n%s", pattern, err, out)
	}
	return topOf(ctx, g.binary, file)
}

// parseBenchmark reads a line such as "BenchmarkX/y-2  100  12 ns/op  3 B/op  1 allocs/op".
func parseBenchmark(all map[string]*goResult, line string) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return
	}
	name := strings.TrimPrefix(fields[0], "Benchmark")
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			name = name[:i] // the number of processors, unless it is 1
		}
	}
	r := all[name]
	if r == nil {
		r = new(goResult)
		all[name] = r
	}
	for i := 2; i+1 < len(fields); i += 2 {
		value, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			continue
		}
		switch fields[i+1] {
		case "ns/op":
			r.ns = append(r.ns, value)
		case "B/op":
			r.bytes = append(r.bytes, value)
		case "allocs/op":
			r.allocs = append(r.allocs, value)
		}
	}
}

// need returns the result of a benchmark, or an empty one that fails loudly later.
func need(all map[string]*goResult, name string) (*goResult, error) {
	if r := all[name]; r != nil && len(r.ns) > 0 {
		return r, nil
	}
	return nil, fmt.Errorf("benchmark %s did not run", name)
}

// scaled multiplies values by factor.
func scaled(values []float64, factor float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v * factor
	}
	return out
}
