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
	case python && !strings.HasPrefix(version, "/"):
		return text(http.StatusBadRequest, "Error parsing your client software version ("+agent+") from the request headers."), false
	case python && (!plainVersion.MatchString(version) || version[1:2] < "2" && (len(version) < 3 || version[2] == '.')):
		return text(http.StatusBadRequest, "Your client software version ("+version[1:]+") is not supported by this server."+
			" Please use a version >=2.0.0."), false
	}
	return reply{}, true
}

// supervisor is the name of GraceDB's supervisor, who may do anything.
const supervisor = "supervisor"

// authenticate says who asks: nobody, if there is no token, or none that is good.
func (s *Server) authenticate(r *http.Request) (subject string, refused reply, ok bool) {
	header := r.Header.Get("Authorization")
	token, bearer := strings.CutPrefix(header, "Bearer ")
	switch {
	case header == "Bearer":
		return "", page(http.StatusInternalServerError, "Server Error (500)"), false
	case !bearer:
		return "", reply{}, true
	case token == s.supervisor:
		return supervisor, reply{}, true
	}
	subject, scopes, err := s.cfg.Check(token)
	switch {
	case err != nil || !slices.Contains(scopes, "gracedb.read"):
		return "", reply{}, true
	case slices.Contains(s.cfg.Inactive, subject):
		return "", jsonReply(http.StatusForbidden, map[string]string{"detail": "User inactive or deleted."}), false
	}
	return subject, reply{}, true
}

// notProvided refuses whoever is nobody, in the same words for each kind of token
// that is no good.
func (s *Server) notProvided() reply {
	a := jsonReply(s.cfg.Refusal, map[string]string{"detail": "Authentication credentials were not provided."})
	if s.cfg.Refusal == http.StatusUnauthorized {
		a.header.Set("WWW-Authenticate", `Bearer realm="gracedb"`)
	}
	return a
}

// throttle counts a POST and returns how long to wait if there were too many in
// the last second. A refused one does not count.
func (s *Server) throttle(subject string) (wait time.Duration) {
	if s.cfg.Rate <= 0 || subject == supervisor || slices.Contains(s.cfg.Superusers, subject) {
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
func (s *Server) checkPipeline(req Request) (reply, bool) {
	group, pipeline := req.Value("group"), req.Value("pipeline")
	switch {
	case slices.Contains([]string{"X", "Q", "Omega"}, pipeline):
		return text(http.StatusBadRequest, "The "+pipeline+" pipeline is no longer supported in GraceDB."+
			" Please contact an administrator to re-enable support."), false
	case slices.Contains(s.cfg.Unapproved, pipeline):
		return text(http.StatusBadRequest, "The "+pipeline+" pipeline is not approved to upload to GraceDB."+
			" Contact an administrator to enable uploads"), false
	case group == "Test":
	case !slices.Contains(s.cfg.Pipelines, pipeline):
		return jsonReply(http.StatusBadRequest, map[string]string{"error": "Please provide a valid pipeline."}), false
	case slices.Contains(s.cfg.Forbidden, pipeline):
		return text(http.StatusForbidden, "You don't have permission on this pipeline."), false
	case slices.Contains(s.cfg.Disabled, pipeline) && req.Value("search") != "MDC":
		return text(http.StatusBadRequest, "The "+pipeline+" pipeline has been temporarily disabled by an EM advocate"+
			" due to suspected misbehavior."), false
	}
	return reply{}, true
}

// escape is Django's escape.
var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;").Replace

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
			errs = append(errs, "labels: * Select a valid choice. "+escape(label)+" is not one of the available choices.")
			break // the first is the only one that is told
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
