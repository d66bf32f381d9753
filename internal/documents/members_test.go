package documents

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
)

// A row is that of a table: a member of a message, and what becomes of it.
type row struct{ member, becomes string }

// rowsOfPage returns the rows of a table of docs/message.md.
func rowsOfPage(table string) []row {
	var rows []row
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|[^|]*\\|(.*)$").FindAllStringSubmatch(table, -1) {
		rows = append(rows, row{m[1], m[2]})
	}
	return rows
}

// rowsOfPackage returns the rows of a table of the package's documentation: columns that two
// spaces part.
func rowsOfPackage(table string) []row {
	var rows []row
	for line := range strings.Lines(table) {
		if line, ok := strings.CutPrefix(line, "\t"); ok {
			columns := regexp.MustCompile(`  +`).Split(strings.TrimSpace(line), -1)
			rows = append(rows, row{columns[0], strings.Join(columns[min(2, len(columns)):], " ")})
		}
	}
	return rows
}

// members returns the members of rows, and the fields of Upload that their last column
// names: words that begin with a capital.
func members(rows []row) (names, fields []string) {
	for _, r := range rows {
		names = append(names, r.member)
		for _, f := range regexp.MustCompile(`\b[A-Z]\w+`).FindAllString(r.becomes, -1) {
			if f != "ErrNotUpload" {
				fields = append(fields, f)
			}
		}
	}
	slices.Sort(fields)
	return names, fields
}

// sent returns the first message of a golden file, to which tests hold the code, and the
// names of its members.
func sent(t *testing.T, file string) (value []byte, members []string) {
	t.Helper()
	value, _, _ = bytes.Cut([]byte(document(t, file)), []byte("\n"))
	d := json.NewDecoder(bytes.NewReader(value))
	_, err := d.Token()
	for err == nil && d.More() {
		var name json.Token
		if name, err = d.Token(); err == nil {
			members = append(members, name.(string))
			err = d.Decode(new(json.RawMessage))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return value, members
}

// The members of messages: docs/message.md and the package's documentation have those that
// are sent, in their order, and the fields of Upload that they become.
func TestMembersInDocuments(t *testing.T) {
	page := document(t, "docs/message.md")
	_, pagesPing, _ := strings.Cut(page, "## Members of a ping\n")
	var packages string
	for _, f := range rootFiles(t) {
		if strings.Contains(f.Doc.Text(), "# Messages\n") {
			packages = f.Doc.Text()
		}
	}
	upload, uploads := sent(t, "testdata/upload.golden.json")
	_, pings := sent(t, "testdata/ping.golden.json")
	u, err := gracedb.Message{Value: upload}.Upload()
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Extra) > 0 {
		t.Errorf("sent, and not read: %v", u.Extra)
	}
	var all []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[gracedb.Upload]()) {
		if f.Name != "Extra" { // of what is not sent
			all = append(all, f.Name)
		}
	}
	slices.Sort(all)

	for name, tables := range map[string]struct{ upload, ping []row }{
		"docs/message.md": {
			rowsOfPage(section(t, page, "## Members of an upload\n", "\nEvery upload has")), rowsOfPage(pagesPing),
		},
		"the package's documentation": {
			rowsOfPackage(section(t, packages, "# Messages\n", "\tany other ")),
			rowsOfPackage(section(t, packages, "A ping, ", "\ndocs/message.md")),
		},
	} {
		names, fields := members(tables.upload)
		if diff := cmp.Diff(uploads, names); diff != "" {
			t.Errorf("%s: an upload (-code +document):\n%s", name, diff)
		}
		if diff := cmp.Diff(all, fields); diff != "" {
			t.Errorf("%s: fields of Upload (-code +document):\n%s", name, diff)
		}
		if names, _ = members(tables.ping); !slices.Equal(names, pings) {
			t.Errorf("%s: a ping has %q, not %q", name, pings, names)
		}
	}
}
