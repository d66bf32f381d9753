// Command bench measures this library beside bare franz-go, beside the Python
// package that it replaces, and beside what nobody can be faster than, and writes
// BENCHMARKS.md and its charts.
//
//	cd internal/bench && go run . [-quick] [-only publish,idle]
//
// It needs Java 17, Maven and Python 3, as the tests of internal/interop do, and
// about 20 minutes of an otherwise idle machine. Each section's result is kept in
// the directory of -json, so that a section can be measured again alone; the file is
// written from all that is kept there. -list names the sections.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A section is a chapter of BENCHMARKS.md, measured on its own by a function in
// section_<name>.go.
type section struct {
	name  string // as in -only
	title string
	run   func(context.Context, *bench) (result, error)
	light bool // may run while processes of the section "idle" sleep: it needs one core, and no broker
}

// sections stand in the order of the file.
var sections = []section{
	{"start", "From the start of a process to the first acknowledgement", startSection, false},
	{"publish", "Publishing an event", publishSection, false},
	{"near", "Publishing within one process", nearSection, false},
	{"burst", "A burst of events", burstSection, false},
	{"bulk", "Many messages, both ways", bulkSection, false},
	{"latency", "One message at a time, from end to end", latencySection, false},
	{"idle", "Idle, and the first event afterwards", idleSection, false},
	{"encode", "Encoding and decoding", encodeSection, true},
	{"tokens", "Looking a token up", tokensSection, true},
	{"allocations", "Allocations of a message", allocationsSection, false},
	{"growth", "Cost as work grows", growthSection, false},
	{"sizes", "Size of programs and installations", sizesSection, true},
	{"away", "Publishing from 40 ms away", awaySection, false},
	{"codec", "Compression", codecSection, false},
}

// A bench is one run of this program.
type bench struct {
	charts    string                      // the directory
	before    string                      // the commit that is measured beside ours; empty if none is
	quick     bool                        // as few measurements as show that everything works
	shared    *rig                        // once a section has needed it
	meanwhile func(context.Context) error // runs what is light, once
}

// rig returns what everybody talks to, with Java warm.
func (b *bench) rig(ctx context.Context) (*rig, error) {
	if b.shared != nil {
		return b.shared, nil
	}
	r, err := startRig(ctx, b.before, false)
	if err != nil {
		return nil, err
	}
	b.shared = r
	return r, r.warmUp(ctx, b.count(60, 5))
}

func (b *bench) close() error {
	if b.shared == nil {
		return nil
	}
	return b.shared.close()
}

// count returns how often to do something.
func (b *bench) count(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// log tells whoever waits what is going on.
func (b *bench) log(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	var (
		only   = flags.String("only", "", "the `names` of the sections to measure, with commas; none: only write the file again")
		quick  = flags.Bool("quick", false, "a few minutes, to see that everything works: the numbers mean nothing")
		list   = flags.Bool("list", false, "name the sections and end")
		out    = flags.String("out", "../../BENCHMARKS.md", "the `file` to write; if empty, none")
		charts = flags.String("charts", "charts", "the `directory` of the charts")
		tops   = flags.String("profiles", "profiles", "the `directory` of the profiles of what has missed its target")
		commit = flags.String("before", "a94b379", "the `commit` that is measured beside ours, in the sections that need a broker; empty: none")
		guard  = flags.Bool("guard", false, "fail if ours has become twice as slow beside bare as guard.json says; nothing else is done")
		record = flags.Bool("record", false, "with -guard: write guard.json")
		kept   = flags.String("json", "results", "the `directory` where results are kept")
	)
	_ = flags.Parse(args) // ends the program itself
	switch {
	case *guard:
		return guardRatios(ctx, *record)
	case *list:
		for _, s := range sections {
			fmt.Println(s.name)
		}
		return nil
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	b := &bench{quick: *quick, charts: *charts, before: *commit}
	if err := errors.Join(measure(ctx, b, chosen, *kept), b.close()); err != nil {
		return err
	}
	if *out == "" {
		return nil
	}
	return (&report{out: *out, charts: *charts, profiles: *tops, kept: *kept}).write()
}

// choose returns the sections that -only names.
func choose(only string) ([]section, error) {
	switch only {
	case "":
		return sections, nil
	case "none":
		return nil, nil
	}
	var chosen []section
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no section %q: see -list", name)
		}
		chosen = append(chosen, sections[i])
	}
	return chosen, nil
}

// measure runs sections and keeps and prints what they say. One that fails does not
// keep the others from being measured. Those that are light run while others sleep,
// if there is such a time.
func measure(ctx context.Context, b *bench, chosen []section, dir string) error {
	if len(chosen) == 0 {
		return nil
	}
	m := thisMachine(ctx)
	var light, heavy []section
	for _, s := range chosen {
		if s.light {
			light = append(light, s)
		} else {
			heavy = append(heavy, s)
		}
	}
	all := func(ctx context.Context, sections []section) error {
		var errs []error
		for _, s := range sections {
			if ctx.Err() == nil {
				errs = append(errs, measureOne(ctx, b, s, dir, m))
			}
		}
		return errors.Join(append(errs, ctx.Err())...)
	}
	b.meanwhile = func(ctx context.Context) error {
		now := light
		light = nil
		return all(ctx, now)
	}
	err := all(ctx, heavy)
	return errors.Join(err, b.meanwhile(ctx))
}

func measureOne(ctx context.Context, b *bench, s section, dir string, m machine) error {
	began := time.Now()
	b.log("%s", s.name)
	r, err := s.run(ctx, b)
	if err == nil {
		err = keep(dir, s.name, keptResult{r, time.Now(), b.quick, m})
	}
	if err != nil {
		b.log("%s failed: %v", s.name, err)
		return fmt.Errorf("%s: %w", s.name, err)
	}
	b.log("%s took %v", s.name, time.Since(began).Round(time.Second))
	printResult(&r)
	return nil
}

func printResult(r *result) {
	var b strings.Builder
	r.tables(&b)
	fmt.Print(b.String())
}
