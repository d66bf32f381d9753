package gracetest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// An Event is what the server knows of a graceid.
type Event struct {
	GraceID, Submitter      string
	Group, Pipeline, Search string
	ReplayID, ContentID     string
	Reserved                bool // made by a reservation
	Created                 time.Time

	// What came with the event's data, once it was uploaded.
	Uploaded                bool
	Uploader                string // who uploaded it: the supervisor, for one
	Offline                 bool
	Labels                  []string // that were set
	Filename                string
	ContentType             string
	Data                    []byte
	KafkaServer, KafkaTopic string
	Conflicts               int // later uploads, which were refused
}

// A record is an Event with what belongs to it. It is guarded by Server.mu.
type record struct {
	Event

	reading reading
	log     []entry
	files   map[string][][]byte // versions by name
}

// An entry is one of an event's log. A file has a version.
type entry struct {
	comment, issuer string
	created         time.Time
	tags            []string
	filename        string
	version         int
}

// Events returns the events that have their data, in the order of their graceids.
func (s *Server) Events() []Event { return s.eventsIf(func(e *record) bool { return e.Uploaded }) }

// Reservations returns what was reserved, with its data or not.
func (s *Server) Reservations() []Event {
	return s.eventsIf(func(e *record) bool { return e.Reserved })
}

func (s *Server) eventsIf(keep func(*record) bool) (events []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if keep(e) {
			copied := e.Event
			copied.Labels = slices.Clone(e.Labels)
			events = append(events, copied)
		}
	}
	return events
}

// find returns the event of a graceid: with its own letter, or with G, which fits
// all. The caller holds s.mu.
func (s *Server) find(id string) *record {
	for _, e := range s.events {
		if e.GraceID == id || id[0] == 'G' && e.GraceID[1:] == id[1:] {
			return e
		}
	}
	return nil
}

