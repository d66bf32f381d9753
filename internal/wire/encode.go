// Package wire encodes and decodes the messages that travel over Kafka: uploads and pings.
// It holds no state, and starts no goroutine.
package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/segmentio/asm/base64"
)

// FileName returns the last element of a path with slashes, or "" if that names no file. It
// is the name in a message, as the Python client puts it there.
func FileName(slashes string) string {
	switch name := path.Base(slashes); name {
	case ".", "..", "/":
		return ""
	default:
		return name
	}
}

// ContentID returns the UUID made of the first 16 bytes of data's SHA-256.
func ContentID(data []byte) string { return string(appendContentID(nil, data)) }

// hasContentID reports whether id is data's, in small or capital letters.
func hasContentID(data, id []byte) bool {
	var room [36]byte
	return bytes.EqualFold(appendContentID(room[:0], data), id)
}

func appendContentID(dst, data []byte) []byte {
	sum := sha256.Sum256(data)
	for i, b := range [...][]byte{sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, b)
	}
	return dst
}

// Encode returns the value of the Kafka message that carries u: the peer's
// members in its order, then those that this package adds. u.Filename loses its
// directories, an empty u.ContentID is computed, a zero u.Time is now, and
// u.Extra, which only exists to be read, is left out.
func Encode(u Upload) []byte { return new(Draft).Complete(u) }

// A Draft is a message's value that has its payload, and room for what comes before and
// after that: both are known only once a graceid is reserved.
type Draft struct {
	value          []byte
	payload, after int // where they begin
}

func emptyDraft(data []byte, head, tail int) Draft {
	d := Draft{payload: head, after: head + base64.StdEncoding.EncodedLen(len(data))}
	d.value = make([]byte, d.after+tail)
	base64.StdEncoding.Encode(d.value[d.payload:d.after], data)
	return d
}

// takes reports whether there is room for head and tail.
func (d *Draft) takes(head, tail []byte) bool {
	return len(head) <= d.payload && len(tail) <= len(d.value)-d.after
}

// with returns the value with head and tail, which it takes.
func (d *Draft) with(head, tail []byte) []byte {
	first := d.payload - len(head)
	copy(d.value[first:], head)
	end := d.after + copy(d.value[d.after:], tail)
	return d.value[first:end]
}

// NewDraft begins the value of u, whose graceid, submitter and time will be others.
func NewDraft(u Upload) Draft {
	const spare = 256 // a graceid and a submitter, commonly
	var scratch [1024]byte
	head, tail := appendUpload(scratch[:0], u)
	return emptyDraft(u.Data, len(head)+spare, len(tail))
}

// Complete returns Encode's result, made of d if u fits into it.
func (d *Draft) Complete(u Upload) []byte {
	var scratch [1024]byte
	head, tail := appendUpload(scratch[:0], u)
	if !d.takes(head, tail) {
		*d = emptyDraft(u.Data, len(head), len(tail))
	}
	return d.with(head, tail)
}

// Size returns the exact length of Encode's result.
func Size(u Upload) int {
	var scratch [1024]byte
	if u.ContentID == "" {
		u.ContentID = "00000000-0000-0000-0000-000000000000" // as long, without the hashing
	}
	head, tail := appendUpload(scratch[:0], u)
	return len(head) + base64.StdEncoding.EncodedLen(len(u.Data)) + len(tail)
}

// Ping returns the value of a ping message; sub and scope are claims of the
// token, or empty.
func Ping(now time.Time, sub, scope string) []byte {
	dst := make([]byte, 0, 128+len(sub)+len(scope))
	dst = append(dst, `{"type":"ping","timestamp":`...)
	dst = appendUnixTime(dst, now)
	dst = append(dst, `,"client":"gracedb-go","sub":`...)
	dst = appendJSONStringOrNull(dst, sub)
	dst = append(dst, `,"scope":`...)
	dst = appendJSONStringOrNull(dst, scope)
	return append(dst, '}')
}

// appendJSONString appends s as a JSON string: UTF-8 as it is, invalid bytes replaced.
func appendJSONString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error only says that bytes were replaced
	return dst
}

func appendJSONStringOrNull(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return appendJSONString(dst, s)
}

func appendLabels(dst []byte, labels []string) []byte {
	if len(labels) == 0 {
		return append(dst, "null"...)
	}
	for i, label := range labels {
		dst = append(dst, "[,"[min(i, 1)])
		dst = appendJSONString(dst, label)
	}
	return append(dst, ']')
}

// appendUnixTime appends t as seconds since 1970 with six decimals, or now if t is
// zero.
func appendUnixTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		t = time.Now()
	}
	micros := max(t.UnixMicro(), 0)
	dst = strconv.AppendInt(dst, micros/1e6, 10)
	dst = append(dst, '.')
	for digit := int64(1e5); digit > 0; digit /= 10 {
		dst = append(dst, byte('0'+micros/digit%10))
	}
	return dst
}
