package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// fullUpload has every field set, and bytes that need escapes.
func fullUpload() gracedb.Upload {
	data := []byte("<?xml version=\"1.0\"?>\n\xff\x00")
	return gracedb.Upload{
		Server: "https://gracedb-test.ligo.org/api/", GraceID: "G1001", Submitter: "alice@ligo.org",
		Pipeline: "gstlal", SkipSupervisor: true, Labels: []string{"INJ", "EM_READY"},
		Filename: `gräce "ü"\.xml`, Data: data, ContentID: wire.ContentID(data),
		Time:  time.Unix(1732288000, 12345678),
		Group: "CBC", Search: "AllSky", Offline: true, ReplayID: "r_2",
	}
}

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("..", "..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-golden +got):\n%s", name, diff)
	}
}

func TestEncodeUploadGolden(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the backslash in the file name separates directories here")
	}
	full := fullUpload()
	full.Filename = "/data/run 1/" + full.Filename
	full.Extra = map[string]json.RawMessage{"left": []byte(`"out"`)}
	empty := gracedb.Upload{PublishOnly: true, Time: time.Unix(0, 0)}
	var got bytes.Buffer
	for _, u := range []gracedb.Upload{full, empty} {
		value := wire.Encode(wire.Upload(u))
		if !json.Valid(value) {
			t.Errorf("not JSON: %s", value)
		}
		if len(value) != wire.Size(wire.Upload(u)) || cap(value) != len(value) && cap(value) > len(value)+len(value)/4+64 {
			t.Errorf("%d bytes of %d, want %d", len(value), cap(value), wire.Size(wire.Upload(u)))
		}
		fmt.Fprintf(&got, "%s\n", value)
	}
	checkGolden(t, "upload.golden.json", got.Bytes())
}

