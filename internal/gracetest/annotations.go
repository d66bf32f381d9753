package gracetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// annotation returns what serves the path below an event's: its labels, log and
// files. An event that is only reserved has them as well.
func annotation(below string) (methods []string, serve func(*Server, *call, *record) reply) {
	kind, name, _ := strings.Cut(below, "/")
	switch {
	case kind == "labels" && name == "":
		return getOnly, (*Server).labels
	case kind == "labels":
		return strings.Fields("GET PUT DELETE HEAD OPTIONS"), func(s *Server, c *call, e *record) reply {
			return s.label(c, e, strings.TrimSuffix(name, "/"))
		}
	case below == "log/":
		return getPost, (*Server).log
	case kind == "log":
		return getOnly, func(_ *Server, c *call, e *record) reply {
			n, err := strconv.Atoi(strings.TrimSuffix(name, "/"))
			if err != nil || n < 1 || n > len(e.log) {
				return jsonReply(http.StatusNotFound, "Log does not exist.")
			}
			return jsonReply(http.StatusOK, e.logDocument(c.base, n))
		}
	case below == "files/":
		return getPut, (*Server).files
	case kind == "files":
		return getPut, func(s *Server, c *call, e *record) reply { return s.file(c, e, name) }
	case below == "neighbors/":
		return getOnly, nothing("neighbors")
	case below == "emobservation/":
		return getOnly, nothing("observations")
	case below == "tag/":
		return getOnly, nothing("tags")
	}
	return nil, nil
}

// nothing serves lists of which this server has none.
func nothing(of string) func(*Server, *call, *record) reply {
	return func(_ *Server, c *call, e *record) reply {
		return jsonReply(http.StatusOK, map[string]any{
			"numRows": 0, of: []any{}, "links": map[string]string{"event": c.base + "events/" + e.GraceID},
		})
	}
}

// setLabel sets a label that there is and that is not the server's own to set.
func (s *Server) setLabel(e *record, label, by string) error {
	switch {
	case !slices.Contains(s.cfg.Labels, label):
		return fmt.Errorf("No such Label '%s'", label) //nolint:staticcheck // the server's words
	case slices.Contains(s.cfg.Protected, label):
		return fmt.Errorf("The '%s' label is managed as part of an automated process and cannot be applied manually", label) //nolint:staticcheck // the server's words
	}
	e.Labels = append(e.Labels, label)
	e.addLog(entry{comment: "Label: " + label, issuer: by})
	return nil
}

func (s *Server) labels(c *call, e *record) reply {
	list := []map[string]string{}
	for _, label := range e.Labels {
		list = append(list, labelDocument(c, e, label))
	}
	event := c.base + "events/" + e.GraceID
	return jsonReply(http.StatusOK, map[string]any{
		"links": []map[string]string{{"self": event + "/labels/", "event": event}}, "labels": list,
	})
}

func labelDocument(c *call, e *record, label string) map[string]string {
	return map[string]string{"name": label, "creator": e.Submitter, "self": c.base + "events/" + e.GraceID + "/labels/" + label}
}

// label serves one label. The answer to PUT is JSON in a string, as the server has it.
func (s *Server) label(c *call, e *record, label string) reply {
	at := slices.Index(e.Labels, label)
	switch {
	case c.Method == http.MethodPut && at >= 0:
		said := jsonReply(http.StatusOK, map[string]string{"warning": "Event " + e.GraceID + " already labeled with '" + label + "'"})
		return jsonReply(http.StatusOK, string(said.body))
	case c.Method == http.MethodPut:
		if err := s.setLabel(e, label, c.subject); err != nil {
			return jsonReply(http.StatusBadRequest, err.Error())
		}
		return jsonReply(http.StatusCreated, "{}")
	case c.Method == http.MethodDelete && !slices.Contains(s.cfg.Labels, label):
		return jsonReply(http.StatusBadRequest, "No such Label '"+label+"'")
	case c.Method == http.MethodDelete && slices.Contains(s.cfg.Protected, label):
		return jsonReply(http.StatusBadRequest, "The '"+label+"' label is managed as part of an automated process and cannot be removed manually")
	case c.Method == http.MethodDelete && at < 0:
		return jsonReply(http.StatusNotFound, "No label '"+label+"' associated with event "+e.GraceID)
	case c.Method == http.MethodDelete:
		e.Labels = slices.Delete(e.Labels, at, at+1)
		e.addLog(entry{comment: "Deleted label: " + label, issuer: c.subject})
		return reply{http.StatusNoContent, http.Header{}, nil}
	case at < 0:
		return jsonReply(http.StatusNotFound, "Label "+label+" Not Found")
	}
	return jsonReply(http.StatusOK, labelDocument(c, e, label))
}

