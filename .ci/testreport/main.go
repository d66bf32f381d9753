// Testreport reads the output of go test -json, shows what go test would have
// shown, and fails if a test failed, or was skipped without being expected to be.
//
//	go test -json ./... | go run .ci/testreport/main.go [-skips FILE -stage NAME]
//
// A line of FILE names a stage, a package below the module and a test, as regular
// expressions, and why the test cannot run in this stage. A line for the stage that
// nothing matches is a failure too: the list must not outlive its reasons.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

const module = "github.com/gracedb-go/gracedb"

// An event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // of build output
}

// An expectation is a skip that has a reason.
type expectation struct {
	pkg, test *regexp.Regexp
	line      string
	used      bool
}

func main() {
	skips := flag.String("skips", "", "file of the skips to expect")
	stage := flag.String("stage", "", "its lines of the file count")
	flag.Parse()
	expected, err := readSkips(*skips, *stage)
	if err == nil {
		err = run(os.Stdin, os.Stdout, expected)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, expected []*expectation) error {
	passed, failed, skipped := 0, []string{}, []string{}
	said := make(map[string][]string) // what each test printed, until it is known how it ended
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			fmt.Fprintln(out, scanner.Text()) // not of go test: shown as it is
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(e.Package, module), "/") + " " + e.Test
		switch {
		case e.Action == "build-output":
			fmt.Fprint(out, e.Output)
		case e.Action == "output" && e.Test == "":
			if e.Output != "PASS\n" {
				fmt.Fprint(out, e.Output)
			}
		case e.Action == "output" && strings.HasPrefix(e.Output, "=== "):
		case e.Action == "output":
			said[name] = append(said[name], e.Output)
		case e.Test == "" && e.Action == "fail":
			failed = append(failed, name)
		case e.Test == "":
		case e.Action == "pass":
			passed++
			delete(said, name)
		case e.Action == "fail":
			failed = append(failed, name)
			fmt.Fprint(out, strings.Join(said[name], ""))
			delete(said, name)
		case e.Action == "skip":
			if !expect(expected, name) {
				skipped = append(skipped, name)
				fmt.Fprint(out, strings.Join(said[name], ""))
			}
			delete(said, name)
		}
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	for _, output := range said { // a panic ends tests without a word on how
		fmt.Fprint(out, strings.Join(output, ""))
	}
	fmt.Fprintf(out, "%d tests passed, %d failed, %d skipped against expectation\n", passed, len(failed), len(skipped))
	var unused []string
	for _, e := range expected {
		if !e.used {
			unused = append(unused, e.line)
		}
	}
	switch {
	case len(failed)+len(skipped) > 0:
		return fmt.Errorf("failed: %q, skipped: %q", failed, skipped)
	case passed == 0:
		return fmt.Errorf("no test ran")
	case len(unused) > 0:
		return fmt.Errorf("expected to be skipped, but was not: %q", unused)
	}
	return nil
}

func expect(expected []*expectation, name string) bool {
	pkg, test, _ := strings.Cut(name, " ")
	i := slices.IndexFunc(expected, func(e *expectation) bool {
		return e.pkg.MatchString(pkg) && e.test.MatchString(test)
	})
	if i < 0 {
		return false
	}
	expected[i].used = true
	return true
}

func readSkips(file, stage string) ([]*expectation, error) {
	if file == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []*expectation
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 4 {
			return nil, fmt.Errorf("%s: %q gives no reason", file, line)
		}
		var patterns [3]*regexp.Regexp
		for i := range patterns {
			if patterns[i], err = regexp.Compile("^(?:" + fields[i] + ")$"); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		if patterns[0].MatchString(stage) {
			out = append(out, &expectation{pkg: patterns[1], test: patterns[2], line: line})
		}
	}
	return out, nil
}
