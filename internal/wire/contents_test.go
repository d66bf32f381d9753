package wire_test

import (
	"bytes"
	stdbase64 "encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// uploadOf decodes a message with these contents of its file, as JSON, and this
// content_id, unless it is empty.
func uploadOf(contents, id string) (gracedb.Upload, error) {
	if id != "" {
		id = fmt.Sprintf(`,"content_id":%q`, id)
	}
	return gracedb.Message{Topic: "t", Value: []byte(`{` + required + id + `,"eventFile":["coinc.xml",` + contents + `]}`)}.Upload()
}

func wantNoUpload(t *testing.T, what string, u gracedb.Upload, err error, want string) {
	t.Helper()
	want = `gracedb: message in topic t, partition 0, offset 0: member "eventFile" has contents that are wrong: ` + want
	switch {
	case err == nil:
		t.Errorf("%s: no error, and the contents %q", what, u.Data)
	case err.Error() != want:
		t.Errorf("%s:\ngot  %v\nwant %s", what, err, want)
	}
}

// Base64 that was damaged on its way must not become the event: it would be stored
// under the graceid for good.
func TestUploadDamagedContents(t *testing.T) {
	file := []byte("<?xml version='1.0'?><LIGO_LW>the event of the year</LIGO_LW>")
	text := stdbase64.StdEncoding.EncodeToString(file) // 84 characters, of which the last two are padding
	tests := []struct{ name, contents, want string }{
		{"cut", text[:41], "damaged base64: characters are missing, or = is in a wrong place (there are 41)"},
		{"one lost", text[:10] + text[11:], "damaged base64: characters are missing, or = is in a wrong place (there are 83)"},
		{"one changed", text[:10] + "*" + text[11:], "damaged base64: '*' after 10 characters of 84"},
		{"one changed to a letter that is none of its", text[:10] + "é" + text[11:], "damaged base64: 'é' after 10 characters of 85"},
		{"a few changed", "~" + text[1:20] + "~" + text[21:50] + "~" + text[51:], "damaged base64: '~' after 0 characters of 84"},
		{"one changed to a space", text[:10] + " " + text[11:], "damaged base64: ' ' after 10 characters of 84"},
		{"one added", text + "A", "damaged base64: characters are missing, or = is in a wrong place (there are 85)"},
		{"twice", text + text, "damaged base64: characters are missing, or = is in a wrong place (there are 168)"},
		{"without padding", strings.TrimRight(text, "="), "damaged base64: characters are missing, or = is in a wrong place (there are 82)"},
		{"in lines, and cut", text[:40] + `\n` + text[40:79] + `\n`, "damaged base64: characters are missing, or = is in a wrong place (there are 81)"},
		{"for URLs", stdbase64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xff}, 15)), "damaged base64: '-' after 0 characters of 40"},
		{"a token", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0", "damaged base64: '.' after 20 characters of 36"},
	}
	for _, tt := range tests {
		for _, id := range []string{"", wire.ContentID(file)} {
			u, err := uploadOf(`"`+tt.contents+`"`, id)
			wantNoUpload(t, tt.name+" "+id, u, err, tt.want)
		}
	}

	// Any character changed, lost or cut off: with a content_id nothing else is taken for
	// the file, without one nothing that cannot be base64 is.
	for i := range text {
		for name, bad := range map[string]string{
			"changed": text[:i] + "*" + text[i+1:], "other": text[:i] + string(text[i]^1) + text[i+1:], "lost": text[:i] + text[i+1:], "cut": text[:i],
		} {
			if u, err := uploadOf(`"`+bad+`"`, wire.ContentID(file)); err == nil && !bytes.Equal(u.Data, file) {
				t.Errorf("%s at %d: taken for the file: %q", name, i, u.Data)
			}
			if u, err := uploadOf(`"`+bad+`"`, ""); err == nil && string(u.Data) == bad && bad != "" {
				t.Errorf("%s at %d: the base64 is taken for the file: %q", name, i, u.Data)
			}
		}
	}
}

// What is no base64 is the file itself.
func TestUploadTextContents(t *testing.T) {
	for _, text := range []string{
		"<e/>", " <e/>", "{}", `{"far":1e-9}`, "#cwb\n", "nevent: 1\n", "event_time:1126259462.4\nfar:7.4e-9\n", "1,2;3,4;5,6;7,8", "a b",
		`{"map":"` + strings.Repeat("AAAA", 1000) + `"}`, strings.Repeat("AAAA", 1000) + " B C", "¡¿«»", "\"\\\"",
	} {
		contents := string(quoteJSON(text))
		for _, id := range []string{"", wire.ContentID([]byte(text)), strings.ToUpper(wire.ContentID([]byte(text)))} {
			if u, err := uploadOf(contents, id); err != nil || string(u.Data) != text || u.ContentID != id {
				t.Errorf("%q, %s: %q, %s, %v", text, id, u.Data, u.ContentID, err)
			}
		}
	}
}

