package wire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/vectors"
)

// decodingDiffers are the values that Decode treats otherwise than the peer's
// poll, each with the reason. Where Decode is an error, the Message still has the
// bytes.
var decodingDiffers = map[string]string{
	"-1e400":            "no float64 holds it; the peer makes it -inf",
	"NaN":               "not JSON",
	"-Infinity":         "not JSON",
	`{"a": NaN}`:        "not JSON",
	"":                  "not JSON",
	"plain text":        "not JSON: the peer returns the text",
	`{"a": 1} trailing`: "not JSON: the peer returns the text",
	"grün":              "not JSON: the peer returns the text",
	"\xff\xfe\x00\x01":  "not JSON: the peer returns the bytes",
	"\"\xff\"":          "not UTF-8: the peer returns the bytes",
	"\xff\xfe{\x00\"\x00a\x00\"\x00:\x00 \x001\x00}\x00": "UTF-16: JSON is UTF-8 (RFC 8259)",
	"{\x00\"\x00a\x00\"\x00:\x00 \x001\x00}\x00":         "UTF-16: JSON is UTF-8 (RFC 8259)",
	`"\ud800"`:                "half a surrogate pair is not text",
	strings.Repeat("1", 4301): "no float64 holds it; the peer fails too",
	strings.Repeat("[", 1000) + strings.Repeat("]", 1000): "more than 64 levels; the peer fails too",
	"{'a': 1}":              "not JSON: the peer returns the text",
	"[1,]":                  "not JSON: the peer returns the text",
	"\x00":                  "not JSON: the peer returns the text",
	"0x10":                  "not JSON: the peer returns the text",
	"{\"a\": 1}\x00":        "not JSON: the peer returns the text",
	`{"\u0061": 1, "a": 3}`: "which of two members is meant cannot be known; the peer takes the last",
}

// A decodingVector is a line of decoding.jsonl.
type decodingVector struct {
	Value  json.RawMessage `json:"value_b64"`
	Key    *string         `json:"key_b64"`
	Output *struct {
		Value        any
		Key, Headers any
	}
}

// value returns the bytes of the message, nil if it has none.
func (v decodingVector) value(t *testing.T) []byte {
	t.Helper()
	var spec struct {
		Repeat []byte `json:"repeat_b64"`
		Len    int
		Nested int `json:"nested_arrays"`
	}
	if v.Value[0] == '{' {
		if err := json.Unmarshal(v.Value, &spec); err != nil {
			t.Fatal(err)
		}
		if spec.Nested > 0 {
			return []byte(strings.Repeat("[", spec.Nested) + strings.Repeat("]", spec.Nested))
		}
		return bytes.Repeat(spec.Repeat, spec.Len)
	}
	var value []byte
	if err := json.Unmarshal(v.Value, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestVectorsDecoding(t *testing.T) {
	seen := make(map[string]bool)
	lines, err := vectors.Lines[decodingVector]("decoding.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range lines {
		m := gracedb.Message{Topic: "gracedb-test.test", Partition: 2, Offset: int64(i), Value: v.value(t)}
		var got any
		err := m.Decode(&got)
		switch reason := decodingDiffers[string(m.Value)]; {
		case m.Value == nil:
			// A tombstone: nil bytes tell it from a JSON null, which the peer cannot.
			if err == nil {
				t.Errorf("line %d: decoded nothing into %v", i+1, got)
			}
		case reason != "":
			seen[string(m.Value)] = true
			if err == nil {
				t.Errorf("line %d: %.40q decoded to %v: %s", i+1, m.Value, got, reason)
			}
		case err != nil:
			t.Errorf("line %d: %.40q: %v", i+1, m.Value, err)
		default:
			if diff := cmp.Diff(marked(v.Output.Value), got); diff != "" {
				t.Errorf("line %d: %.40q: %s", i+1, m.Value, diff)
			}
		}
		if err != nil && !strings.Contains(err.Error(), "message in topic gracedb-test.test, partition 2, offset ") {
			t.Errorf("line %d: the error does not say which message: %v", i+1, err)
		}

		// The peer turns keys into text where it can. A Message has the bytes, which
		// say the same.
		if v.Key == nil || v.Output == nil {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(*v.Key)
		if err != nil {
			t.Fatal(err)
		}
		if want := marked(v.Output.Key); want != string(key) {
			t.Errorf("line %d: key %q, the peer has %q", i+1, key, want)
		}
	}
	if len(seen) != len(decodingDiffers) {
		t.Errorf("%d of the %d differences met", len(seen), len(decodingDiffers))
	}
}

// marked replaces what the vectors write for things that JSON cannot hold.
func marked(v any) any {
	object, ok := v.(map[string]any)
	if !ok {
		return v
	}
	if text, ok := object["$bytes_b64"].(string); ok {
		raw, _ := base64.StdEncoding.DecodeString(text)
		return string(raw)
	}
	if object["$int"] == "123456789012345678901234567890" {
		return 123456789012345678901234567890.0 // what Decode into any gives; a json.Number has all digits
	}
	replaced := make(map[string]any, len(object))
	for name, value := range object {
		replaced[name] = marked(value)
	}
	return replaced
}
