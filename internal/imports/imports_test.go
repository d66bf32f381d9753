package imports

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	top    = "../.." // the module's directory
	module = "github.com/gracedb-go/gracedb"
)

var write = flag.Bool("write", false, "write the rules of imports.txt into .golangci.yml")

// An entry is a line of imports.txt.
type entry struct {
	name    string
	library bool
	any     bool     // it may import whatever it likes
	inside  []string // names of entries
	outside []string // packages from outside, and all below them
}

// path is the import path of the package.
func (e entry) path() string { return pathOf(e.name) }

func pathOf(name string) string {
	switch name {
	case "root":
		return module
	case "gracedbtest":
		return module + "/" + name
	}
	return module + "/internal/" + name
}

// list reads imports.txt, in its order.
func list(t *testing.T) []entry {
	t.Helper()
	text, err := os.ReadFile("imports.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	names := make(map[string][]string) // what one name stands for
	library := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if name, paths, ok := strings.Cut(line, " = "); ok {
			names[name] = strings.Fields(paths)
			continue
		}
		if line == "library" || line == "others" {
			library = line == "library"
			continue
		}
		name, may, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("imports.txt: no package in %q", line)
		}
		inside, outside, _ := strings.Cut(may, "|")
		e := entry{name: name, library: library, any: strings.TrimSpace(may) == "*", inside: strings.Fields(inside)}
		for name := range strings.FieldsSeq(outside) {
			if paths, ok := names[name]; ok {
				e.outside = append(e.outside, paths...)
			} else {
				e.outside = append(e.outside, name)
			}
		}
		all = append(all, e)
	}
	return all
}

// allows reports whether the package may import path.
func (e entry) allows(path string) bool {
	if e.any {
		return true
	}
	if path == module || strings.HasPrefix(path, module+"/") {
		return slices.ContainsFunc(e.inside, func(name string) bool { return pathOf(name) == path })
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(e.outside, func(may string) bool { return path == may || strings.HasPrefix(path, may+"/") })
}

// The list by itself: of the library each package names only such as stand below it, which
// leaves no way to a cycle, nor to a package that is there for tests.
func TestListPointsDown(t *testing.T) {
	all := list(t)
	for i, e := range all {
		if slices.ContainsFunc(all[:i], func(o entry) bool { return o.name == e.name }) {
			t.Errorf("%s is listed twice", e.name)
		}
		for _, name := range e.inside {
			at := slices.IndexFunc(all, func(o entry) bool { return o.name == name })
			switch {
			case e.any:
			case at < 0:
				t.Errorf("%s may import %s, which is not listed", e.name, name)
			case e.library && (at <= i || !all[at].library):
				t.Errorf("%s may import %s, which does not stand below it in the library", e.name, name)
			}
		}
	}
	if i := slices.IndexFunc(all, func(e entry) bool { return e.library && e.any }); i >= 0 {
		t.Errorf("%s of the library may import anything", all[i].name)
	}
}

// A listed is what go list tells of a package.
type listed struct {
	ImportPath string
	Imports    []string
}

// packages returns the packages of the module, and what each imports without its tests.
func packages(t *testing.T) (all []listed) {
	t.Helper()
	// go test looks at what a test has read before it takes the result of an earlier run.
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != top && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir, cmd.Stderr = top, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// Each package is listed, and imports only what the list says.
func TestImports(t *testing.T) {
	all := list(t)
	found := packages(t)
	if len(found) < 10 {
		t.Fatalf("only found %v", found)
	}
	for _, p := range found {
		i := slices.IndexFunc(all, func(e entry) bool { return e.path() == p.ImportPath })
		if i < 0 {
			t.Errorf("imports.txt says nothing of %s", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			if !all[i].allows(path) {
				t.Errorf("%s imports %s, which imports.txt does not allow", p.ImportPath, path)
			}
		}
	}
}

const (
	begin = "        # From here on as go test ./internal/imports -write makes it of imports.txt.\n"
	end   = "        # To here.\n"
)

// rules returns the rules of depguard for the library.
func rules(all []entry) string {
	var b strings.Builder
	for _, e := range all {
		if !e.library {
			continue
		}
		files := `"**/internal/` + e.name + `/*.go", "!$test"`
		if e.name == "root" {
			files = `"$all", "!$test", "!**/internal/**", "!**/examples/**", "!**/gracedbtest/**"`
		}
		fmt.Fprintf(&b, "        %s:\n          list-mode: strict\n          files: [%s]\n          allow:\n            - $gostd\n", e.name, files)
		for _, name := range e.inside {
			fmt.Fprintf(&b, "            - %s$\n", pathOf(name))
		}
		for _, path := range e.outside {
			fmt.Fprintf(&b, "            - %s\n", path)
		}
		b.WriteString("          deny:\n" +
			"            - {pkg: os/signal, desc: the caller owns signals}\n" +
			"            - {pkg: log$, desc: 'Logger is a *slog.Logger, and nil logs nothing'}\n" +
			"            - {pkg: testing, desc: for tests}\n")
	}
	return b.String()
}

// What golangci-lint shows while one writes is what the list says.
func TestLinterRules(t *testing.T) {
	const file = top + "/.golangci.yml"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	has, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no place for the rules", file)
	}
	want := rules(list(t))
	if *write {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, has); diff != "" {
		t.Errorf("%s differs from imports.txt (-list +file); write it by: go test ./internal/imports -write\n%s", file, diff)
	}
}