func TestEncodePingGolden(t *testing.T) {
	now := time.Unix(1732288000, 12345678)
	ping := wire.Ping(now, "alice", "gracedb.read kafka.produce")
	checkGolden(t, "ping.golden.json", fmt.Appendf(nil, "%s\n%s\n", ping, wire.Ping(now, "", "")))

	_, err := gracedb.Message{Topic: "gracedb-test.test", Partition: 1, Offset: 7, Value: ping}.Upload()
	const want = `gracedb: message in topic gracedb-test.test, partition 1, offset 7: not an upload message: its type is "ping"`
	if !errors.Is(err, errs.NotUpload) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestUploadRoundTrip(t *testing.T) {
	full := fullUpload()
	large := full
	large.Labels = strings.Fields(strings.Repeat("LABEL ", 200)) // more than the scratch space holds
	large.Data = bytes.Repeat([]byte{0, 1, 254, 255, 'x'}, 100_001)
	bare := gracedb.Upload{Data: []byte{}, Time: time.Unix(1, 0), PublishOnly: true}
	for name, u := range map[string]gracedb.Upload{"full": full, "large": large, "bare": bare} {
		t.Run(name, func(t *testing.T) {
			u.Time = u.Time.Truncate(time.Microsecond)
			u.ContentID = wire.ContentID(u.Data)
			value := wire.Encode(wire.Upload(u))
			if len(value) != wire.Size(wire.Upload(u)) {
				t.Errorf("%d bytes, uploadSize says %d", len(value), wire.Size(wire.Upload(u)))
			}
			got, err := gracedb.Message{Value: value}.Upload()
			if err != nil {
				t.Fatal(err)
			}
			if runtime.GOOS == "windows" {
				u.Filename = wire.FileName(u.Filename)
			}
			if diff := cmp.Diff(u, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEncodeUploadFillsIn(t *testing.T) {
	before := time.Now().Truncate(time.Microsecond)
	u := gracedb.Upload{Data: []byte("hello")}
	value := wire.Encode(wire.Upload(u))
	if len(value) != wire.Size(wire.Upload(u)) {
		t.Errorf("%d bytes, uploadSize says %d", len(value), wire.Size(wire.Upload(u)))
	}
	got, err := gracedb.Message{Value: value}.Upload()
	if err != nil {
		t.Fatal(err)
	}
	if got.Time.Before(before) || got.Time.After(time.Now()) {
		t.Errorf("time %v is not now", got.Time)
	}
	if got.ContentID != "2cf24dba-5fb0-a30e-26e8-3b2ac5b9e29e" {
		t.Errorf("content id %s", got.ContentID)
	}
}

// A path of Windows is one on every system, to whoever saves the file.
func TestUploadEventOfWindows(t *testing.T) {
	for _, name := range []string{`C:\data\coinc.xml`, `..\coinc.xml`, `a/b\coinc.xml`, `a\b/coinc.xml`} {
		if got := (gracedb.Upload{Filename: name}).Event().Filename; got != "coinc.xml" {
			t.Errorf("%q becomes %q", name, got)
		}
	}
}

func TestUploadEvent(t *testing.T) {
	u := fullUpload()
	u.Filename = "../coinc.xml"
	want := gracedb.Event{
		Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Labels: []string{"INJ", "EM_READY"},
		Offline: true, ReplayID: "r_2", Filename: "coinc.xml", Data: u.Data,
	}
	if diff := cmp.Diff(want, u.Event()); diff != "" {
		t.Error(diff)
	}
}

// required are the members that every upload has.
const required = `"type":"upload","gracedb_server":"s","pipeline":"p","gracedb_upload":true`

func TestUploadForms(t *testing.T) {
	base := gracedb.Upload{Server: "s", Pipeline: "p", Filename: "f", Data: []byte("data")}
	with := func(change func(*gracedb.Upload)) gracedb.Upload {
		u := base
		change(&u)
		return u
	}
	tests := []struct {
		name, value string
		want        gracedb.Upload
	}{
		{"only what is required", `{` + required + `,"eventFile":["f","ZGF0YQ=="]}`, base},
		{"older producers", `{"type":"new","gracedb_server":"s","pipeline":"p","gracedb_upload":true,"eventFile":["f","ZGF0YQ=="]}`, base},
		{"object", `{` + required + `,"eventFile":{"payload":"ZGF0YQ==","filename":"f","x":[1]}}`, base},
		{"payload is text", `{` + required + `,"eventFile":["f","data: 1\nübrig\ud83d\ude00"]}`, with(func(u *gracedb.Upload) { u.Data = []byte("data: 1\nübrig😀") })},
		{"payload has newlines", `{` + required + `,"eventFile":["f","ZGF0\nYQ==\n"]}`, base},
		{"payload has escapes", `{` + required + `,"eventFile":["f","\u005aGF0YQ=="]}`, base},
		{"slashes escaped", `{` + required + `,"eventFile":["f","\/\/\/\/"]}`, with(func(u *gracedb.Upload) { u.Data = []byte{255, 255, 255} })},
		{"empty payload", `{` + required + `,"eventFile":["f",""]}`, with(func(u *gracedb.Upload) { u.Data = []byte{} })},
		{"space everywhere", " \r\n\t{ " + strings.ReplaceAll(required, `":`, "\" :\n") + ` , "eventFile" : [ "f" , "ZGF0YQ==" ] } ` + "\n", base},
		{"escaped names", `{` + strings.Replace(required, "pipeline", `\u0070ipeline`, 1) + `,"eventFile":["f","ZGF0YQ=="]}`, base},
		{"type last", `{"eventFile":["f","ZGF0YQ=="],"gracedb_server":"s","pipeline":"p","gracedb_upload":true,"type":"upload"}`, base},
		{"publish only", `{` + strings.Replace(required, "true", "false", 1) + `,"graceid":null,"submitter":null,"labels":null,"eventFile":["f","ZGF0YQ=="]}`, with(func(u *gracedb.Upload) { u.PublishOnly = true })},
		{"no labels", `{` + required + `,"labels":[],"eventFile":["f","ZGF0YQ=="]}`, with(func(u *gracedb.Upload) { u.Labels = []string{} })},
		{"null for all that may be", `{` + required + `,"skip_supervisor":null,"_producer_timestamp":null,"content_id":null,"group":null,"search":null,"offline":null,"replay_id":null,"eventFile":["f","ZGF0YQ=="]}`, base},
		{"unknown members", `{` + required + `,"x":{"y":[1,"}"]},"n":null,"":0,"eventFile":["f","ZGF0YQ=="]}`, with(func(u *gracedb.Upload) {
			u.Extra = map[string]json.RawMessage{"x": []byte(`{"y":[1,"}"]}`), "n": []byte("null"), "": []byte("0")}
		})},
		{"path as sent", `{` + required + `,"eventFile":["/a/../f","ZGF0YQ=="]}`, with(func(u *gracedb.Upload) { u.Filename = "/a/../f" })},
		{"backslashes before quotes", `{` + required + `,"eventFile":["\\","\\\"\\"]}`, with(func(u *gracedb.Upload) { u.Filename, u.Data = `\`, []byte(`\"\`) })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			value := []byte(tt.value)
			got, err := gracedb.Message{Value: value}.Upload()
			if err != nil {
				t.Fatal(err)
			}
			clear(value) // it shares no memory with the message
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUploadTime(t *testing.T) {
	for number, want := range map[string]time.Time{
		"0":                     time.Unix(0, 0),
		"1732288000":            time.Unix(1732288000, 0),
		"1732288000.1":          time.Unix(1732288000, 100000000),
		"1732288000.1234567":    time.Unix(1732288000, 123456700),
		"1732288000.1234567899": time.Unix(1732288000, 123456789),
		"1.7322880005e9":        time.Unix(1732288000, 500000000),
		"253402300799.9":        time.Unix(253402300799, 900000000),
		"1e-400":                time.Unix(0, 0),
	} {
		value := `{` + required + `,"eventFile":["f",""],"_producer_timestamp":` + number + `}`
		got, err := gracedb.Message{Value: []byte(value)}.Upload()
		if err != nil || !got.Time.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", number, got.Time, err, want)
		}
	}
}

func TestMessageDecode(t *testing.T) {
	var v struct {
		A       int
		Wait    time.Duration
		Missing []string
		At      time.Time `json:"at"`
	}
	m := gracedb.Message{Topic: "gracedb-test.test", Offset: 5, Value: []byte(` {"a":1,"Wait":1000,"missing":null,"at":"2026-01-02T03:04:05Z"} `)}
	if err := m.Decode(&v); err != nil || v.A != 1 || v.Wait != time.Microsecond || v.At.Year() != 2026 {
		t.Errorf("%+v, %v", v, err)
	}

	const in = "gracedb: message in topic gracedb-test.test, partition 0, offset 5: "
	for value, want := range map[string]string{
		``:                             "unexpected end of JSON input",
		`{"a":"x"}`:                    "cannot unmarshal string into Go struct field .a of type int",
		`{"a":1,"a":1}`:                `duplicate object member name`,
		"\"\xff\"":                     "invalid UTF-8",
		`1 2`:                          "invalid character '2' after top-level value",
		strings.Repeat("[", 1_000_000): "JSON nested more than 64 levels deep",
		strings.Repeat("9", 1_000_000): "cannot unmarshal number",
	} {
		m.Value = []byte(value)
		err := m.Decode(&v)
		if err == nil || !strings.HasPrefix(err.Error(), in) || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 {
			t.Errorf("%.40q: got %v, want %s", value, err, want)
		}
	}
	for name, v := range map[string]any{"nil": nil, "no pointer": v, "nil pointer": (*int)(nil)} {
		m.Value = []byte("{}")
		if err := m.Decode(v); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestJSONMessage(t *testing.T) {
	m, err := gracedb.JSONMessage("test", map[string]any{"a": []int{1}, "none": []int(nil)})
	want := gracedb.Message{Topic: "test", Value: []byte(`{"a":[1],"none":null}`)}
	if diff := cmp.Diff(want, m); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, v := range []any{math.NaN(), func() {}, make(chan int)} {
		m, err := gracedb.JSONMessage("test", v)
		if err == nil || !strings.HasPrefix(err.Error(), `gracedb: message for topic "test": cannot encode `) {
			t.Errorf("%T: %v", v, err)
		}
		if diff := cmp.Diff(gracedb.Message{}, m); diff != "" {
			t.Error(diff)
		}
	}
}

// A value that was begun before the graceid was known has the bytes of one made at once,
// whatever turns out to be longer or shorter than there is room for.
func TestDraftHasSameBytes(t *testing.T) {
	for _, submitter := range []string{"", "alice@ligo.org", strings.Repeat("s", 200), strings.Repeat("s", 300), strings.Repeat("\x01", 100)} {
		for _, size := range []int{1, 2, 3, 1000} {
			u := fullUpload()
			u.Data = samples.Coinc(2000, 1)[:size]
			u.ContentID = wire.ContentID(u.Data)
			d := wire.NewDraft(wire.Upload(u))
			u.GraceID, u.Submitter, u.Time = "G1234567890", submitter, u.Time.Add(time.Hour)
			if got, want := d.Complete(wire.Upload(u)), wire.Encode(wire.Upload(u)); !bytes.Equal(got, want) {
				t.Errorf("submitter %q, %d bytes:\n%s\nwant\n%s", submitter, size, got, want)
			}
		}
	}
}
