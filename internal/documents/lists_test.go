package documents

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	place "github.com/gracedb-go/gracedb/internal/token"
)

// These tests hold lists that more than one document has against what the code does.

// rootFiles parses the library's root package.
func rootFiles(t *testing.T) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var parsed []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
	}
	return parsed
}

// A document returns the text of a file of the repository.
func document(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns what is in text after begin and before end.
func section(t *testing.T, text, begin, end string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, begin)
	found, _, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("there is no %q that %q ends", begin, end)
	}
	return found
}

// once returns what matches of a text, in the order in which it comes first.
func once(pattern *regexp.Regexp, text string) []string {
	var found []string
	for _, m := range pattern.FindAllString(text, -1) {
		if !slices.Contains(found, m) {
			found = append(found, m)
		}
	}
	return found
}

// The places where tokens are looked for, in their order.
func TestTokenPlacesInDocuments(t *testing.T) {
	places := regexp.MustCompile(`\b(SCITOKEN|BEARER_TOKEN)(_FILE)?\b|\b(_CONDOR_CREDS|XDG_RUNTIME_DIR)\b|/tmp\b`)

	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, "")
	}
	t.Setenv("IGWN_AUTH_UTILS_FIND_SCITOKEN", "yes")
	tmp := t.TempDir()
	_, err := (&place.Finder{Tmp: tmp}).Find(t.Context())
	if err == nil {
		t.Fatal("a token was found")
	}
	// The error lists what was looked at.
	want := once(places, strings.ReplaceAll(strings.ReplaceAll(err.Error(), tmp, "/tmp"), "$", " "))
	if len(want) != 7 {
		t.Fatalf("%q lists %q", err, want)
	}

	texts := map[string]string{
		"docs/tokens.md": section(t, document(t, "docs/tokens.md"), "## Where it looks\n", "\nIt takes the token"),
	}
	for _, f := range rootFiles(t) {
		if strings.Contains(f.Doc.Text(), "# Tokens\n") {
			texts["the package's documentation"] = section(t, f.Doc.Text(), "FindToken looks, in this order, at", "\nand takes the token")
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "FindToken" {
				texts["FindToken's documentation"] = section(t, fn.Doc.Text(), "The places, in order", "The last two")
			}
		}
	}
	if len(texts) != 3 {
		t.Errorf("only found %q", slices.Sorted(maps.Keys(texts)))
	}
	for name, text := range texts {
		if diff := cmp.Diff(want, once(places, text)); diff != "" {
			t.Errorf("%s (-code +document):\n%s", name, diff)
		}
	}
}

var kinds = map[string]error{
	"ErrKafka":          gracedb.ErrKafka,
	"ErrProducer":       gracedb.ErrProducer,
	"ErrDelivery":       gracedb.ErrDelivery,
	"ErrTooLarge":       gracedb.ErrTooLarge,
	"ErrOutcomeUnknown": gracedb.ErrOutcomeUnknown,
	"ErrConsumer":       gracedb.ErrConsumer,
	"ErrAuthentication": gracedb.ErrAuthentication,
	"ErrToken":          gracedb.ErrToken,
	"ErrConnection":     gracedb.ErrConnection,
	"ErrTopic":          gracedb.ErrTopic,
	"ErrClosed":         gracedb.ErrClosed,
	"ErrConfig":         gracedb.ErrConfig,
	"ErrEvent":          gracedb.ErrEvent,
	"ErrNotUpload":      gracedb.ErrNotUpload,
}

// declaredKinds returns the error kinds that the root declares, and the documentation that
// draws their tree.
func declaredKinds(t *testing.T) (declared map[string]bool, tree string) {
	t.Helper()
	declared = make(map[string]bool)
	for _, f := range rootFiles(t) {
		for _, d := range f.Decls {
			vars, ok := d.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, s := range vars.Specs {
				for _, name := range s.(*ast.ValueSpec).Names {
					if name.IsExported() && strings.HasPrefix(name.Name, "Err") {
						declared[name.Name] = true
					}
				}
			}
			if strings.Contains(vars.Doc.Text(), "├── ErrProducer") {
				tree = vars.Doc.Text()
			}
		}
	}
	return declared, tree
}

// drawn returns, of each kind in a tree, those that it stands under: the last one before it
// that is further to the left, and those that this one stands under.
func drawn(tree string) map[string][]string {
	type node struct {
		name   string
		column int
	}
	var above []node
	under := make(map[string][]string)
	for _, m := range regexp.MustCompile(`(?m)^(\t[\s│├└─]*)(Err[A-Z]\w+)`).FindAllStringSubmatch(tree, -1) {
		n := node{m[2], utf8.RuneCountInString(m[1])}
		for len(above) > 0 && above[len(above)-1].column >= n.column {
			above = above[:len(above)-1]
		}
		under[n.name] = nil
		for _, a := range above {
			under[n.name] = append(under[n.name], a.name)
		}
		slices.Sort(under[n.name])
		above = append(above, n)
	}
	return under
}

// The kinds of errors: all are listed above, the tree in their documentation is that of the
// code, and no document names another.
func TestErrorKindsInDocuments(t *testing.T) {
	declared, tree := declaredKinds(t)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(declared)), slices.Sorted(maps.Keys(kinds))); diff != "" {
		t.Errorf("kinds (-code +this test):\n%s", diff)
	}
	under := drawn(tree)
	if len(under) < 10 {
		t.Errorf("the tree has only %q", slices.Sorted(maps.Keys(under)))
	}
	for name, kind := range kinds {
		var parents []string
		for other := range kinds {
			if other != name && errors.Is(kind, kinds[other]) {
				parents = append(parents, other)
			}
		}
		slices.Sort(parents)
		if diff := cmp.Diff(parents, under[name]); diff != "" {
			t.Errorf("%s stands under (-code +documentation):\n%s", name, diff)
		}
	}
	for name, text := range files(t, ".md") {
		for _, m := range regexp.MustCompile("`(Err[A-Z]\\w*)`").FindAllStringSubmatch(text, -1) {
			if !declared[m[1]] {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
	}
}
