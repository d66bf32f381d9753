package gracedbapi

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/url"
	"path"
	"strings"
)

// A payload is a request body that can be sent any number of times. It holds the
// event's data by reference: a file of megabytes is never copied.
type payload struct {
	contentType string
	pieces      [][]byte
}

func (p *payload) size() (n int64) {
	for _, b := range p.pieces {
		n += int64(len(b))
	}
	return n
}

func (p *payload) open() (io.ReadCloser, error) {
	if len(p.pieces) == 1 {
		// net/http sends what it knows to be in memory together with the head of the
		// request, else in a write of its own.
		return io.NopCloser(bytes.NewReader(p.pieces[0])), nil
	}
	readers := make([]io.Reader, len(p.pieces))
	for i, b := range p.pieces {
		readers[i] = bytes.NewReader(b)
	}
	return io.NopCloser(io.MultiReader(readers...)), nil
}

// A field is one name and value of a form; the order of fields is kept, as the
// Python client sends them in one.
type field struct{ name, value string }

// appendField adds a field unless its value is empty.
func appendField(fields []field, name, value string) []field {
	if value == "" {
		return fields
	}
	return append(fields, field{name, value})
}

// formPayload encodes fields as application/x-www-form-urlencoded.
func formPayload(fields []field) *payload {
	var b bytes.Buffer
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(f.name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(f.value))
	}
	return &payload{"application/x-www-form-urlencoded", [][]byte{b.Bytes()}}
}

// multipartPayload encodes fields and then, as the part eventFile, a file as
// multipart/form-data. It is not made by mime/multipart because that escapes a
// file name differently and wants to copy the file.
func multipartPayload(fields []field, filename string, data []byte) *payload {
	boundary := rand.Text() // 130 random bits: in no file by chance
	var head bytes.Buffer
	for _, f := range fields {
		head.WriteString("--" + boundary + "\r\n" +
			`Content-Disposition: form-data; name="` + escapeQuoted(f.name) + "\"\r\n\r\n" +
			f.value + "\r\n")
	}
	head.WriteString("--" + boundary + "\r\n" +
		`Content-Disposition: form-data; name="eventFile"; filename="` + escapeQuoted(filename) + "\"\r\n" +
		"Content-Type: " + contentTypeOf(filename) + "\r\n\r\n")
	tail := "\r\n--" + boundary + "--\r\n"
	return &payload{
		"multipart/form-data; boundary=" + boundary,
		[][]byte{head.Bytes(), data, []byte(tail)},
	}
}

// escapeQuoted escapes a name inside the quotes of a Content-Disposition as
// browsers and the Python client do (WHATWG HTML, multipart/form-data encoding).
var escapeQuoted = strings.NewReplacer(`"`, "%22", "\n", "%0A", "\r", "%0D").Replace

// contentTypeOf guesses the type of an event file from its name. The Python client
// asks its host's MIME tables, so that the same name has different types on
// different machines; this fixed table is what it says of the files that
// pipelines upload where /etc/mime.types exists. Compression is looked through,
// as there.
func contentTypeOf(filename string) string {
	ext := strings.ToLower(path.Ext(filename))
	switch ext {
	case ".gz", ".bz2", ".xz", ".z":
		ext = strings.ToLower(path.Ext(filename[:len(filename)-len(ext)]))
	}
	switch ext {
	case ".xml":
		return "application/xml"
	case ".json":
		return "application/json"
	case ".txt":
		return "text/plain"
	}
	return "application/octet-stream"
}
