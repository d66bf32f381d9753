package gracedb

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func FuzzUpload(f *testing.F) {
	f.Add(encodeUpload(fullUpload()))
	f.Add([]byte(`{` + required + `,"eventFile":{"filename":"f","payload":"a b"},"x":[{"y":1e5}],"_producer_timestamp":1e9}`))
	f.Add([]byte(`{"type":"ping"}`))
	f.Add([]byte(` { "a" : [ 1 , { } , "\"\\" ] , "a" : null } x`))
	f.Fuzz(func(t *testing.T, value []byte) {
		u, err := Message{Topic: "t", Value: value}.Upload()
		if err != nil {
			if !strings.HasPrefix(err.Error(), "gracedb: message in topic t, partition 0, offset 0: ") || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("%q: %v", value, err)
			}
			return
		}
		if !jsontext.Value(value).IsValid() {
			t.Fatalf("%q is not valid JSON, but decodes to %+v", value, u)
		}
		// What was read is written and read again the same, but for what is left out.
		u.Extra = nil
		u.Filename = fileName(u.Filename)
		again, err := Message{Value: encodeUpload(u)}.Upload()
		if err != nil {
			t.Fatal(err)
		}
		ignore := []cmp.Option{cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(time.Microsecond)}
		if u.ContentID == "" {
			u.ContentID = contentID(u.Data)
		}
		if u.Time.IsZero() {
			u.Time = again.Time
		}
		if diff := cmp.Diff(u, again, ignore...); diff != "" {
			t.Errorf("%q: %s", value, diff)
		}
	})
}

func FuzzEncodeUpload(f *testing.F) {
	f.Add("G1", "alice", "gstlal", "INJ", "coinc.xml", []byte("data"), int64(1732288000123456), true)
	f.Add("", "\xff\u2028", "\x00\"\\", "<&>", "a/b", []byte{}, int64(0), false)
	f.Fuzz(func(t *testing.T, graceID, submitter, pipeline, label, file string, data []byte, micros int64, flag bool) {
		u := Upload{
			Server: pipeline, GraceID: graceID, Submitter: submitter, Pipeline: pipeline, PublishOnly: flag, SkipSupervisor: !flag,
			Labels: []string{label, label}, Filename: file, Data: data, Time: time.UnixMicro(micros & (1<<47 - 1)),
			Group: label, Search: submitter, Offline: flag, ReplayID: graceID,
		}
		value := encodeUpload(u)
		if len(value) != uploadSize(u) {
			t.Fatalf("%d bytes, uploadSize says %d", len(value), uploadSize(u))
		}
		if !json.Valid(value) {
			t.Fatalf("not JSON: %q", value)
		}
		got, err := Message{Value: value}.Upload()
		if err != nil {
			t.Fatal(err)
		}
		valid := func(s string) string { return string([]rune(s)) } // what is not UTF-8 becomes U+FFFD
		want := Upload{
			Server: valid(pipeline), GraceID: valid(graceID), Submitter: valid(submitter), Pipeline: valid(pipeline),
			PublishOnly: flag, SkipSupervisor: !flag, Labels: []string{valid(label), valid(label)}, Filename: valid(fileName(file)),
			Data: data, Time: u.Time, Group: valid(label), Search: valid(submitter), Offline: flag, ReplayID: valid(graceID),
			ContentID: contentID(data),
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"a":[1,null,"\u00e9"]}`))
	f.Add([]byte("[[[[]]]] x"))
	f.Fuzz(func(t *testing.T, value []byte) {
		m := Message{Topic: "t", Value: value}
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
