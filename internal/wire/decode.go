package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/segmentio/asm/base64"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/graceid"
)

// explainSyntax returns an error that says where value stops being JSON.
func explainSyntax(value []byte, err error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(value))
	for {
		switch _, cause := d.ReadValue(); {
		case errors.Is(cause, io.EOF): // no fault in it after all, or none at all
			return err
		case cause != nil:
			return fmt.Errorf("%w: %w", errNotJSON, cause)
		}
	}
}

// The methods of members decode them by name. Each leaves the first error in
// *failed, and does nothing if there is one already.

// take returns the value of a member, nil if there is none or it is null.
func (ms members) take(name string, required bool, failed *error) []byte {
	if *failed != nil {
		return nil
	}
	for i := range ms {
		m := &ms[i]
		if string(m.name) != name {
			continue
		}
		value := m.value
		m.value = nil
		if string(value) != "null" {
			return value
		}
		if required {
			*failed = wrongMember(name, errors.New("is null"))
		}
		return nil
	}
	if required {
		*failed = wrongMember(name, errors.New("is missing"))
	}
	return nil
}

func wrongMember(name string, err error) error {
	return fmt.Errorf("member %q %w", errs.Clean(name), err)
}

// unquoted returns the text of a member, which may share memory with the message.
func (ms members) unquoted(name string, required bool, failed *error) []byte {
	value := ms.take(name, required, failed)
	if value == nil {
		return nil
	}
	text, err := unquoteJSON(value)
	if err != nil {
		*failed = wrongMember(name, err)
	}
	return text
}

func (ms members) text(name string, required bool, failed *error) string {
	return string(ms.unquoted(name, required, failed))
}

func (ms members) texts(name string, failed *error) []string {
	value := ms.take(name, false, failed)
	if value == nil {
		return nil
	}
	if value[0] != '[' {
		*failed = wrongMember(name, wrongKind("an array of strings", value))
		return nil
	}
	var room [16]member
	elements, err := splitJSON(room[:0], value)
	texts := make([]string, len(elements))
	for i, e := range elements {
		var text []byte
		if text, err = unquoteJSON(e.value); err != nil {
			err = fmt.Errorf("has an element that %w", err)
			break
		}
		texts[i] = string(text)
	}
	if err != nil {
		*failed = wrongMember(name, err)
	}
	return texts
}

// graceID decodes a graceid, which readers put into file names and URLs.
func (ms members) graceID(name string, failed *error) string {
	id := ms.text(name, false, failed)
	if id != "" && !graceid.Is(id) {
		*failed = wrongMember(name, fmt.Errorf("is %q, not a graceid: %s", errs.Clean(id), graceid.Form))
	}
	return id
}

// has reports whether there is such a member, null or not, that is not taken yet.
func (ms members) has(name string) bool {
	return slices.ContainsFunc(ms, func(m member) bool { return m.value != nil && string(m.name) == name })
}

func (ms members) bool(name string, required bool, failed *error) bool {
	value := ms.take(name, required, failed)
	switch string(value) {
	case "true":
		return true
	case "false", "":
	default:
		*failed = wrongMember(name, wrongKind("a boolean", value))
	}
	return false
}

// file decodes [name, contents] or {"filename": name, "payload": contents}. If id is
// not empty, it is the content_id that the contents must have.
func (ms members) file(name string, id []byte, failed *error) (filename string, data []byte) {
	value := ms.take(name, true, failed)
	if value == nil {
		return "", nil
	}
	filename, data, err := decodeFile(value, id)
	if err != nil {
		*failed = wrongMember(name, err)
	}
	return filename, data
}

func decodeFile(value, id []byte) (filename string, data []byte, err error) {
	if value[0] != '[' && value[0] != '{' {
		return "", nil, wrongKind("an array or object", value)
	}
	var room [4]member
	parts, err := splitJSON(room[:0], value)
	var first, second []byte
	if value[0] == '{' {
		first = parts.take("filename", true, &err)
		second = parts.takeContents(&err)
		parts.rest(&err) // what else there is only has to be JSON
	} else if len(parts) == 2 {
		first, second = parts[0].value, parts[1].value
	} else if err == nil {
		err = fmt.Errorf("%d elements, not a name and the contents", len(parts))
	}
	if err != nil {
		return "", nil, fmt.Errorf("is wrong: %w", err)
	}
	text, err := unquoteJSON(first)
	if err != nil {
		return "", nil, fmt.Errorf("has a file name that %w", err)
	}
	if data, err = decodePayload(second, id); err != nil {
		return "", nil, fmt.Errorf("has contents that are wrong: %w", err)
	}
	return string(text), data, nil
}

