package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRewrite(t *testing.T) {
	const json = `{"Action":"pass","Package":"github.com/gracedb-go/gracedb/internal/chaos","Test":"TestFault_N1_Reset"}
not of go test
{"Action":"fail","Package":"github.com/gracedb-go/gracedb","Test":"TestFault_N2_Lost"}
{"Action":"pass","Package":"github.com/gracedb-go/gracedb","Test":"TestFault_N2_Lost/one"}
{"Action":"skip","Package":"github.com/gracedb-go/gracedb","Test":"TestFault_N2_Skipped"}
`
	found, err := results(strings.NewReader(json), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	got, err := rewrite("# Faults\n\n"+head+
		"| N1 | reset | `TestFault_N1_Other` (x) | 2025-12-31: passed |\n"+
		"|  |  | `TestFault_N1_Reset` (y) | - |\n"+
		"| N2 | lost | not yet | - |\n"+
		"| P1 | disk full | belongs to others | - |\n\nThe end.\n", found)
	want := "# Faults\n\n" + head +
		"| N1 | reset | `TestFault_N1_Other` (x) | 2025-12-31: passed |\n" +
		"|  |  | `TestFault_N1_Reset` (internal/chaos, Apache Kafka) | 2026-01-02: passed |\n" +
		"|  |  | `TestFault_N1_Reset` (y) | - |\n" +
		"| N2 | lost | `TestFault_N2_Lost` (root package) | 2026-01-02: **failed** |\n" +
		"| P1 | disk full | belongs to others | - |\n\nThe end.\n"
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := rewrite(head+"| N1 | reset | not yet | - |\n", map[string][]shown{"N9": nil}); err == nil {
		t.Error("a row that the table lacks is no error")
	}
}

// The table names every test of a fault, and none that there is not.
func TestTableIsComplete(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, name := range regexp.MustCompile("`(TestFault_[^`]*)`").FindAllStringSubmatch(string(text), -1) {
		listed[name[1]] = true
	}
	declared := regexp.MustCompile(`(?m)^func (TestFault_[A-Z]+[0-9]+_\w+)\(t \*testing\.T\)`)
	there := make(map[string]bool)
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, name := range declared.FindAllStringSubmatch(string(code), -1) {
			there[name[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(there, listed); diff != "" {
		t.Errorf("the tests of faults (-there +listed):\n%s", diff)
	}
	if rows := len(regexp.MustCompile(`(?m)^\| [A-Z]+[0-9]+ \|`).FindAll(text, -1)); rows != 120 {
		t.Errorf("%d rows, want 120", rows)
	}
}
