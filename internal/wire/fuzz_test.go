package wire_test

import (
	"bytes"
	stdbase64 "encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/graceid"
	"github.com/gracedb-go/gracedb/internal/wire"
)

func FuzzUpload(f *testing.F) {
	f.Add(wire.Encode(wire.Upload(fullUpload())))
	f.Add([]byte(`{` + required + `,"eventFile":{"filename":"f","payload":"a b"},"x":[{"y":1e5}],"_producer_timestamp":1e9}`))
	f.Add([]byte(`{"type":"new","graceid":"G1","pipeline":"p","eventFile":{"filename":"f","bytes":"ZGF0YQ"},"content_id":"3a6eb079-0f39-ac87-c94f-3856b2dd2c5d"}`))
	f.Add([]byte(`{"type":"ping"}`))
	f.Add([]byte(` { "a" : [ 1 , { } , "\"\\" ] , "a" : null } x`))
	f.Fuzz(func(t *testing.T, value []byte) {
		u, err := gracedb.Message{Topic: "t", Value: value}.Upload()
		if err != nil {
			if !strings.HasPrefix(err.Error(), "gracedb: message in topic t, partition 0, offset 0: ") || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("%q: %v", value, err)
			}
			return
		}
		if !jsontext.Value(value).IsValid() {
			t.Fatalf("%q is not valid JSON, but decodes to %+v", value, u)
		}
		if u.ContentID != "" && !strings.EqualFold(u.ContentID, wire.ContentID(u.Data)) {
			t.Errorf("%q: contents with another content_id: %+v", value, u)
		}
		if u.GraceID != "" && !graceid.Is(u.GraceID) {
			t.Errorf("%q: graceid %q", value, u.GraceID)
		}
		// What was read is written and read again the same, but for what is left out.
		u.Extra = nil
		u.Filename = wire.FileName(u.Filename)
		again, err := gracedb.Message{Value: wire.Encode(wire.Upload(u))}.Upload()
		if err != nil {
			t.Fatal(err)
		}
		ignore := []cmp.Option{cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(time.Microsecond)}
		if u.ContentID == "" {
			u.ContentID = wire.ContentID(u.Data)
		}
		if u.Time.IsZero() {
			u.Time = again.Time
		}
		if diff := cmp.Diff(u, again, ignore...); diff != "" {
			t.Errorf("%q: %s", value, diff)
		}
	})
}

// valid returns s as a JSON string carries it: each byte that is not UTF-8 becomes U+FFFD.
func valid(s string) string { return string([]rune(s)) }

func FuzzEncodeUpload(f *testing.F) {
	f.Add("G1", "alice", "gstlal", "INJ", "coinc.xml", []byte("data"), int64(1732288000123456), true)
	f.Add("", "\xff\u2028", "\x00\"\\", "<&>", "a/b", []byte{}, int64(0), false)
	f.Fuzz(func(t *testing.T, graceID, submitter, pipeline, label, file string, data []byte, micros int64, flag bool) {
		u := gracedb.Upload{
			Server: pipeline, GraceID: graceID, Submitter: submitter, Pipeline: pipeline, PublishOnly: flag, SkipSupervisor: !flag,
			Labels: []string{label, label}, Filename: file, Data: data, Time: time.UnixMicro(micros & (1<<47 - 1)),
			Group: label, Search: submitter, Offline: flag, ReplayID: graceID,
		}
		value := wire.Encode(wire.Upload(u))
		if len(value) != wire.Size(wire.Upload(u)) {
			t.Fatalf("%d bytes, uploadSize says %d", len(value), wire.Size(wire.Upload(u)))
		}
		if !json.Valid(value) {
			t.Fatalf("not JSON: %q", value)
		}
		got, err := gracedb.Message{Value: value}.Upload()
		if graceID != "" && !graceid.Is(graceID) {
			if err == nil {
				t.Fatalf("graceid %q is one", graceID)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		want := gracedb.Upload{
			Server: valid(pipeline), GraceID: valid(graceID), Submitter: valid(submitter), Pipeline: valid(pipeline),
			PublishOnly: flag, SkipSupervisor: !flag, Labels: []string{valid(label), valid(label)}, Filename: valid(wire.FileName(file)),
			Data: data, Time: u.Time, Group: valid(label), Search: valid(submitter), Offline: flag, ReplayID: valid(graceID),
			ContentID: wire.ContentID(data),
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzContents changes contents on their way.
func FuzzContents(f *testing.F) {
	f.Add([]byte("<event/>"), 3, 1, []byte("*"), true)
	f.Add([]byte("data"), 6, 2, []byte(""), false)
	f.Fuzz(func(t *testing.T, data []byte, at, lost int, instead []byte, withID bool) {
		id := ""
		if withID {
			id = wire.ContentID(data)
		}
		sent := stdbase64.StdEncoding.EncodeToString(data)
		at = max(0, min(at, len(sent)))
		lost = max(0, min(lost, len(sent)-at))
		contents := sent[:at] + string(instead) + sent[at+lost:]
		got, err := uploadOf(string(quoteJSON(contents)), id)
		decoded, damage := stdbase64.StdEncoding.DecodeString(contents)
		switch {
		case err != nil && damage == nil && (!withID || bytes.Equal(decoded, data)):
			t.Errorf("%q: %v", contents, err)
		case err == nil && withID && !bytes.Equal(got.Data, data):
			t.Errorf("%q is taken for %q: %q", contents, data, got.Data)
		case err == nil && damage == nil && !bytes.Equal(got.Data, decoded):
			t.Errorf("%q decodes to %q", contents, got.Data)
		case err == nil && damage != nil && valid(contents) != string(got.Data):
			t.Errorf("%q is the text %q", contents, got.Data)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"a":[1,null,"\u00e9"]}`))
	f.Add([]byte("[[[[]]]] x"))
	f.Fuzz(func(t *testing.T, value []byte) {
		m := gracedb.Message{Topic: "t", Value: value}
		var got, want any
		if err := m.Decode(&got); err != nil {
			if !strings.HasPrefix(err.Error(), "gracedb: message in topic t, ") || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("%q: %v", value, err)
			}
			return
		}
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatalf("%q decodes to %v, but encoding/json says %v", value, got, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", value, diff)
		}
	})
}
