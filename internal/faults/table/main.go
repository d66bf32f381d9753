// Command table writes the table of faults in internal/faults/README.md anew: which
// test shows which row, against what it runs, and how it last went.
//
//	go test -race -json . ./internal/... | go run ./internal/faults/table
//	GRACEDB_INTEROP=1 go test -race -json ./internal/chaos | go run ./internal/faults/table
//
// A row's tests are those named TestFault_<row>_, one a line. Tests that did not run keep
// their last result.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	file   = "internal/faults/README.md"
	module = "github.com/gracedb-go/gracedb"
	head   = "| row | fault | test | last result |\n|---|---|---|---|\n"
)

func main() {
	if err := run(os.Stdin, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, now time.Time) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	found, err := results(in, now)
	if err != nil {
		return err
	}
	text, err := rewrite(string(old), found)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// A shown is a test as the table has it.
type shown struct{ name, result string }

// results reads the output of go test -json: of each row, how its tests went.
func results(in io.Reader, now time.Time) (map[string][]shown, error) {
	found := make(map[string][]shown)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e struct {
			Action, Package, Test string
			Elapsed               float64
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action != "pass" && e.Action != "fail" {
			continue
		}
		m := faultTest.FindStringSubmatch(e.Test)
		if m == nil {
			continue
		}
		result := now.UTC().Format(time.DateOnly) + ": passed"
		if e.Action == "fail" {
			result = now.UTC().Format(time.DateOnly) + ": **failed**"
		}
		where := strings.TrimPrefix(strings.TrimPrefix(e.Package, module), "/")
		found[m[1]] = append(found[m[1]], shown{fmt.Sprintf("`%s` (%s)", e.Test, place(where)), result})
	}
	return found, lines.Err()
}

var faultTest = regexp.MustCompile(`^TestFault_([A-Z]+[0-9]+)_[^/]*$`)

// place says where a package's tests run, and against what.
func place(pkg string) string {
	switch pkg {
	case "":
		return "root package"
	case "internal/chaos":
		return "internal/chaos, Apache Kafka"
	}
	return pkg
}

// rewrite puts results into the table. Each test has a line; those after a row's first leave
// its name and fault out.
func rewrite(text string, found map[string][]shown) (string, error) {
	before, rest, ok := strings.Cut(text, head)
	if !ok {
		return "", fmt.Errorf("%s has no table with the head %q", file, head)
	}
	var b strings.Builder
	b.WriteString(before + head)
	var row []string                 // name, fault, and what stands there instead of tests
	known := make(map[string]string) // results by test
	end := func() {
		if row == nil {
			return
		}
		for _, s := range found[row[0]] {
			known[s.name] = s.result
		}
		delete(found, row[0])
		if len(known) == 0 {
			b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		}
		name := row[0] + " | " + row[1]
		for _, test := range slices.Sorted(maps.Keys(known)) {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", name, test, known[test])
			name = " | "
		}
		row = nil
		clear(known)
	}
	for line := range strings.Lines(rest) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 4 {
			end()
			b.WriteString(line)
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[0] != "" {
			end()
			row = cells
		}
		if strings.HasPrefix(cells[2], "`") {
			known[cells[2]] = cells[3]
		}
	}
	end()
	if len(found) > 0 {
		return "", fmt.Errorf("%s has no rows %q", file, slices.Sorted(maps.Keys(found)))
	}
	return b.String(), nil
}
