package wire_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/errs"
)

func TestUploadError(t *testing.T) {
	const file = `,"eventFile":["f",""]`
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	tests := []struct{ name, value, want string }{
		{"nothing", "", "no value"},
		{"only space", " \n", "no value"},
		{"text", "plain text", "not valid JSON: jsontext: invalid character 'p' at start of value"},
		{"null", "null", "is null, not an object"},
		{"array", `["upload"]`, "is an array, not an object"},
		{"number", "1", "is a number, not an object"},
		{"empty object", "{}", `member "type" is missing`},
		{"type is null", `{"type":null}`, `member "type" is null`},
		{"type is no string", `{"type":1}`, `member "type" is a number, not a string`},
		{"byte order mark", "\xef\xbb\xbf{" + required + file + "}", "not valid JSON: jsontext: invalid character '\\ufeff' at start of value"},
		{"UTF-16", "\xff\xfe{\x00", "not valid JSON: jsontext: invalid character '\\xff' at start of value"},
		{"cut", "{" + required, "not valid JSON: jsontext: unexpected EOF after offset 74"},
		{"cut in a string", `{"type":"upl`, "not valid JSON: jsontext: unexpected EOF within \"/type\" after offset 12"},
		{"cut after a backslash", `{"type":"upl\`, "not valid JSON: jsontext: unexpected EOF within \"/type\" after offset 12"},
		{"two objects", "{" + required + file + "}{}", "not valid JSON: there is more after the first value"},
		{"more after nothing", "{} {}", "not valid JSON: there is more after the first value"},
		{"comma at the end", "{" + required + file + ",}", "not valid JSON: jsontext: invalid character '}' at start of string"},
		{"no comma", "{" + required + ` "eventFile":["f",""]}`, "not valid JSON"},
		{"no colon", `{"type" "upload"}`, "not valid JSON"},
		{"name without quotes", `{type:"upload"}`, "not valid JSON"},
		{"bad literal", "{" + required + file + `,"offline":truf}`, "not valid JSON"},
		{"bad number", "{" + required + file + `,"_producer_timestamp":01}`, "not valid JSON"},
		{"bad unknown member", "{" + required + file + `,"x":[1,]}`, "not valid JSON"},
		{"wrong bracket", "{" + required + file + `,"x":[1}}`, "not valid JSON"},
		{"control character", "{" + required + ",\"eventFile\":[\"f\",\"ZGF0\nYQ==\"]}", "not valid JSON"},
		{"bad UTF-8", "{" + required + ",\"eventFile\":[\"\xff\",\"\"]}", "not valid JSON: jsontext: invalid UTF-8"},
		{"bad UTF-8 in a name", "{" + required + file + ",\"\xff\":0}", "not valid JSON: jsontext: invalid UTF-8"},
		{"bad UTF-8 in the text", "{" + required + ",\"eventFile\":[\"f\",\"data \xff\"]}", "not valid JSON: jsontext: invalid UTF-8"},
		{"half a surrogate pair", "{" + required + `,"eventFile":["\ud800",""]}`, "not valid JSON: jsontext: invalid surrogate pair"},
		{"twice", `{"type":"ping",` + required + file + "}", `member "type" is there twice`},
		{"twice, escaped", "{" + required + file + `,"\u0070ipeline":"q"}`, `member "pipeline" is there twice`},
		{"unknown twice", "{" + required + file + `,"x":1,"x":1}`, `member "x" is there twice`},
		{"twice inside", "{" + required + file + `,"x":{"y":1,"y":2}}`, "not valid JSON: jsontext: duplicate object member name"},
		{"server is a number", `{"type":"upload","gracedb_server":1,"pipeline":"p"` + file + "}", `member "gracedb_server" is a number, not a string`},
		{"no pipeline", `{"type":"upload","gracedb_server":"s","gracedb_upload":true` + file + "}", `member "pipeline" is missing`},
		{"gracedb_upload is null", `{"type":"upload","gracedb_server":"s","pipeline":"p","gracedb_upload":null` + file + "}", `member "gracedb_upload" is null`},
		{"no file", "{" + required + "}", `member "eventFile" is missing`},
		{"null file", "{" + required + `,"eventFile":null}`, `member "eventFile" is null`},
		{"file is text", "{" + required + `,"eventFile":"f"}`, `member "eventFile" is a string, not an array or object`},
		{"file of one", "{" + required + `,"eventFile":["f"]}`, `member "eventFile" is wrong: 1 elements, not a name and the contents`},
		{"file of three", "{" + required + `,"eventFile":["f","",""]}`, `member "eventFile" is wrong: 3 elements, not a name and the contents`},
		{"file of nothing", "{" + required + `,"eventFile":[]}`, `member "eventFile" is wrong: 0 elements, not a name and the contents`},
		{"file name is null", "{" + required + `,"eventFile":[null,""]}`, `member "eventFile" has a file name that is null, not a string`},
		{"contents are a number", "{" + required + `,"eventFile":["f",5]}`, `member "eventFile" has contents that are wrong: is a number, not a string`},
		{"no payload", "{" + required + `,"eventFile":{"filename":"f"}}`, `member "eventFile" is wrong: member "payload" is missing`},
		{"payload twice", "{" + required + `,"eventFile":{"filename":"f","payload":"","payload":""}}`, `member "eventFile" is wrong: member "payload" is there twice`},
		{"payload twice, by two names", "{" + required + `,"eventFile":{"filename":"f","bytes":"","payload":""}}`, `member "eventFile" is wrong: member "bytes" holds contents, too`},
		{"payload by three names", "{" + required + `,"eventFile":{"filename":"f","bytes":"","payload":"","payload_b64":5}}`, `member "eventFile" is wrong: member "payload_b64" holds contents, too`},
		{"bad part of a file", "{" + required + `,"eventFile":{"filename":"f","payload":"","x":tru}}`, "not valid JSON"},
		{"labels are text", "{" + required + file + `,"labels":"INJ"}`, `member "labels" is a string, not an array of strings`},
		{"a label is null", "{" + required + file + `,"labels":["INJ",null]}`, `member "labels" has an element that is null, not a string`},
		{"graceid is a number", "{" + required + file + `,"graceid":5}`, `member "graceid" is a number, not a string`},
		{"graceid is a path", "{" + required + file + `,"graceid":"../../G1"}`, `member "graceid" is "../../G1", not a graceid: letters and then digits are, such as G123456`},
		{"graceid has a newline at its end", "{" + required + file + `,"graceid":"G1\n"}`, `member "graceid" is "G1", not a graceid`},
		{"graceid is longer than a file's name", "{" + required + file + `,"graceid":"G` + strings.Repeat("1", 300) + `"}`, `member "graceid" is "G111`},
		{"graceid is a token", "{" + required + file + `,"graceid":"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"}`, `member "graceid" is "[token removed]", not a graceid`},
		{"gracedb_upload is text", `{"type":"upload","gracedb_server":"s","pipeline":"p","gracedb_upload":"true"` + file + "}", `member "gracedb_upload" is a string, not a boolean`},
		{"skip_supervisor is a number", "{" + required + file + `,"skip_supervisor":1}`, `member "skip_supervisor" is a number, not a boolean`},
		{"time is text", "{" + required + file + `,"_producer_timestamp":"now"}`, `member "_producer_timestamp" is a string, not a number`},
		{"time is negative", "{" + required + file + `,"_producer_timestamp":-1}`, `member "_producer_timestamp" is not a time since 1970`},
		{"time in milliseconds", "{" + required + file + `,"_producer_timestamp":1732288000000}`, `member "_producer_timestamp" is not a time since 1970`},
		{"time is huge", "{" + required + file + `,"_producer_timestamp":` + strings.Repeat("9", 100_000) + "}", `member "_producer_timestamp" is not a time since 1970`},
		{"time is huger", "{" + required + file + `,"_producer_timestamp":1e999999999}`, `member "_producer_timestamp" is not a time since 1970`},
		{"time is NaN", "{" + required + file + `,"_producer_timestamp":NaN}`, "not valid JSON: jsontext: invalid character 'N' at start of value"},
		{"too deep", "{" + required + file + `,"x":` + deep + "}", "JSON nested more than 64 levels deep"},
		{"far too deep, cut", strings.Repeat(`{"type":`, 1_000_000), "JSON nested more than 64 levels deep"},
		{"too many members", "{" + required + file + manyMembers(300) + "}", "has more than 256 members or elements"},
		{"too many labels", "{" + required + file + `,"labels":[0` + strings.Repeat(",0", 300) + "]}", `member "labels" has more than 256 members or elements`},
		{"a token in it", "{" + required + file + `,"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln":1,"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln":1}`, `member "[token removed]" is there twice`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := gracedb.Message{Topic: "gracedb-test.gstlal", Partition: 3, Offset: 42, Value: []byte(tt.value)}.Upload()
			if err == nil {
				t.Fatalf("decoded to %+v", u)
			}
			want := "gracedb: message in topic gracedb-test.gstlal, partition 3, offset 42: " + tt.want
			if !strings.HasPrefix(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 1000 {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if errors.Is(err, errs.NotUpload) || errors.Is(err, errs.Kafka) {
				t.Errorf("%v is of a kind", err)
			}
			if diff := cmp.Diff(gracedb.Upload{}, u); diff != "" {
				t.Errorf("an error and %s", diff)
			}
		})
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"x%d":0`, i)
	}
	return b.String()
}

func TestUploadOtherType(t *testing.T) {
	for name, value := range map[string]string{
		"ping":                        `{"type":"ping"}`,
		"other members are different": `{"labels":5,"eventFile":null,"type":"alert"}`,
		"empty type":                  `{"type":""}`,
		"a token for a type":          `{"type":"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"}`,
	} {
		_, err := gracedb.Message{Topic: "t", Value: []byte(value)}.Upload()
		if !errors.Is(err, errs.NotUpload) || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
