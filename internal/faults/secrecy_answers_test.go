package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A disguisedServer answers like GraceDB, but for what a case changes.
type disguisedServer struct {
	root   func(doc map[string]any)                     // changes the root document
	answer func(w http.ResponseWriter, r *http.Request) // to all but the root document; if nil, a graceid
}

func (s disguisedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/api/v2/" || r.URL.Path == "/api/" {
		base := "http://" + r.Host + "/api/v2/"
		doc := map[string]any{
			"server-version": "2.30", "API_VERSIONS": []string{"v2"}, "groups": []string{"Test"},
			"pipelines": []string{"gstlal"}, "searches": []string{"AllSky"}, "labels": []string{"INJ"},
			"links": map[string]any{"events": base + "events/"},
			"templates": map[string]any{
				"event-reserve-template": base + "events/reserve/", "event-upload-template": base + "events/{graceid}/upload/",
				"event-detail-template": base + "events/{graceid}",
			},
		}
		if s.root != nil {
			s.root(doc)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(doc)
		return
	}
	if s.answer != nil {
		s.answer(w, r)
		return
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte(`{"graceid":"G1"}`))
}

// aliceToken returns a token for alice and who issued it.
func aliceToken(t *testing.T) (*testauth.Issuer, string) {
	t.Helper()
	issuer, err := testauth.NewIssuer("https://issuer.invalid")
	if err != nil {
		t.Fatal(err)
	}
	token, err := issuer.Token(testauth.Claims{Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	return issuer, token
}

// Whatever member of whatever answer a server writes the token into, and however, it is
// shown nowhere.
func TestCanaryInEveryAnswer(t *testing.T) {
	_, token := aliceToken(t)
	var now atomic.Pointer[disguisedServer]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { now.Load().ServeHTTP(w, r) }))
	defer server.Close()
	for name, v := range disguises(token) {
		t.Run(name, func(t *testing.T) {
			l := newLeak(t, token)
			l.causes = true
			for what, s := range disguisedServers(v) {
				now.Store(&s)
				showCalls(t, l, what, server, token)
			}
			l.check()
		})
	}
}

// showCalls makes every call to a server, and shows what comes of it.
func showCalls(t *testing.T, l *leak, what string, server *httptest.Server, token string) {
	h := server.Client()
	client := testrig.NewClient(t, gracedb.ClientConfig{
		ServiceURL: server.URL + "/api/", Token: testrig.TokenIs(token), HTTP: h, Retries: -1,
		Logger: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	info, err := client.ServiceInfo(ctx)
	l.show(what, info)
	l.show(what, err)
	e := gracedb.Event{Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("x")}
	other := e
	other.Group, other.Pipeline = "test", "GstLAL"
	_, err = client.CreateEvent(ctx, other)
	l.show(what, err)
	receipt, err := client.CreateEvent(ctx, e)
	l.show(what, receipt)
	l.show(what, err)
	reservation, err := client.Reserve(ctx, e)
	l.show(what, reservation)
	l.show(what, err)
	receipt, err = client.UploadReservedEvent(ctx, "G1", e, gracedb.Provenance{})
	l.show(what, receipt)
	l.show(what, err)
	receipt, err = client.PublishEvent(ctx, nil, e, gracedb.PublishOptions{HTTPFallback: true})
	l.show(what, receipt)
	l.show(what, err)
	l.show(what, receipt.Fallback)
	soon, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	l.show(what, client.WaitUploaded(soon, "G1"))
	l.show(what, client.WaitUploaded(canceledSoon(ctx), "G1"))
}

// canceledSoon returns a context that is enough for one answer.
func canceledSoon(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	return ctx
}

// disguisedServers are all the places where v may stand.
func disguisedServers(v string) map[string]disguisedServer {
	quoted := `"` + v + `"`
	if b, err := json.Marshal(v); err == nil && !strings.Contains(v, `\`) {
		quoted = string(b)
	}
	servers := make(map[string]disguisedServer)
	root := func(what string, change func(map[string]any)) { servers["root: "+what] = disguisedServer{root: change} }
	for _, list := range []string{"API_VERSIONS", "groups", "pipelines", "searches", "labels"} {
		root(list, func(doc map[string]any) { doc[list] = []string{v} })
		root(list+" as text", func(doc map[string]any) { doc[list] = v })
	}
	root("version", func(doc map[string]any) { doc["server-version"] = v })
	for _, form := range []string{"V", "https://V/", "https://V.example/x", "/api/v2/V/", "//V", "http://V@127.0.0.1/", "V:V"} {
		raw := strings.ReplaceAll(form, "V", v)
		root("link "+form, func(doc map[string]any) { doc["links"] = map[string]any{"events": raw, v: raw} })
		root("template "+form, func(doc map[string]any) {
			doc["templates"] = map[string]any{
				"event-reserve-template": raw, "event-upload-template": raw + "/{graceid}/",
				"event-detail-template": raw + "{graceid}{x}", v: raw,
			}
		})
	}
	bodies := map[string]string{
		"text": v, "string": quoted, "list": "[" + quoted + "]", "html": "<html><title>" + v + "</title></html>", "page": "<p>" + v,
		"key": "{" + quoted + `: ["x"]}`, "twice": string(mustQuote(`{"error": ` + quoted + `}`)), "broken": `{"detail": ` + quoted,
		"created":  `{"graceid": "G1", "submitter": ` + quoted + `, "warnings": [` + quoted + `], "processing_status": ` + quoted + `}`,
		"warnings": `{"graceid": "G1", "warnings": {` + quoted + `: ` + quoted + `}}`, "graceid": `{"graceid": ` + quoted + `}`,
		"half": `{"graceid": "G1", "submitter": ` + quoted,
	}
	for _, member := range []string{"detail", "error", "errors", "warnings", "non_field_errors", "other"} {
		bodies[member] = `{"` + member + `": ` + quoted + `}`
	}
	statuses := []int{200, 201, 400, 401, 403, 404, 409, 429, 500, 502, 503}
	if testing.Short() {
		statuses = []int{201, 403, 502}
	}
	for _, status := range statuses {
		for what, body := range bodies {
			servers[fmt.Sprintf("%d %s", status, what)] = disguisedServer{answer: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
			}}
		}
	}
	headers(servers, v)
	return servers
}

// headers adds to servers those that write v into the head of an answer.
func headers(servers map[string]disguisedServer, v string) {
	for _, form := range []string{"V", "https://V/", "https://x.example/V", "//V/", "https://V@x.example/"} {
		to := strings.ReplaceAll(form, "V", v)
		servers["redirect to "+form] = disguisedServer{answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}}
	}
	for _, name := range []string{"Retry-After", "Content-Type", "Www-Authenticate", "Server", "X-Other"} {
		servers["header "+name] = disguisedServer{answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(name, v)
			w.WriteHeader(http.StatusServiceUnavailable)
		}}
	}
	for what, head := range map[string]string{
		"reason": "HTTP/1.1 400 " + v + "\r\nContent-Length: 0\r\n\r\n", "status": "HTTP/1.1 " + v + "\r\n\r\n", "protocol": v + "\r\n\r\n",
		"malformed": "HTTP/1.1 200 OK\r\n" + v + "\r\n\r\n", "length": "HTTP/1.1 200 OK\r\nContent-Length: " + v + "\r\n\r\n",
		"coding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + v + "\r\n\r\n", "chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + v + "\r\n",
		"early": "HTTP/1.1 103 " + v + "\r\n" + v + "\r\n\r\n",
	} {
		servers["raw "+what] = disguisedServer{answer: func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write([]byte(head))
		}}
	}
}

func mustQuote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return b
}
