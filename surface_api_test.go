package gracedb_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testdata/api.txt is what go doc -all shows of the package. A change of it is a change of
// what users write and read: it is made on purpose, by renewing the file, or not at all.
func TestAPIIsFrozen(t *testing.T) {
	const file = "testdata/api.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Comments do not change the test's binary: this makes go test look at the sources
	// before it takes the result of an earlier run.
	if _, err := os.ReadDir("."); err != nil {
		t.Fatal(err)
	}
	doc := exec.CommandContext(t.Context(), "go", "doc", "-all", ".")
	doc.Stderr = os.Stderr
	got, err := doc.Output()
	if err != nil {
		t.Fatalf("%v: %v", doc, err)
	}
	// The first line has the import path, or only "." where go list has not seen all modules yet.
	_, wantDoc, _ := strings.Cut(string(want), "\n")
	_, gotDoc, _ := strings.Cut(string(got), "\n")
	if diff := cmp.Diff(wantDoc, gotDoc); diff != "" {
		t.Errorf("the public API or its documentation differs from %s (-want +got); if that is meant, renew the file: go doc -all . >%[1]s\n%s", file, diff)
	}
}
