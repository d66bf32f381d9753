package gracetest

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// detail serves GET and PUT of an event. The caller holds s.mu, as for all that is
// about one event.
func (s *Server) detail(c *call, e *record) reply {
	if c.Method == http.MethodPut {
		return s.replace(c, e)
	}
	a := jsonReply(http.StatusOK, s.document(c.base, e))
	a.header.Set("Cache-Control", "no-cache")
	return a
}

// replace puts another file in the place of an event's.
func (s *Server) replace(c *call, e *record) reply {
	f, ok := c.req.File()
	switch {
	case c.subject != e.Submitter:
		return text(http.StatusForbidden, "You did not create this event. You ("+c.subject+") Them ("+e.Submitter+")")
	case c.req.ContentType != "multipart/form-data":
		return unsupported(c.req)
	case !ok:
		return page(http.StatusInternalServerError, "Server Error (500)")
	}
	e.files[f.Filename] = append(e.files[f.Filename], f.Data)
	e.Filename, e.Data, e.ContentType = f.Filename, f.Data, f.Header.Get("Content-Type")
	e.addLog(entry{
		comment: "Event data replaced by new upload", issuer: c.subject, filename: f.Filename, version: len(e.files[f.Filename]) - 1,
	})
	if err := e.readAgain(); err != nil && !errors.Is(err, errUnreadable) {
		return page(http.StatusInternalServerError, "Server Error (500)")
	}
	return reply{http.StatusAccepted, http.Header{}, nil}
}

// pageSize is how many events a list has, unless count says otherwise.
const pageSize = 10

// list serves a page of the events, the newest first.
func (s *Server) list(c *call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	query := c.URL.Query()
	number := func(name string, otherwise int) (int, bool) {
		if !query.Has(name) {
			return otherwise, true
		}
		n, err := strconv.Atoi(query.Get(name))
		return n, err == nil && n >= 0
	}
	count, ok1 := number("count", pageSize)
	start, ok2 := number("start", 0)
	if !ok1 || !ok2 || count == 0 {
		return page(http.StatusInternalServerError, "Server Error (500)")
	}
	var events []*record
	for _, e := range slices.Backward(s.events) {
		if e.Uploaded {
			events = append(events, e)
		}
	}
	docs := []map[string]any{}
	for _, e := range events[min(start, len(events)):min(start+count, len(events))] {
		docs = append(docs, s.document(c.base, e))
	}
	last := len(events) / count * count
	at := func(start int) string {
		return c.base + "events/?" + url.Values{
			"start": {strconv.Itoa(start)}, "count": {strconv.Itoa(count)}, "sort": {"-created"},
		}.Encode()
	}
	self := c.base + "events/"
	if c.URL.RawQuery != "" {
		self += "?" + c.URL.RawQuery
	}
	links := map[string]string{"self": self, "first": at(0), "last": at(last)}
	if start != last {
		links["next"] = at(start + count)
	}
	if start > 0 {
		links["previous"] = at(max(0, start-count))
	}
	a := jsonReply(http.StatusOK, map[string]any{"events": docs, "numRows": len(events), "links": links})
	if c.base[len(c.base)-3:] == "v2/" {
		a.header.Set("Cache-Control", "max-age=0, no-cache, no-store, must-revalidate, private")
	}
	return a
}

// document is an event as the server tells it. Of one that is only reserved there is
// little to tell.
func (s *Server) document(base string, e *record) map[string]any {
	self := base + "events/" + e.GraceID
	labels, extra := e.Labels, e.reading.Extra
	if labels == nil {
		labels = []string{}
	}
	if extra == nil {
		extra = map[string]any{}
	}
	var latency any
	if e.reading.GPSTime != nil {
		latency = math.Round((gpsTime(e.Created)-*e.reading.GPSTime)*1e3) / 1e3
	}
	doc := map[string]any{
		"graceid": e.GraceID, "submitter": e.Submitter, "created": e.Created.UTC().Format("2006-01-02 15:04:05 UTC"),
		"group": e.Group, "pipeline": e.Pipeline, "search": orNull(e.Search), "offline": e.Offline, "labels": labels,
		"gpstime": e.reading.GPSTime, "reporting_latency": latency, "far": e.reading.FAR, "far_is_upper_limit": false,
		"likelihood": e.reading.Likelihood, "instruments": e.reading.Instruments, "nevents": e.reading.Nevents,
		"extra_attributes": extra, "superevent": nil, "superevent_neighbours": map[string]any{},
		"links": map[string]string{
			"self": self, "neighbors": self + "/neighbors/", "log": self + "/log/", "emobservations": self + "/emobservation/",
			"files": self + "/files/", "labels": self + "/labels/", "tags": self + "/tag/",
		},
	}
	if !s.cfg.NoProcessingStatus {
		doc["processing_status"] = "reserved"
		if e.Uploaded {
			doc["processing_status"] = "uploaded"
		}
	}
	return doc
}
