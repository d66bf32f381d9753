package gracetest

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

var plainVersion = regexp.MustCompile(`^/[0-9]+(\.[0-9]+)*$`)

// checkUserAgent is the server's middleware: a Python client that is too old, or
// whose version cannot be read, is refused.
func checkUserAgent(r *http.Request) (reply, bool) {
	agent := r.Header.Get("User-Agent")
	_, version, python := strings.Cut(agent, "gracedb-client")
	switch {
	case agent == "":
		return text(http.StatusBadRequest, "Your client software is out of date - this server requires a version >=2.0.0."), false
	case python && !plainVersion.MatchString(version):
		return text(http.StatusBadRequest, "Error parsing your client software version: "+version), false
	case python && (version[1:2] < "2" && (len(version) < 3 || version[2] == '.')):
		return text(http.StatusBadRequest, "Your client software version ("+version[1:]+") is not supported."), false
	}
	return reply{}, true
}

// authenticate says who asks.
func (s *Server) authenticate(r *http.Request) (subject string, refused reply, ok bool) {
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if bearer && token == s.supervisor {
		return "supervisor", reply{}, true
	}
	const notProvided = "Authentication credentials were not provided." // also of a token that is no good
	detail := notProvided
	if bearer {
		subject, scopes, err := s.cfg.Check(token)
		switch {
		case s.cfg.Refusal == http.StatusForbidden && (err != nil || !slices.Contains(scopes, "gracedb.read")):
			detail = notProvided
		case err != nil:
			detail = "Invalid token: " + err.Error()
		case !slices.Contains(scopes, "gracedb.read"):
			return "", jsonReply(http.StatusForbidden, map[string]string{"detail": "The token lacks the scope gracedb.read."}), false
		default:
			return subject, reply{}, true
		}
	}
	a := jsonReply(s.cfg.Refusal, map[string]string{"detail": detail})
	if s.cfg.Refusal == http.StatusUnauthorized {
		a.header.Set("WWW-Authenticate", `Bearer realm="gracedb"`)
	}
	return "", a, false
}

// throttle counts a POST and returns how long to wait if there were too many in
// the last second. A refused one does not count.
func (s *Server) throttle(subject string) (wait time.Duration) {
	if s.cfg.Rate <= 0 || subject == "supervisor" {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	recent := slices.DeleteFunc(s.posts[subject], func(t time.Time) bool { return now.Sub(t) >= time.Second })
	s.posts[subject] = recent
	if len(recent) >= s.cfg.Rate {
		return time.Second - now.Sub(recent[0])
	}
	s.posts[subject] = append(recent, now)
	return 0
}

// checkPipeline is the check that comes before the form's.
func (s *Server) checkPipeline(group, pipeline string) (reply, bool) {
	switch {
	case slices.Contains([]string{"X", "Q", "Omega"}, pipeline):
		return text(http.StatusBadRequest, "The "+pipeline+" pipeline is no longer supported in GraceDB."+
			" Please contact an administrator to re-enable support."), false
	case group != "Test" && !slices.Contains(s.cfg.Pipelines, pipeline):
		return jsonReply(http.StatusBadRequest, map[string]string{"error": "Please provide a valid pipeline."}), false
	case group != "Test" && slices.Contains(s.cfg.Forbidden, pipeline):
		return text(http.StatusForbidden, "You don't have permission on this pipeline."), false
	}
	return reply{}, true
}

func (s *Server) checkForm(req Request, withFile bool) (reply, bool) {
	var errs []string
	choice := func(field string, known []string, required bool) {
		switch v := req.Value(field); {
		case v == "" && required:
			errs = append(errs, field+": * This field is required.")
		case v != "" && !slices.Contains(known, v):
			errs = append(errs, field+": * Select a valid choice. That choice is not one of the available choices.")
		}
	}
	if !withFile || req.Value("graceid") == "" {
		choice("group", s.cfg.Groups, true)
		choice("pipeline", s.cfg.Pipelines, true)
		choice("search", s.cfg.Searches, false)
	}
	for _, label := range req.Values("labels") {
		if !slices.Contains(s.cfg.Labels, label) {
			errs = append(errs, "labels: * Select a valid choice. "+label+" is not one of the available choices.")
		}
	}
	if withFile {
		switch f, ok := req.File(); {
		case !ok:
			errs = append(errs, "eventFile: * This field is required.")
		case len(f.Data) == 0:
			errs = append(errs, "eventFile: * The submitted file is empty.")
		}
	}
	if errs != nil {
		return jsonReply(http.StatusBadRequest, map[string][]string{"errors": errs}), false
	}
	return reply{}, true
}
