package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gracedb-go/gracedb/internal/topicname"
	"github.com/gracedb-go/gracedb/internal/vectors"
)

func TestVectorsContentID(t *testing.T) {
	type vector struct {
		Input  []byte            `json:"input_b64"`
		Repeat []json.RawMessage `json:"input_repeat"`
		Output string
	}
	lines, err := vectors.Lines[vector]("contentid.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range lines {
		if v.Repeat != nil {
			var unit []byte
			var count int
			if err := json.Unmarshal(v.Repeat[0], &unit); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(v.Repeat[1], &count); err != nil {
				t.Fatal(err)
			}
			v.Input = bytes.Repeat(unit, count)
		}
		if got := ContentID(v.Input); got != v.Output {
			t.Errorf("line %d: contentID of %d bytes = %s, want %s", i+1, len(v.Input), got, v.Output)
		}
	}
}

// A messageVector is the Kafka half of a line of messages.jsonl.
type messageVector struct {
	Name string
	Call struct {
		Group, Pipeline, Search, Filename string
		ContentsKind                      string `json:"contents_kind"`
		Contents                          []byte `json:"contents_b64"`
		Labels                            labelsArgument
		Offline, ReplayID                 any
		SkipSupervisor                    bool `json:"skip_supervisor"`
	}
	ServiceURL string `json:"service_url"`
	Instance   string
	Records    []struct {
		Topic, Key string
		Headers    any
		Value      struct {
			B64    []byte
			SHA256 string
			Len    int
		}
	} `json:"kafka_records"`
}

// A labelsArgument is a string or a list of them: the peer takes both.
type labelsArgument []string

func (l *labelsArgument) UnmarshalJSON(raw []byte) error {
	if raw[0] == '"' {
		*l = []string{""}
		return json.Unmarshal(raw, &(*l)[0])
	}
	return json.Unmarshal(raw, (*[]string)(l))
}

// messageDiffers are the lines whose message carries another file name than the
// peer's, each with the reason. The other differences hold for every message:
// peerForm undoes them.
var messageDiffers = map[string]struct{ peers, ours, reason string }{
	"name-relpath": {"sub/../coinc.xml.gz", "coinc.xml.gz", "directories of the submitting machine mean nothing to the reader"},
}

// upload returns what PublishEvent would encode for the call of v.
func (v messageVector) upload() Upload {
	u := Upload{
		Server: v.ServiceURL, GraceID: "G1001", Submitter: "alice",
		Pipeline: v.Call.Pipeline, SkipSupervisor: v.Call.SkipSupervisor, Labels: v.Call.Labels,
		Filename: v.Call.Filename, Data: v.Call.Contents, Group: v.Call.Group, Search: v.Call.Search,
		Time: time.Unix(1732288000, 0),
	}
	// Reading files is the caller's business here.
	switch v.Call.ContentsKind {
	case "stdin":
		u.Filename = "initial.data"
	case "halffile":
		u.Data = u.Data[4:]
	case "big":
		u.Data = make([]byte, 1<<20)
		for i := range u.Data {
			u.Data[i] = byte(7*i + 13*(i>>8) + 5*(i>>16))
		}
	}
	u.ContentID = ContentID(u.Data)
	return u
}

func TestVectorsMessages(t *testing.T) {
	lines, err := vectors.Lines[messageVector]("messages.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	seen, records := 0, 0
	for _, v := range lines {
		if len(v.Records) == 0 {
			continue // its HTTP requests are another test's
		}
		records++
		t.Run(v.Name, func(t *testing.T) {
			u := v.upload()
			record := v.Records[0]
			if topic := topicname.Full(v.Instance, topicname.Route(v.Call.Group, v.Call.Pipeline)); topic != record.Topic {
				t.Errorf("topic %q, want %q", topic, record.Topic)
			}
			if u.GraceID != record.Key || record.Headers != nil {
				t.Errorf("key %q, want %q; want headers %v", u.GraceID, record.Key, record.Headers)
			}

			value := Encode(u)
			got, added := peerForm(t, value)
			if differs, ok := messageDiffers[v.Name]; ok {
				seen++
				got = bytes.Replace(got, quotePeer(differs.ours), quotePeer(differs.peers), 1)
			}
			if record.Value.Len > 0 {
				sum := sha256.Sum256(got)
				if len(got) != record.Value.Len || hex.EncodeToString(sum[:]) != record.Value.SHA256 {
					t.Errorf("%d bytes with SHA-256 %x, want %d with %s", len(got), sum, record.Value.Len, record.Value.SHA256)
				}
			} else if diff := cmp.Diff(string(record.Value.B64), string(got)); diff != "" {
				t.Errorf("message differs from the peer's (-peer +ours):\n%s", diff)
			}
			want := []string{"content_id " + u.ContentID, "group " + u.Group}
			if u.Search != "" {
				want = append(want, "search "+u.Search)
			}
			if diff := cmp.Diff(want, added); diff != "" {
				t.Errorf("added members: %s", diff)
			}

			// What the peer sent decodes to the same, but for what it leaves out.
			if record.Value.B64 != nil {
				peers, err := Decode(record.Value.B64)
				if err != nil {
					t.Fatal(err)
				}
				want := u
				want.ContentID, want.Group, want.Search, want.Time = "", "", "", time.Unix(0, 0)
				if differs, ok := messageDiffers[v.Name]; ok {
					want.Filename = differs.peers
				}
				if diff := cmp.Diff(want, peers, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("the peer's message decodes to (-want +got):\n%s", diff)
				}
			}
		})
	}
	if seen != len(messageDiffers) || records == 0 {
		t.Errorf("%d of the %d differences met in %d messages", seen, len(messageDiffers), records)
	}
}

// peerForm turns a message of ours into the form that the peer would have sent,
// with the time as the vectors have it, and returns the members it has no place
// for. It undoes our separators, UTF-8 and additions, and nothing else: the order
// of the members stays.
func peerForm(t *testing.T, value []byte) (peers []byte, added []string) {
	t.Helper()
	members, err := splitObject(nil, value)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.WriteByte('{')
	for i, m := range members {
		if i >= 10 { // the peer has ten
			var text string
			if err := json.Unmarshal(m.value, &text); err != nil {
				t.Fatal(err)
			}
			added = append(added, fmt.Sprintf("%s %s", m.name, text))
			continue
		}
		if i > 0 {
			out.WriteString(", ")
		}
		if string(m.name) == "_producer_timestamp" {
			if string(m.value) != "1732288000.000000" {
				t.Errorf("time is %s", m.value)
			}
			m.value = []byte("0")
		}
		fmt.Fprintf(&out, "%q: %s", m.name, peerValue(t, m.value))
	}
	out.WriteByte('}')
	return out.Bytes(), added
}

func peerValue(t *testing.T, raw []byte) []byte {
	switch raw[0] {
	case '"':
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			t.Fatal(err)
		}
		return quotePeer(text)
	case '[':
		elements, err := splitJSON(nil, raw)
		if err != nil {
			t.Fatal(err)
		}
		out := []byte{'['}
		for i, e := range elements {
			if i > 0 {
				out = append(out, ", "...)
			}
			out = append(out, peerValue(t, e.value)...)
		}
		return append(out, ']')
	}
	return slices.Clone(raw)
}

// quotePeer quotes text as Python's json does: all ASCII.
func quotePeer(text string) []byte {
	out := []byte{'"'}
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r >= 0x10000:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		case r < ' ' || r >= 0x7f:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, byte(r))
		}
	}
	return append(out, '"')
}
