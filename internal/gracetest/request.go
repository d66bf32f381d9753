package gracetest

import (
	"bytes"
	"errors"
	"html"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// maxBody is what the server reads of a request.
const maxBody = 64 << 20

// A Request is one that arrived, whatever became of it.
type Request struct {
	Method, Path string
	Header       http.Header // with the token replaced by "Bearer <token>"
	ContentType  string      // without parameters
	Fields       []Field     // of a form, in order
	Body         []byte      // as it was, unless it is a form with a file
	Status       int         // answered; 0 if the connection was cut
	Fault        bool        // a Fault answered it, or changed the answer
}

// Values returns the values of all fields with that name.
func (r Request) Values(name string) (values []string) {
	for _, f := range r.Fields {
		if f.Name == name && f.Header["Content-Type"] == nil {
			values = append(values, string(f.Data))
		}
	}
	return values
}

// Value returns the last of Values, which is the one that counts, or "".
func (r Request) Value(name string) string {
	if v := r.Values(name); len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// File returns the part eventFile that is a file, the last if there are several, and
// its name as the server would store it. The Python client of old sent other parts
// of that name too.
func (r Request) File() (f Field, ok bool) { return r.file("eventFile") }

func (r Request) file(name string) (f Field, ok bool) {
	for _, f := range slices.Backward(r.Fields) {
		if f.Name == name && f.Filename != "" {
			return f, true
		}
	}
	return Field{}, false
}

// A Field is one field of a form.
type Field struct {
	Name     string
	Filename string               // its base name; empty unless it is a file
	Header   textproto.MIMEHeader // of its part; nil in a urlencoded form
	Data     []byte
}

// readRequest reads what there is to record of a request. Its error says that the
// body did not arrive or is not what it claims to be.
func readRequest(r *http.Request) (Request, error) {
	req := Request{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone()}
	if req.Header.Get("Authorization") != "" {
		req.Header.Set("Authorization", "Bearer <token>")
	}
	var params map[string]string
	req.ContentType, params, _ = mime.ParseMediaType(r.Header.Get("Content-Type"))
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	req.Body = body
	if err != nil {
		return req, err
	}
	switch req.ContentType {
	case "application/x-www-form-urlencoded":
		for pair := range strings.SplitSeq(string(body), "&") {
			name, value, _ := strings.Cut(pair, "=")
			name, err1 := url.QueryUnescape(name)
			value, err2 := url.QueryUnescape(value)
			if err := errors.Join(err1, err2); err != nil {
				return req, err
			}
			req.Fields = append(req.Fields, Field{Name: name, Data: []byte(value)})
		}
	case "multipart/form-data":
		req.Body = nil
		if params["boundary"] == "" {
			return req, errors.New("Invalid boundary in multipart: None") //nolint:staticcheck // Django's words
		}
		req.Fields, err = readParts(body, params["boundary"])
	}
	if slices.Contains(r.TransferEncoding, "chunked") {
		req.Fields = nil // Django reads a body of no length as one of none
	}
	return req, err
}

// readParts reads the parts that are whole: one that is cut is as if it were not
// there.
func readParts(body []byte, boundary string) (fields []Field, err error) {
	reader := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fields, nil
		}
		if err != nil {
			return fields, err
		}
		data, err := io.ReadAll(part)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fields, nil
		}
		if err != nil {
			return fields, err
		}
		f := Field{Name: part.FormName(), Header: maps.Clone(part.Header), Data: data}
		if _, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition")); err == nil {
			f.Filename = storedName(params["filename"])
		}
		fields = append(fields, f)
	}
}

// storedName is what Django keeps of a file's name; nothing, if that is no name.
func storedName(name string) string {
	name = html.UnescapeString(name)
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, name)
	if name == "." || name == ".." {
		return ""
	}
	return name
}

// Requests returns what arrived so far, in the order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// KindOf returns what Fault.On calls a request.
func KindOf(r Request) string { return kindOf(r.Method, r.Path) }

// Count returns how many requests arrived of a kind: see Fault.On.
func (s *Server) Count(kind string) (n int) {
	for _, r := range s.Requests() {
		if KindOf(r) == kind {
			n++
		}
	}
	return n
}
