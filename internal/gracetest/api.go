package gracetest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
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
	Labels                  []string
	Filename                string
	ContentType             string
	Data                    []byte
	KafkaServer, KafkaTopic string
	Conflicts               int // later uploads, which were refused
}

// Events returns the events that have their data, in the order of their graceids.
func (s *Server) Events() []Event { return s.eventsIf(func(e *Event) bool { return e.Uploaded }) }

// Reservations returns what was reserved, with its data or not.
func (s *Server) Reservations() []Event { return s.eventsIf(func(e *Event) bool { return e.Reserved }) }

func (s *Server) eventsIf(keep func(*Event) bool) (events []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if keep(e) {
			events = append(events, *e)
		}
	}
	return events
}

// answer serves a request as GraceDB does, checks in its order.
func (s *Server) answer(r *http.Request, req Request, bodyErr error) reply {
	path, ok := strings.CutPrefix(req.Path, "/api/")
	if !ok {
		return page(http.StatusNotFound, "Not Found")
	}
	if refused, ok := checkUserAgent(r); !ok {
		return refused
	}
	version := ""
	for _, v := range []string{"v1/", "v2/"} {
		if rest, ok := strings.CutPrefix(path, v); ok {
			version, path = v, rest
			break
		}
	}
	base := s.baseOf(r) + version
	if path == "" && r.Method == http.MethodGet {
		return jsonReply(http.StatusOK, s.rootDocument(base))
	}
	if path == "events" {
		return reply{http.StatusMovedPermanently, http.Header{"Location": {base + "events/"}}, nil}
	}
	if path != "user-info/" && !strings.HasPrefix(path, "events/") {
		return page(http.StatusNotFound, "Not Found")
	}
	subject, refused, ok := s.authenticate(r)
	if !ok {
		return refused
	}
	if r.Method == http.MethodPost {
		if wait := s.throttle(subject); wait > 0 {
			seconds := int(math.Ceil(wait.Seconds()))
			a := jsonReply(http.StatusTooManyRequests, map[string]string{
				"detail": fmt.Sprintf("Request was throttled. Expected available in %d seconds.", seconds),
			})
			a.header.Set("Retry-After", strconv.Itoa(seconds))
			return a
		}
	}
	if bodyErr != nil {
		return jsonReply(http.StatusBadRequest, map[string]string{"detail": "Multipart form parse error - " + bodyErr.Error()})
	}
	path = strings.TrimPrefix(path, "events/")
	switch {
	case path == "user-info/":
		return jsonReply(http.StatusOK, map[string]string{"username": subject})
	case path == "" && r.Method == http.MethodPost:
		return s.create(base, subject, req)
	case path == "" && r.Method == http.MethodGet:
		return s.list(base)
	case path == "reserve/" && r.Method == http.MethodPost && !s.cfg.NoReservations:
		return s.reserve(base, subject, req)
	case strings.HasSuffix(path, "/upload/") && r.Method == http.MethodPost && !s.cfg.NoReservations:
		return s.upload(base, subject, strings.TrimSuffix(path, "/upload/"), req)
	case graceID.MatchString(path) && r.Method == http.MethodGet:
		return s.detail(base, path)
	}
	return page(http.StatusNotFound, "Not Found")
}

var graceID = regexp.MustCompile(`^[GEHMTC][0-9]+$`)

// baseOf returns the service URL as the client named it.
func (s *Server) baseOf(r *http.Request) string {
	scheme := "https"
	if s.cfg.Plain {
		scheme = "http"
	}
	return scheme + "://" + r.Host + "/api/"
}

func (s *Server) rootDocument(base string) map[string]any {
	versions := []string{"default", "v1", "v2"}
	templates := map[string]string{
		"event-detail-template": base + "events/{graceid}",
		"files-template":        base + "events/{graceid}/files/{filename}",
	}
	if !s.cfg.NoReservations {
		templates["event-reserve-template"] = base + "events/reserve/"
		templates["event-upload-template"] = base + "events/{graceid}/upload/"
	}
	doc := map[string]any{
		"links": map[string]string{
			"self": base, "events": base + "events/", "superevents": base + "superevents/",
			"user-info": base + "user-info/",
		},
		"templates": templates,
		"groups":    s.cfg.Groups, "pipelines": s.cfg.Pipelines, "searches": s.cfg.Searches, "labels": s.cfg.Labels,
		"api-versions": versions, "API_VERSIONS": versions, "api-default": "v2", "server-version": "gracetest",
		"em-groups": []string{}, "instruments": map[string]string{"H1": "LHO 4 km", "L1": "LLO 4 km"},
	}
	if s.cfg.EditRoot != nil {
		s.cfg.EditRoot(doc)
	}
	return doc
}