func TestUploadContentID(t *testing.T) {
	const both = "ZGF0YQ==" // base64 of data, but the file may be these eight characters
	id := wire.ContentID([]byte("data"))
	for theID, want := range map[string]string{
		"": "data", id: "data", strings.ToUpper(id): "data", wire.ContentID([]byte(both)): both,
	} {
		if u, err := uploadOf(`"`+both+`"`, theID); err != nil || string(u.Data) != want || u.ContentID != theID {
			t.Errorf("%s: %q, %v", theID, u.Data, err)
		}
	}
	// A file that looks like damaged base64 is one all the same if the sender says so.
	if u, err := uploadOf(`"word"`, wire.ContentID([]byte("word"))); err != nil || string(u.Data) != "word" {
		t.Errorf("%q, %v", u.Data, err)
	}

	other := wire.ContentID([]byte("other"))
	for contents, its := range map[string]string{
		both: id, `ZGF0\nYQ==\n`: id, `\u005aGF0YQ==`: id, "": wire.ContentID(nil), "<e/>": wire.ContentID([]byte("<e/>")),
	} {
		u, err := uploadOf(`"`+contents+`"`, other)
		wantNoUpload(t, contents, u, err, `their content_id is `+its+`, but the message says "`+other+`"`)
	}
	u, err := uploadOf(`"`+both+`"`, "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln")
	wantNoUpload(t, "a token", u, err, `their content_id is `+id+`, but the message says "[token removed]"`)
}

// The forms that public consumers take, such as boom-gw.
func TestUploadPublicForms(t *testing.T) {
	const (
		few  = `{"type":"new","_producer_timestamp":1780000001.25,"graceid":"G1","pipeline":"mbta","submitter":"s",`
		full = `{"type":"upload","gracedb_server":"s","gracedb_upload":true,"_producer_timestamp":1780000001.25,"graceid":"G1","pipeline":"mbta","submitter":"s",`
	)
	want := gracedb.Upload{GraceID: "G1", Submitter: "s", Pipeline: "mbta", Filename: "coinc.xml", Data: []byte("<e>"), Time: time.Unix(1780000001, 250000000)}
	for name, tt := range map[string]struct{ value, server string }{
		"six members, array":   {few + `"eventFile":["coinc.xml","PGU+"]}`, ""},
		"six members, object":  {few + `"eventFile":{"filename":"coinc.xml","payload":"PGU+"}}`, ""},
		"six members, raw XML": {few + `"eventFile":["coinc.xml","<e>"]}`, ""},
		"server is null":       {few + `"gracedb_server":null,"eventFile":["coinc.xml","PGU+"]}`, ""},
		"payload_b64":          {full + `"eventFile":{"filename":"coinc.xml","payload_b64":"PGU+"}}`, "s"},
		"bytes":                {full + `"eventFile":{"bytes":"PGU+","filename":"coinc.xml"}}`, "s"},
		"bytes, others null":   {full + `"eventFile":{"payload":null,"bytes":"PGU+","filename":"coinc.xml"}}`, "s"},
	} {
		want.Server = tt.server
		u, err := gracedb.Message{Value: []byte(tt.value)}.Upload()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(want, u); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// The members that each release of ligo-gracedb puts into its messages, in its order.
func TestUploadPeerReleases(t *testing.T) {
	const (
		members = `{"type": "upload", "gracedb_server": "https://gracedb-test.ligo.org/api/", "graceid": "T1001", "submitter": "alice", ` +
			`"pipeline": "MLy", "gracedb_upload": true, "skip_supervisor": false, "labels": ["INJ"], "eventFile": ["coinc.xml", "aGVsbG8="]`
		id = "2cf24dba-5fb0-a30e-26e8-3b2ac5b9e29e"
	)
	for releases, tt := range map[string]struct{ more, id string }{
		"2.15.1":         {`}`, ""},
		"2.15.2, 2.16.1": {`, "_producer_timestamp": 1732288000.5}`, ""},
		"2.15.4, 2.15.7": {`, "content_id": "` + id + `", "_producer_timestamp": 1732288000.5}`, id},
	} {
		want := gracedb.Upload{
			Server: "https://gracedb-test.ligo.org/api/", GraceID: "T1001", Submitter: "alice", Pipeline: "MLy", Labels: []string{"INJ"},
			Filename: "coinc.xml", Data: []byte("hello"), ContentID: tt.id,
		}
		if strings.Contains(tt.more, "timestamp") {
			want.Time = time.Unix(1732288000, 500000000)
		}
		u, err := gracedb.Message{Value: []byte(members + tt.more)}.Upload()
		if err != nil {
			t.Errorf("%s: %v", releases, err)
		} else if diff := cmp.Diff(want, u); diff != "" {
			t.Errorf("%s: %s", releases, diff)
		}
	}
}

// Readers put graceids into names of files and URLs.
func TestUploadGraceID(t *testing.T) {
	for id, ok := range map[string]bool{
		"G123456": true, "T0001": true, "m1": true, "EXTERNAL1": true, "G" + strings.Repeat("9", 19): true,
		"G": false, "1": false, "GRACEDBID1": false, "G" + strings.Repeat("9", 20): false, "G1a": false, "G 1": false, "G1/": false, "../G1": false,
		"G１": false, "é1": false, "G1\x00": false, "CON": false, "-1": false, "S230518h": false,
	} {
		value := fmt.Sprintf(`{%s,"graceid":%s,"eventFile":["f",""]}`, required, quoteJSON(id))
		u, err := gracedb.Message{Value: []byte(value)}.Upload()
		if ok && (err != nil || u.GraceID != id) || !ok && err == nil {
			t.Errorf("%q: %q, %v", id, u.GraceID, err)
		}
	}
}

// quoteJSON returns s as a JSON string: UTF-8 as it is, invalid bytes replaced.
func quoteJSON(s string) []byte {
	quoted, _ := jsontext.AppendQuote(nil, s) // the error only says that bytes were replaced
	return quoted
}
