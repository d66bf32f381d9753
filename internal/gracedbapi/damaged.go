package gracedbapi

import (
	"bytes"
	"encoding/json"
	"slices"
)

// decodeObject reads an answer that is a JSON object, also where it has what Python
// writes and JSON does not know: NaN, Infinity and a byte order mark.
func decodeObject(body []byte) (fields map[string]json.RawMessage, err error) {
	if err = json.Unmarshal(body, &fields); err != nil {
		fields = nil
		err = json.Unmarshal(plainJSON(body), &fields)
	}
	return fields, err
}

var (
	byteOrderMark = []byte("\ufeff")
	notNumbers    = [][]byte{[]byte("NaN"), []byte("Infinity"), []byte("-Infinity")}
)

// plainJSON returns body without a byte order mark, and with null for what is not a
// number.
func plainJSON(body []byte) []byte {
	body = bytes.TrimPrefix(body, byteOrderMark)
	plain := make([]byte, 0, len(body))
	for {
		n := bytes.IndexAny(body, `"NI-`)
		if n < 0 {
			return append(plain, body...)
		}
		plain, body = append(plain, body[:n]...), body[n:]
		n = 1
		if body[0] == '"' {
			n = stringLen(body)
		} else if i := slices.IndexFunc(notNumbers, func(word []byte) bool { return bytes.HasPrefix(body, word) }); i >= 0 {
			plain, body, n = append(plain, "null"...), body[len(notNumbers[i]):], 0
		}
		plain, body = append(plain, body[:n]...), body[n:]
	}
}

// stringLen returns the length of the JSON string that b begins with, quotes included,
// or of all of b if the string does not end.
func stringLen(b []byte) int {
	for n := 1; ; n++ {
		i := bytes.IndexAny(b[n:], `"\\`)
		if i < 0 {
			return len(b)
		}
		if n += i; b[n] == '"' {
			return n + 1
		}
		if n++; n >= len(b) {
			return len(b)
		}
	}
}

// headGraceID returns the graceid that stands at the head of an answer which is too
// long, cut or damaged further behind; "" if there is none. GraceDB writes it among
// the first members, and the long ones last.
func headGraceID(body []byte) string {
	const head = 64 << 10
	dec := json.NewDecoder(bytes.NewReader(plainJSON(body[:min(len(body), head)])))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return ""
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return ""
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return ""
		}
		if name != "graceid" {
			continue
		}
		var id string
		if json.Unmarshal(value, &id) != nil || CheckGraceID(id) != nil {
			return ""
		}
		return id
	}
	return ""
}