var replayID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,30}$`)

func (s *Server) reserve(base, subject string, req Request) reply {
	if a, ok := s.checkPipeline(req.Value("group"), req.Value("pipeline")); !ok {
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
	e := s.newEvent(subject, req)
	e.Reserved = true
	a := jsonReply(http.StatusCreated, map[string]any{
		"graceid": e.GraceID, "submitter": e.Submitter, "group": e.Group, "pipeline": e.Pipeline, "search": orNull(e.Search),
	})
	a.header.Set("Location", base+"events/"+e.GraceID)
	return a
}

// newEvent makes an event with the next graceid. The caller holds s.mu.
func (s *Server) newEvent(subject string, req Request) *Event {
	s.lastID++
	e := &Event{
		Submitter: subject, Created: time.Now(),
		Group: req.Value("group"), Pipeline: req.Value("pipeline"), Search: req.Value("search"),
		ReplayID: req.Value("replay_id"), ContentID: req.Value("content_id"),
	}
	letter := "G"
	switch {
	case e.Group == "Test":
		letter = "T"
	case e.Pipeline == "HardwareInjection":
		letter = "H"
	case e.Group == "External":
		letter = "E"
	case e.Search == "MDC":
		letter = "M"
	}
	e.GraceID = fmt.Sprintf("%s%04d", letter, s.lastID)
	s.events = append(s.events, e)
	return e
}

func (s *Server) upload(base, subject, id string, req Request) reply {
	if req.ContentType != "multipart/form-data" {
		return unsupported(req)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.events, func(e *Event) bool { return e.GraceID == id })
	if i < 0 {
		return jsonReply(http.StatusNotFound, map[string]string{"detail": "Not found."})
	}
	e := s.events[i]
	switch {
	case subject != e.Submitter && subject != "supervisor":
		return text(http.StatusForbidden, "You did not reserve this graceid. You ("+subject+") Them ("+e.Submitter+")")
	case req.Value("graceid") != id:
		return jsonReply(http.StatusBadRequest, map[string]string{"error": "graceid differs from the one in the URL."})
	case e.Uploaded:
		e.Conflicts++
		return jsonReply(s.cfg.Conflict, map[string]string{"error": "Event data has already been uploaded for " + id + "."})
	}
	if a, ok := s.checkForm(req, true); !ok {
		return a
	}
	s.complete(e, subject, req)
	return s.created(base, e)
}

func (s *Server) create(base, subject string, req Request) reply {
	if req.ContentType != "multipart/form-data" {
		return unsupported(req)
	}
	if len(req.Values("pipeline")) == 0 {
		return page(http.StatusInternalServerError, "Server Error (500)")
	}
	if a, ok := s.checkPipeline(req.Value("group"), req.Value("pipeline")); !ok {
		return a
	}
	if a, ok := s.checkForm(req, true); !ok {
		return a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.newEvent(subject, req)
	s.complete(e, subject, req)
	return s.created(base, e)
}

// complete gives an event its data. The caller holds s.mu.
func (s *Server) complete(e *Event, subject string, req Request) {
	f, _ := req.File()
	e.Uploaded, e.Uploader = true, subject
	e.Filename, e.Data, e.ContentType = f.Filename, f.Data, f.Header.Get("Content-Type")
	switch req.Value("offline") {
	case "", "False", "false":
	default:
		e.Offline = true // even "0"
	}
	for _, label := range req.Values("labels") {
		if !slices.Contains(e.Labels, label) {
			e.Labels = append(e.Labels, label)
		}
	}
	e.KafkaServer, e.KafkaTopic = req.Value("kafka_server"), req.Value("kafka_topic")
}

func (s *Server) created(base string, e *Event) reply {
	warnings := []string{}
	if s.cfg.Warnings != nil {
		warnings = append(warnings, s.cfg.Warnings(*e)...)
	}
	doc := document(base, e)
	doc["warnings"] = warnings
	a := jsonReply(http.StatusCreated, doc)
	a.header.Set("Location", base+"events/"+e.GraceID)
	return a
}

func (s *Server) detail(base, id string) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.GraceID == id && e.Uploaded {
			return jsonReply(http.StatusOK, document(base, e))
		}
	}
	return jsonReply(http.StatusNotFound, map[string]string{"detail": "Not found."})
}

func (s *Server) list(base string) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	docs := []map[string]any{}
	for _, e := range s.events {
		if e.Uploaded {
			docs = append(docs, document(base, e))
		}
	}
	return jsonReply(http.StatusOK, map[string]any{
		"events": docs, "numRows": len(docs), "links": map[string]string{"self": base + "events/"},
	})
}

// document is an event as the server tells it. The file was not looked into.
func document(base string, e *Event) map[string]any {
	self := base + "events/" + e.GraceID
	labels := e.Labels
	if labels == nil {
		labels = []string{}
	}
	return map[string]any{
		"graceid": e.GraceID, "submitter": e.Submitter, "created": e.Created.UTC().Format("2006-01-02 15:04:05 UTC"),
		"group": e.Group, "pipeline": e.Pipeline, "search": orNull(e.Search), "offline": e.Offline, "labels": labels,
		"gpstime": nil, "far": nil, "far_is_upper_limit": false, "likelihood": nil, "instruments": "", "nevents": nil,
		"extra_attributes": map[string]any{}, "superevent": nil, "superevent_neighbours": map[string]any{},
		"replay_id": orNull(e.ReplayID),
		"links": map[string]string{
			"self": self, "files": self + "/files/", "log": self + "/log/", "labels": self + "/labels/", "tags": self + "/tag/",
		},
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func jsonReply(status int, v any) reply {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // a bug of this package
	}
	return reply{status, http.Header{"Content-Type": {"application/json"}}, body}
}

func text(status int, s string) reply {
	return reply{status, http.Header{"Content-Type": {"text/html; charset=utf-8"}}, []byte(s)}
}

func page(status int, title string) reply {
	return text(status, "<!doctype html>\n<html lang=\"en\"><head><title>"+title+"</title></head><body><h1>"+title+"</h1></body></html>\n")
}

func unsupported(req Request) reply {
	return jsonReply(http.StatusUnsupportedMediaType,
		map[string]string{"detail": "Unsupported media type \"" + req.ContentType + "\" in request."})
}
