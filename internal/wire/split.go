package wire

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// Nearly all of an upload message is its event file. A JSON decoder would look at
// each byte of it before base64 does; so here the message is only split into its
// members, which skips over strings, and each member is checked by what decodes it.

const (
	// maxDepth is how deeply the JSON of a message may be nested. GraceDB's
	// messages need two levels.
	maxDepth = 64
	// maxMembers is how many members or elements one object or array of an upload
	// may have: they take far more memory than JSON.
	maxMembers = 256
)

var (
	errNotJSON = errors.New("not valid JSON")
	errTooDeep = fmt.Errorf("JSON nested more than %d levels deep", maxDepth)
)

// CheckDepth returns why JSON is nested too deeply to be decoded; nil also for what is no
// JSON.
func CheckDepth(value []byte) error {
	if _, err := valueEnd(value, skipSpace(value, 0), maxDepth); errors.Is(err, errTooDeep) {
		return err
	}
	return nil
}

// A member is one of a JSON object, or, without a name, one element of an array.
type member struct{ name, value []byte }

type members []member

// splitObject is splitJSON for a value that must be an object.
func splitObject(dst members, value []byte) (members, error) {
	i := skipSpace(value, 0)
	switch {
	case i == len(value):
		return nil, errors.New("no value")
	case value[i] != '{':
		return nil, wrongKind("an object", value)
	}
	return splitJSON(dst, value[i:])
}

// splitJSON appends to dst the members of the object, or the elements of the array,
// that value begins with. After it there may only be space.
func splitJSON(dst members, value []byte) (members, error) {
	at := func(i int) byte {
		if i < len(value) {
			return value[i]
		}
		return 0
	}
	end := value[0] + 2 // as luck and ASCII have it
	i := skipSpace(value, 1)
	if at(i) == end {
		return dst, onlySpace(value, i+1)
	}
	for {
		var m member
		if value[0] == '{' {
			if at(i) != '"' {
				return nil, errNotJSON
			}
			j, err := valueEnd(value, i, maxDepth)
			if err != nil {
				return nil, err
			}
			if m.name, err = unquoteJSON(value[i:j]); err != nil {
				return nil, err
			}
			if i = skipSpace(value, j); at(i) != ':' {
				return nil, errNotJSON
			}
			i = skipSpace(value, i+1)
		}
		j, err := valueEnd(value, i, maxDepth-1)
		if err != nil {
			return nil, err
		}
		m.value = value[i:j]
		if dst, err = appendMember(dst, m); err != nil {
			return nil, err
		}
		switch i = skipSpace(value, j); at(i) {
		case ',':
			i = skipSpace(value, i+1)
		case end:
			return dst, onlySpace(value, i+1)
		default:
			return nil, errNotJSON
		}
	}
}

// appendMember appends m unless there are too many, or one of its name.
func appendMember(dst members, m member) (members, error) {
	if len(dst) == maxMembers {
		return nil, fmt.Errorf("has more than %d members or elements", maxMembers)
	}
	if m.name != nil {
		for _, other := range dst {
			if bytes.Equal(other.name, m.name) {
				return nil, fmt.Errorf("member %q is there twice", errs.Clean(string(m.name)))
			}
		}
	}
	return append(dst, m), nil
}

// valueEnd returns where the JSON value that starts at i ends, without checking
// what is in it.
func valueEnd(text []byte, i, depth int) (int, error) {
	switch {
	case i == len(text):
		return 0, errNotJSON
	case text[i] == '"':
		return stringEnd(text, i)
	case text[i] == '{' || text[i] == '[':
		return nestedEnd(text, i, depth)
	}
	n := bytes.IndexAny(text[i:], ",]} \t\r\n")
	switch n {
	case -1:
		return len(text), nil
	case 0:
		return 0, errNotJSON
	}
	return i + n, nil
}

func nestedEnd(text []byte, i, depth int) (int, error) {
	for open := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end, err := stringEnd(text, i)
			if err != nil {
				return 0, err
			}
			i = end - 1
		case '{', '[':
			if open++; open > depth {
				return 0, errTooDeep
			}
		case '}', ']':
			if open--; open == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, errNotJSON
}

func stringEnd(text []byte, i int) (int, error) {
	for end := i + 1; ; end++ {
		n := bytes.IndexByte(text[end:], '"')
		if n < 0 {
			return 0, errNotJSON
		}
		end += n
		escape := end
		for text[escape-1] == '\\' {
			escape--
		}
		if (end-escape)%2 == 0 {
			return end + 1, nil
		}
	}
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

func onlySpace(text []byte, i int) error {
	if skipSpace(text, i) < len(text) {
		return fmt.Errorf("%w: there is more after the first value", errNotJSON)
	}
	return nil
}

// unquoteJSON returns the text of a JSON string. It may share memory with value.
func unquoteJSON(value []byte) ([]byte, error) {
	if value[0] != '"' {
		return nil, wrongKind("a string", value)
	}
	plain := value[1 : len(value)-1]
	for _, c := range plain {
		if c < ' ' || c == '\\' || c >= utf8.RuneSelf {
			text, err := jsontext.AppendUnquote(nil, value)
			if err != nil {
				return nil, errNotJSON
			}
			return text, nil
		}
	}
	return plain, nil
}

// wrongKind returns the error for a value that is not what it should be.
func wrongKind(what string, value []byte) error {
	kinds := map[jsontext.Kind]string{
		'n': "null", 't': "a boolean", 'f': "a boolean", '"': "a string",
		'0': "a number", '{': "an object", '[': "an array",
	}
	if v := jsontext.Value(value); v.IsValid() {
		return fmt.Errorf("is %s, not %s", kinds[v.Kind()], what)
	}
	return errNotJSON
}