var replayID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,30}$`)

// What a reservation is answered is in no public text: this is what the Python
// client expects.
func (s *Server) reserve(c *call) reply {
	req := c.req
	if a, ok := s.checkPipeline(req); !ok {
		return a
	}
	if a, ok := s.checkForm(req, false); !ok {
		return a
	}
	if id := req.Value("replay_id"); id != "" && !replayID.MatchString(id) {
		return jsonReply(http.StatusBadRequest, "replay_id: at most 30 of A-Z a-z 0-9 _ -")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.newEvent(c.subject, req)
	e.Reserved = true
	a := jsonReply(http.StatusCreated, map[string]any{
		"graceid": e.GraceID, "submitter": e.Submitter, "group": e.Group, "pipeline": e.Pipeline, "search": orNull(e.Search),
	})
	a.header.Set("Location", c.base+"events/"+e.GraceID)
	return a
}

// newEvent makes an event with the next graceid. The caller holds s.mu.
func (s *Server) newEvent(subject string, req Request) *record {
	s.lastID++
	e := &record{files: make(map[string][][]byte), Event: Event{
		Submitter: subject, Created: time.Now(),
		Group: req.Value("group"), Pipeline: req.Value("pipeline"), Search: req.Value("search"),
		ReplayID: req.Value("replay_id"), ContentID: req.Value("content_id"),
	}}
	letter := "G"
	switch {
	case e.Group == "Test":
		letter = "T"
	case e.Search == "MDC":
		letter = "M"
	case e.Pipeline == "HardwareInjection":
		letter = "H"
	case e.Group == "External":
		letter = "E"
	}
	e.GraceID = fmt.Sprintf("%s%04d", letter, s.lastID)
	s.events = append(s.events, e)
	return e
}

func (s *Server) upload(c *call, id string) reply {
	req := c.req
	if req.ContentType != "multipart/form-data" {
		return unsupported(req)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(id)
	switch {
	case e == nil:
		return text(http.StatusNotFound, "Event not found.")
	case c.subject != e.Submitter && c.subject != supervisor:
		return text(http.StatusForbidden, "You did not reserve this graceid. You ("+c.subject+") Them ("+e.Submitter+")")
	case req.Value("graceid") != id:
		return jsonReply(http.StatusBadRequest, map[string]string{"error": "graceid differs from the one in the URL."})
	case e.Uploaded:
		e.Conflicts++
		return jsonReply(s.cfg.Conflict, map[string]string{"error": "Event data has already been uploaded for " + id + "."})
	}
	if a, ok := s.checkForm(req, true); !ok {
		return a
	}
	if a, ok := checkFilename(req); !ok {
		return a
	}
	return s.complete(c, e)
}

func (s *Server) create(c *call) reply {
	req := c.req
	if req.ContentType != "multipart/form-data" {
		return unsupported(req)
	}
	if len(req.Values("pipeline")) == 0 {
		return page(http.StatusInternalServerError, "Server Error (500)")
	}
	if a, ok := s.checkPipeline(req); !ok {
		return a
	}
	if a, ok := s.checkForm(req, true); !ok {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := checkFilename(req); !ok {
		s.lastID++ // of an event that was made and undone
		return a
	}
	return s.complete(c, s.newEvent(c.subject, req))
}

// checkFilename is about what a versioned file cannot be called.
func checkFilename(req Request) (reply, bool) {
	f, _ := req.File()
	var what string
	switch {
	case strings.Contains(f.Filename, ","):
		what = "versioned file name cannot contain a ','"
	case len(f.Filename)+len(",0") > 255:
		what = "[Errno 36] File name too long: '" + f.Filename + ",0'"
	default:
		return reply{}, true
	}
	return jsonReply(http.StatusBadRequest, map[string][]string{"warnings": {"Problem creating event (" + what + ")"}}), false
}

// longestName is the longest name of a file, in characters, that an event's log takes.
const longestName = 100

// complete gives an event its data. An event that cannot be read, or whose labels
// cannot all be set, is an event all the same, of which nobody is told by an alert.
// The caller holds s.mu.
func (s *Server) complete(c *call, e *record) reply {
	req := c.req
	f, _ := req.File()
	e.Uploaded, e.Uploader = true, c.subject
	e.Filename, e.Data, e.ContentType = f.Filename, f.Data, f.Header.Get("Content-Type")
	e.files[f.Filename] = append(e.files[f.Filename], f.Data)
	switch req.Value("offline") {
	case "", "False", "false":
	default:
		e.Offline = true // even "0"
	}
	e.KafkaServer, e.KafkaTopic = req.Value("kafka_server"), req.Value("kafka_topic")

	warnings := []string{}
	if err := e.scan(); err != nil {
		warnings = append(warnings, noAlert(err))
	} else {
		warnings = append(warnings, e.reading.Warnings...)
		if s.cfg.AlertsDown {
			warnings = append(warnings, "Problem issuing an alert ([Errno 111] Connection refused)")
		}
		for _, label := range s.cfg.Labels { // in the order of the server's table
			if !slices.Contains(req.Values("labels"), label) {
				continue
			}
			if err := s.setLabel(e, label, c.subject); err != nil {
				warnings = append(warnings, noAlert(err))
				break
			}
		}
	}
	if s.cfg.Warnings != nil {
		warnings = append(warnings, s.cfg.Warnings(e.Event)...)
	}
	doc := s.document(c.base, e)
	delete(doc, "superevent_neighbours")
	doc["warnings"] = warnings
	a := jsonReply(http.StatusCreated, doc)
	a.header.Set("Location", c.base+"events/"+e.GraceID)
	return a
}

func noAlert(err error) string { return "Problem scanning data. No alert issued (" + err.Error() + ")" }

// scan logs the file and reads it. (The files that the server makes of it, coinc.xml
// and event.log, are not made here.)
func (e *record) scan() error {
	if n := utf8.RuneCountInString(e.Filename); n > longestName {
		return fmt.Errorf("{'filename': ['Ensure this value has at most %d characters (it has %d).']}", longestName, n)
	}
	e.addLog(entry{comment: "Original Data", issuer: e.Submitter, filename: e.Filename})
	return e.readAgain()
}

func (e *record) readAgain() (err error) {
	e.reading, err = read(e.Pipeline, e.Filename, e.Data)
	return err
}

func (e *record) addLog(l entry) {
	l.created = time.Now()
	e.log = append(e.log, l)
}