// log serves an event's log. An entry stays, and is answered as an error, when its
// label cannot be set.
func (s *Server) log(c *call, e *record) reply {
	if c.Method != http.MethodPost {
		list := []map[string]any{}
		for i := range e.log {
			list = append(list, e.logDocument(c.base, i+1))
		}
		self := c.base + "events/" + e.GraceID + "/log/"
		return jsonReply(http.StatusOK, map[string]any{
			"start": 0, "numRows": len(list), "log": list, "links": map[string]string{"self": self, "first": self, "last": self},
		})
	}
	l, label, err := readEntry(c.req)
	if err != nil {
		return jsonReply(http.StatusBadRequest, map[string]string{"detail": "JSON parse error - " + err.Error()})
	}
	l.issuer = c.subject
	if f, ok := c.req.file("upload"); ok {
		if strings.Contains(f.Filename, ",") {
			return jsonReply(http.StatusBadRequest, "versioned file name cannot contain a ','")
		}
		e.files[f.Filename] = append(e.files[f.Filename], f.Data)
		l.filename, l.version = f.Filename, len(e.files[f.Filename])-1
	}
	e.addLog(l)
	doc := e.logDocument(c.base, len(e.log))
	if label != "" && !slices.Contains(e.Labels, label) {
		if err := s.setLabel(e, label, c.subject); err != nil {
			return jsonReply(http.StatusBadRequest, err.Error())
		}
	}
	a := jsonReply(http.StatusCreated, doc)
	a.header.Set("Location", doc["self"].(string))
	return a
}

// readEntry reads a log entry: a form, or JSON.
func readEntry(req Request) (l entry, label string, err error) {
	if req.ContentType != "application/json" {
		return entry{comment: req.Value("comment"), tags: req.Values("tagname")}, req.Value("label"), nil
	}
	var doc struct {
		Comment, Label string
		Tagname        json.RawMessage // one, or a list
	}
	if err := json.Unmarshal(req.Body, &doc); err != nil {
		return l, "", err
	}
	l.comment = doc.Comment
	var one string
	if json.Unmarshal(doc.Tagname, &one) == nil && one != "" {
		l.tags = []string{one}
	} else if doc.Tagname != nil {
		err = json.Unmarshal(doc.Tagname, &l.tags)
	}
	return l, doc.Label, err
}

// logDocument is the n-th entry, counted from one.
func (e *record) logDocument(base string, n int) map[string]any {
	l, event := e.log[n-1], base+"events/"+e.GraceID
	self := event + "/log/" + strconv.Itoa(n)
	tags := l.tags
	if tags == nil {
		tags = []string{}
	}
	doc := map[string]any{
		"N": n, "comment": l.comment, "created": l.created.UTC().Format("2006-01-02 15:04:05 UTC"), "issuer": l.issuer,
		"filename": l.filename, "file_version": nil, "file": nil, "tag_names": tags, "self": self, "tags": self + "/tag/",
	}
	if l.filename != "" {
		doc["file_version"], doc["file"] = l.version, fileURL(event, fmt.Sprintf("%s,%d", l.filename, l.version))
	}
	return doc
}

func fileURL(event, name string) string { return event + "/files/" + url.PathEscape(name) }

// files serves the list of an event's files, each under its name, which is the newest
// version, and with each version.
func (s *Server) files(c *call, e *record) reply {
	if c.Method == http.MethodPut {
		return jsonReply(http.StatusBadRequest, "versioned file name cannot be empty")
	}
	event, links := c.base+"events/"+e.GraceID, map[string]string{}
	for name, versions := range maps.All(e.files) {
		links[name] = fileURL(event, name)
		for i := range versions {
			versioned := fmt.Sprintf("%s,%d", name, i)
			links[versioned] = fileURL(event, versioned)
		}
	}
	return jsonReply(http.StatusOK, links)
}

// file serves one file, or stores a new version of it.
func (s *Server) file(c *call, e *record, name string) reply {
	if c.Method == http.MethodPut {
		f, ok := c.req.file("upload")
		switch {
		case !ok:
			return jsonReply(http.StatusBadRequest, "'upload'")
		case strings.Contains(name, ","):
			return jsonReply(http.StatusBadRequest, "versioned file name cannot contain a ','")
		}
		e.files[name] = append(e.files[name], f.Data)
		e.addLog(entry{issuer: c.subject, filename: name, version: len(e.files[name]) - 1})
		return jsonReply(http.StatusCreated, map[string]string{"permalink": fileURL(c.base+"events/"+e.GraceID, name)})
	}
	data, err := e.version(name)
	if err != nil {
		return text(http.StatusNotFound, "File not found")
	}
	kind := mime.TypeByExtension(filepath.Ext(strings.Split(name, ",")[0]))
	if kind == "" {
		kind = "application/octet-stream"
	}
	return reply{http.StatusOK, http.Header{"Content-Type": {kind}}, data}
}

var errNoVersion = errors.New("gracetest: no such file")

func (e *record) version(name string) ([]byte, error) {
	base, number, versioned := strings.Cut(name, ",")
	versions := e.files[base]
	n, err := len(versions)-1, error(nil)
	if versioned {
		n, err = strconv.Atoi(number)
	}
	if err != nil || n < 0 || n >= len(versions) {
		return nil, errNoVersion
	}
	return versions[n], nil
}