// takeContents returns the contents of a file in an object, which producers have
// different names for.
func (ms members) takeContents(failed *error) (value []byte) {
	for _, name := range []string{"payload", "payload_b64", "bytes"} {
		other := ms.take(name, false, failed)
		if value != nil && other != nil {
			*failed = wrongMember(name, errors.New("holds contents, too"))
		}
		if other != nil {
			value = other
		}
	}
	if value == nil && *failed == nil {
		*failed = wrongMember("payload", errors.New("is missing"))
	}
	return value
}

// decodePayload returns the contents of an event file, which are sent in base64 or as
// they are. If there is an id, it is theirs, and decides which.
func decodePayload(value, id []byte) ([]byte, error) {
	if value[0] != '"' {
		return nil, wrongKind("a string", value)
	}
	inner := value[1 : len(value)-1]
	data, ok := fromBase64(inner)
	// What decodes has no escapes and is all ASCII: it needs no look at each character,
	// unless it has newlines, which base64 may have and a JSON string may not.
	plain := ok && bytes.IndexByte(inner, '\n') < 0 && bytes.IndexByte(inner, '\r') < 0
	text := inner
	if !plain {
		var err error
		if text, err = unquoteJSON(value); err != nil {
			return nil, err
		}
		if len(text) != len(inner) { // there were escapes
			data, ok = fromBase64(text)
		}
	}
	if ok && (len(id) == 0 || hasContentID(data, id)) {
		return data, nil
	}
	if len(id) > 0 && hasContentID(text, id) {
		return bytes.Clone(text), nil
	}
	if !ok {
		if err := damagedBase64(text); err != nil {
			return nil, err
		}
		if len(id) == 0 {
			return bytes.Clone(text), nil
		}
		data = text
	}
	return nil, fmt.Errorf("their content_id is %s, but the message says %q", ContentID(data), errs.Clean(string(id)))
}

func fromBase64(text []byte) (data []byte, ok bool) {
	data = make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	return data[:n], err == nil
}

// damagedBase64 returns why text, which does not decode, could only be base64; nil if
// it may be what the file holds: it begins like one, or has more characters that are not
// base64's than damage would explain, above all those that separate words and tags.
func damagedBase64(text []byte) error {
	if start := bytes.TrimSpace(text); len(start) > 0 && bytes.IndexByte([]byte("<{[#"), start[0]) >= 0 {
		return nil
	}
	first, strange, separators := -1, 0, 0
	for i, c := range text {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '+', c == '/', c == '=', c == '\r', c == '\n':
			continue
		case c == ' ', c == '\t', c == '<', c == '{', c == '#':
			strange++
			separators++
		case c != '-' && c != '_': // which base64 for URLs has
			strange++
		}
		if first < 0 {
			first = i
		}
	}
	switch {
	case strange > 1+len(text)/16, separators > min(1, len(text)/64):
		return nil
	case first >= 0:
		r, _ := utf8.DecodeRune(text[first:])
		return fmt.Errorf("damaged base64: %q after %d characters of %d", r, first, len(text))
	}
	return fmt.Errorf("damaged base64: characters are missing, or = is in a wrong place (there are %d)", len(text))
}

// unixTime decodes seconds since 1970. It does not go through a float, which has
// no room for all nanoseconds, unless there is an exponent.
func (ms members) unixTime(name string, failed *error) time.Time {
	value := ms.take(name, false, failed)
	if value == nil {
		return time.Time{}
	}
	if v := jsontext.Value(value); v.Kind() != '0' || !v.IsValid() {
		*failed = wrongMember(name, wrongKind("a number", value))
		return time.Time{}
	}
	text := string(value)
	if strings.ContainsAny(text, "eE") {
		seconds, _ := strconv.ParseFloat(text, 64) // out of range: infinite, or 0
		text = strconv.FormatFloat(seconds, 'f', 6, 64)
	}
	const year10000 = 253402300800 // which time cannot write as JSON
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || seconds >= year10000 {
		*failed = wrongMember(name, errors.New("is not a time since 1970"))
		return time.Time{}
	}
	nanos, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64) // digits only: it is valid JSON
	return time.Unix(int64(seconds), nanos)
}

// rest returns the members that have not been taken.
func (ms members) rest(failed *error) map[string]json.RawMessage {
	var rest map[string]json.RawMessage
	for _, m := range ms {
		if m.value == nil || *failed != nil {
			continue
		}
		if !jsontext.Value(m.value).IsValid() {
			*failed = wrongMember(string(m.name), errNotJSON)
			return nil
		}
		if rest == nil {
			rest = make(map[string]json.RawMessage)
		}
		rest[string(m.name)] = bytes.Clone(m.value)
	}
	return rest
}
