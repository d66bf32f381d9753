package gracetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A call is a request on its way through the server.
type call struct {
	*http.Request
	req     Request
	base    string // URL of the API in the version that was asked for
	subject string
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
	c := call{Request: r, req: req, base: s.baseOf(r)}
	for _, v := range []string{"v1/", "v2/"} {
		if rest, ok := strings.CutPrefix(path, v); ok {
			c.base, path = c.base+v, rest
			break
		}
	}
	if path == "events" {
		return reply{http.StatusMovedPermanently, http.Header{
			"Location": {req.Path + "/"}, "Content-Type": {"text/html; charset=utf-8"},
		}, nil}
	}
	methods, serve := s.route(path)
	if serve == nil {
		return page(http.StatusNotFound, "Not Found")
	}
	a := s.serveView(&c, path == "", methods, serve, bodyErr)
	if a.status != http.StatusInternalServerError { // whose page is the server's, not the view's
		a.header.Set("Allow", strings.Join(methods, ", "))
		a.header.Set("Vary", "Accept, Cookie")
	}
	return a
}

// serveView does what comes before every view: who asks, how often, and whether the
// method is there. The root may be read without a token.
func (s *Server) serveView(c *call, isRoot bool, methods []string, serve func(*call) reply, bodyErr error) reply {
	subject, refused, ok := s.authenticate(c.Request)
	switch {
	case !ok:
		return refused
	case subject == "" && !isRoot:
		return s.notProvided()
	}
	c.subject = subject
	if c.Method == http.MethodPost {
		if wait := s.throttle(subject); wait > 0 {
			seconds := int(math.Ceil(wait.Seconds()))
			unit := "seconds"
			if seconds == 1 {
				unit = "second"
			}
			a := jsonReply(http.StatusTooManyRequests, map[string]string{
				"detail": fmt.Sprintf("Request was throttled. Expected available in %d %s.", seconds, unit),
			})
			a.header.Set("Retry-After", strconv.Itoa(seconds))
			return a
		}
	}
	if !slices.Contains(methods, c.Method) || c.Method == http.MethodOptions {
		return jsonReply(http.StatusMethodNotAllowed, map[string]string{"detail": fmt.Sprintf("Method %q not allowed.", c.Method)})
	}
	if bodyErr != nil {
		return jsonReply(http.StatusBadRequest, map[string]string{"detail": "Multipart form parse error - " + bodyErr.Error()})
	}
	return serve(c)
}

var (
	getOnly  = strings.Fields("GET HEAD OPTIONS")
	getPost  = strings.Fields("GET POST HEAD OPTIONS")
	postOnly = strings.Fields("POST OPTIONS")
	getPut   = strings.Fields("GET PUT HEAD OPTIONS")
)

// route returns the view of a path and the methods that it has.
func (s *Server) route(path string) (methods []string, serve func(*call) reply) {
	switch path {
	case "":
		return getOnly, func(c *call) reply { return jsonReply(http.StatusOK, s.rootDocument(c.base)) }
	case "user-info/":
		return getOnly, func(c *call) reply { return jsonReply(http.StatusOK, map[string]string{"username": c.subject}) }
	case "events/":
		return getPost, func(c *call) reply {
			if c.Method == http.MethodPost {
				return s.create(c)
			}
			return s.list(c)
		}
	case "events/reserve/":
		if s.cfg.NoReservations {
			return nil, nil
		}
		return postOnly, s.reserve
	}
	path, ok := strings.CutPrefix(path, "events/")
	id, below, deeper := strings.Cut(path, "/")
	switch {
	case !ok || !graceID.MatchString(id):
		return nil, nil
	case !deeper:
		return getPut, s.withEvent(id, s.detail)
	case below == "upload/" && !s.cfg.NoReservations:
		return postOnly, func(c *call) reply { return s.upload(c, id) }
	}
	methods, annotate := annotation(below)
	if annotate == nil {
		return nil, nil
	}
	return methods, s.withEvent(id, func(c *call, e *record) reply { return annotate(s, c, e) })
}

// withEvent calls view with s.mu locked.
func (s *Server) withEvent(id string, view func(*call, *record) reply) func(*call) reply {
	return func(c *call) reply {
		s.mu.Lock()
		defer s.mu.Unlock()
		e := s.find(id)
		if e == nil || !e.Uploaded && s.cfg.NoProcessingStatus {
			return text(http.StatusNotFound, "Event not found.")
		}
		return view(c, e)
	}
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

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// jsonReply answers v. What JSON cannot carry, such as a rate that is not a number,
// is an error of the server.
func jsonReply(status int, v any) reply {
	body, err := json.Marshal(v)
	if _, ok := errors.AsType[*json.UnsupportedValueError](err); ok {
		return page(http.StatusInternalServerError, "Server Error (500)")
	}
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
