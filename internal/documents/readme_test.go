package documents

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb/internal/realkafka"
)

// The programs of README.md are those of examples, which others are deployed from.
func TestProgramsOfREADME(t *testing.T) {
	page := document(t, "README.md")
	for _, name := range []string{"Publish", "Consume"} {
		block := section(t, section(t, page, "\n## "+name+"\n", "\n## "), "\n```go\n", "```\n")
		file := "examples/" + strings.ToLower(name) + "/main.go"
		if diff := cmp.Diff(document(t, file), block); diff != "" {
			t.Errorf("%s differs from README.md, section %s (-file +README):\n%s", file, name, diff)
		}
	}
}

// What README.md calls supported is what CI builds and runs.
func TestSupportedInREADME(t *testing.T) {
	table := section(t, document(t, "README.md"), "| supported |", "\n\n")
	ci := document(t, ".ci/run")

	// Go, by go.mod.
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(document(t, "go.mod"))[1]
	if !strings.Contains(table, "| Go | "+version+" and newer |") {
		t.Errorf("go.mod asks for Go %s", version)
	}

	// Kafka: the version that tests take, and those of the stages.
	versions := []string{realkafka.Version()}
	for _, m := range regexp.MustCompile(`(?m)^  on_kafka (\S+)`).FindAllStringSubmatch(ci, -1) {
		versions = append(versions, m[1])
	}
	slices.Sort(versions)
	var short []string
	for _, v := range versions {
		short = append(short, v[:strings.LastIndex(v, ".")])
	}
	last := len(versions) - 1
	want := "| Kafka | " + strings.Join(short, ", ") + " | CI runs " + strings.Join(versions[:last], ", ") + " and " + versions[last]
	if !strings.Contains(table, want) {
		t.Errorf("README.md has no %q", want)
	}

	// Systems: those of the stage cross, as bash expands them.
	targets := section(t, ci, "for target in {", "; do")
	for word := range strings.FieldsSeq(strings.ReplaceAll("{"+targets, "\\\n", " ")) {
		system, processors, _ := strings.Cut(word, "/")
		for os := range strings.SplitSeq(strings.Trim(system, "{}"), ",") {
			for arch := range strings.SplitSeq(strings.Trim(processors, "{}"), ",") {
				if !supports(table, os, arch) {
					t.Errorf("README.md does not have %s/%s, which CI builds", os, arch)
				}
			}
		}
	}
}

// supports reports whether a row of the table has a system and a processor.
func supports(table, os, arch string) bool {
	for row := range strings.SplitSeq(table, "\n") {
		if regexp.MustCompile(`(?i)\b`+os+`\b`).MatchString(row) && regexp.MustCompile(`\b`+arch+`\b`).MatchString(row) {
			return true
		}
	}
	return false
}
