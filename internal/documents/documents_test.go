package documents

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

const root = "../.."

// files returns what files of the repository whose name ends so hold, by their path below
// its root.
func files(t *testing.T, suffix string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, suffix):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		found[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Documents name tests as their proof: they exist.
func TestReliabilityNamesTestsThatExist(t *testing.T) {
	exists := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, source := range files(t, "_test.go") {
		for _, m := range declared.FindAllStringSubmatch(source, -1) {
			exists[m[1]] = true
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	documents := files(t, ".md")
	for _, name := range []string{"RELIABILITY.md", "SECURITY.md", "docs/reliability/http.md", "docs/reliability/kafka.md"} {
		if !named.MatchString(documents[name]) {
			t.Errorf("%s names no test", name)
		}
	}
	for name, text := range documents {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !exists[m[1]] {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
	}
}

// No line of a document is longer than maxLine, so that it can be read and compared as it is.
func TestLinesOfDocuments(t *testing.T) {
	const maxLine = 160
	for name, text := range files(t, ".md") {
		number := 0
		for line := range strings.Lines(text) {
			number++
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > maxLine {
				t.Errorf("%s:%d has %d characters, and may have %d", name, number, n, maxLine)
			}
		}
	}
}

// Links within the repository lead to what is there.
func TestLinksOfDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^()\s]+)\)`)
	for name, text := range files(t, ".md") {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue // elsewhere
			}
			path := filepath.Join(root, name)
			if target != "" {
				path = filepath.Join(filepath.Dir(path), filepath.FromSlash(target))
			}
			data, err := os.ReadFile(path)
			if at, statErr := os.Stat(path); statErr == nil && at.IsDir() {
				err = nil
			}
			if err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(string(data)), anchor) {
				t.Errorf("%s: %s: there is no such heading", name, m[1])
			}
		}
	}
}

// anchors are what the headings of a document can be linked to by.
func anchors(text string) []string {
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		found = append(found, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return r
			}
			return -1
		}, strings.ToLower(m[1])))
	}
	return found
}

// Documents name files of code: they are there. ARCHITECTURE.md has a map of
// packages.
func TestFilesInDocuments(t *testing.T) {
	code := files(t, ".go")
	there := func(name string) bool {
		for path := range code {
			if path == name || strings.HasSuffix(path, "/"+name) || strings.HasPrefix(path, name+"/") {
				return true
			}
		}
		return false
	}
	documents := files(t, ".md")
	for name, text := range documents {
		if name == "CHANGELOG.md" || strings.HasPrefix(name, "findings/") {
			continue // of what was, and of others
		}
		for _, file := range regexp.MustCompile(`[\w./-]*\w\.go\b`).FindAllString(text, -1) {
			if file = strings.TrimLeft(file, "./"); !there(file) {
				t.Errorf("%s: there is no %s", name, file)
			}
		}
	}
	rows := 0
	_, areas, _ := strings.Cut(documents["ARCHITECTURE.md"], "\n| package")
	areas, _, _ = strings.Cut(areas, "\n## ")
	for _, row := range regexp.MustCompile(`(?m)^\| ((?:internal/)?\w+(?:, \w+)*) \|`).FindAllStringSubmatch(areas, -1) {
		rows++
		for name := range strings.SplitSeq(row[1], ", ") {
			if name = "internal/" + strings.TrimPrefix(name, "internal/"); !there(name) {
				t.Errorf("ARCHITECTURE.md: there is no %s", name)
			}
		}
	}
	if rows < 15 {
		t.Errorf("ARCHITECTURE.md has a map of only %d rows", rows)
	}
}
