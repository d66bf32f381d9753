package gracetest

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Fault is what happens to the next requests of a kind instead of, or besides,
// what should. Its zero value does nothing: the requests it matches are served. The
// supervisor's requests are spared.
type Fault struct {
	// On is the kind of request: "root", "reserve", "upload", "create", "event"
	// (the detail) or "other". If empty, it is any.
	On string
	// Skip is how many such requests pass unharmed first.
	Skip int
	// Times is how many requests are hit after that. If zero, one; if negative, all.
	Times int

	// Wait is how long nothing is read or done.
	Wait time.Duration
	// Refuse cuts the connection without reading the request's body.
	Refuse bool
	// Status answers instead of the server, with Header and Body. Unless Commit is
	// set the server does not see the request.
	Status int
	Header http.Header
	Body   string
	// Commit lets the server act on the request although it is not the server's
	// answer that is sent.
	Commit bool
	// Drop cuts the connection instead of answering.
	Drop bool
	// Think is how long the answer is kept back once there is one.
	Think time.Duration
	// Half cuts the connection in the middle of the answer's body.
	Half bool
	// Reset cuts, where the connection is cut, by a TCP reset.
	Reset bool
	// Drip is the time between two bytes of the answer's body.
	Drip time.Duration
	// Bomb answers 200 and that many bytes of zeros, in whole MiB, compressed.
	Bomb int64
}

// Script adds faults, which take effect in this order.
func (s *Server) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		if f.Times == 0 {
			f.Times = 1
		}
		s.faults = append(s.faults, &f)
	}
}

// Heal forgets all faults.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// faultFor takes the fault that hits a request.
func (s *Server) faultFor(kind string) (f Fault, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		switch {
		case f.On != "" && f.On != kind || f.Times == 0:
			continue
		case f.Skip > 0:
			f.Skip--
			return Fault{}, false
		}
		f.Times--
		return *f, true
	}
	return Fault{}, false
}

// kindOf is what Fault.On calls a request.
func kindOf(method, path string) string {
	rest, ok := strings.CutPrefix(path, "/api/")
	for _, version := range []string{"v1/", "v2/"} {
		rest = strings.TrimPrefix(rest, version)
	}
	id, below := strings.CutPrefix(rest, "events/")
	switch {
	case !ok:
	case method == http.MethodGet && (rest == "" || !strings.Contains(rest, "events")):
		return "root"
	case rest == "events/reserve/" && method == http.MethodPost:
		return "reserve"
	case rest == "events/" && method == http.MethodPost:
		return "create"
	case below && strings.HasSuffix(id, "/upload/") && method == http.MethodPost:
		return "upload"
	case below && id != "" && method == http.MethodGet:
		return "event"
	}
	return "other"
}

// A reply is an answer before it is sent.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	var fault Fault
	faulty := false
	if r.Header.Get("Authorization") != "Bearer "+s.supervisor {
		fault, faulty = s.faultFor(kindOf(r.Method, r.URL.Path))
	}
	if !s.pause(r, fault.Wait) {
		return
	}
	if fault.Refuse {
		s.record(Request{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Fault: true})
		cut(w, fault.Reset)
		return
	}
	req, err := readRequest(r)
	req.Fault = faulty
	var answer reply
	if fault.Status == 0 || fault.Commit {
		answer = s.answer(r, req, err)
	}
	if fault.Status != 0 {
		answer = reply{fault.Status, fault.Header, []byte(fault.Body)}
	}
	if !fault.Drop {
		req.Status = answer.status
	}
	s.record(req)
	if answer.status == http.StatusCreated && req.ContentType == "multipart/form-data" && !s.pause(r, s.cfg.Work) {
		return
	}
	if !s.pause(r, fault.Think) {
		return
	}
	switch {
	case fault.Drop:
		cut(w, fault.Reset)
	case fault.Bomb > 0:
		sendBomb(w, fault.Bomb)
	default:
		s.send(w, r, answer, fault)
	}
}

func (s *Server) record(r Request) {
	if r.Header.Get("Authorization") != "" {
		r.Header.Set("Authorization", "Bearer <token>")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
}

// pause reports whether the client is still there after d.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	case <-s.closing: // the end of a connection is not noticed before its request is read
		return false
	}
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, a reply, f Fault) {
	maps.Copy(w.Header(), a.header)
	if f.Header.Get("Content-Length") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	body := a.body
	if f.Half {
		body = body[:len(body)/2]
	}
	if f.Drip > 0 {
		for len(body) > 0 {
			if !s.pause(r, f.Drip) {
				return
			}
			if _, err := w.Write(body[:1]); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			body = body[1:]
		}
	}
	_, _ = w.Write(body)
	if f.Half {
		_ = http.NewResponseController(w).Flush()
		cut(w, f.Reset)
	}
}

// cut ends the connection, by a reset if asked to.
func cut(w http.ResponseWriter, reset bool) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: resets the stream
	}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn() // without TLS's own goodbye
	}
	if t, ok := conn.(*net.TCPConn); ok && reset {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}

// megabyte is a MiB of zeros as a gzip file; such files may follow one another.
var megabyte = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Close()
	return b.Bytes()
})

func sendBomb(w http.ResponseWriter, size int64) {
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	for ; size > 0; size -= 1 << 20 {
		if _, err := w.Write(megabyte()); err != nil {
			return
		}
	}
}
