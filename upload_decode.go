package gracedb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/segmentio/asm/base64"
)

// decodeUpload decodes the value of a message.
func decodeUpload(value []byte) (Upload, error) {
	var room [24]member
	ms, err := splitObject(room[:0], value)

	// Older producers say "new".
	kind := ms.unquoted("type", true, &err)
	if err == nil && string(kind) != "upload" && string(kind) != "new" {
		return Upload{}, fmt.Errorf("%w: its type is %q", ErrNotUpload, cleanText(string(kind)))
	}
	u := Upload{
		Server:         ms.text("gracedb_server", true, &err),
		GraceID:        ms.text("graceid", false, &err),
		Submitter:      ms.text("submitter", false, &err),
		Pipeline:       ms.text("pipeline", true, &err),
		PublishOnly:    !ms.bool("gracedb_upload", true, &err),
		SkipSupervisor: ms.bool("skip_supervisor", false, &err),
		Labels:         ms.texts("labels", &err),
		Time:           ms.unixTime("_producer_timestamp", &err),
		ContentID:      ms.text("content_id", false, &err),
		Group:          ms.text("group", false, &err),
		Search:         ms.text("search", false, &err),
		Offline:        ms.bool("offline", false, &err),
		ReplayID:       ms.text("replay_id", false, &err),
	}
	u.Filename, u.Data = ms.file("eventFile", &err)
	u.Extra = ms.rest(&err)

	if errors.Is(err, errNotJSON) {
		err = explainSyntax(value, err)
	}
	if err != nil {
		return Upload{}, err
	}
	return u, nil
}

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
	return fmt.Errorf("member %q %w", cleanText(name), err)
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

// file decodes [name, contents] or {"filename": name, "payload": contents}.
func (ms members) file(name string, failed *error) (filename string, data []byte) {
	value := ms.take(name, true, failed)
	if value == nil {
		return "", nil
	}
	filename, data, err := decodeFile(value)
	if err != nil {
		*failed = wrongMember(name, err)
	}
	return filename, data
}

func decodeFile(value []byte) (filename string, data []byte, err error) {
	if value[0] != '[' && value[0] != '{' {
		return "", nil, wrongKind("an array or object", value)
	}
	var room [4]member
	parts, err := splitJSON(room[:0], value)
	var first, second []byte
	if value[0] == '{' {
		first = parts.take("filename", true, &err)
		second = parts.take("payload", true, &err)
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
	if data, err = decodePayload(second); err != nil {
		return "", nil, fmt.Errorf("has contents that are wrong: %w", err)
	}
	return string(text), data, nil
}

// decodePayload returns the contents of an event file: base64, or else the text
// itself.
func decodePayload(value []byte) ([]byte, error) {
	// What decodes has no escapes and is all ASCII, but base64 may have newlines,
	// and a JSON string may not.
	if value[0] == '"' && bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		if data, ok := fromBase64(value[1 : len(value)-1]); ok {
			return data, nil
		}
	}
	text, err := unquoteJSON(value)
	if err != nil {
		return nil, err
	}
	if data, ok := fromBase64(text); ok {
		return data, nil
	}
	return bytes.Clone(text), nil
}

func fromBase64(text []byte) (data []byte, ok bool) {
	data = make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	return data[:n], err == nil
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
