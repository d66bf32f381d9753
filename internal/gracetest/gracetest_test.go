package gracetest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A client makes raw requests, as clients other than ours do.
type client struct {
	t     *testing.T
	s     *Server
	http  *http.Client
	token string
	agent string
}

func start(t *testing.T, cfg Config) *client {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := &client{t: t, s: s, http: s.HTTPClient(), agent: "test"}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(c.http.CloseIdleConnections)
	if c.token, err = s.Token(testauth.Claims{}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *client) do(method, path, contentType, body string) (*http.Response, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, strings.TrimSuffix(c.s.URL(), "/api/")+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(got)
}

const formType = "application/x-www-form-urlencoded"

// parts makes a multipart body of pairs; a name with a "/" is a file.
func parts(pairs ...string) (contentType, body string) {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		name, filename, isFile := strings.Cut(pairs[i], "/")
		b.WriteString("--B\r\nContent-Disposition: form-data; name=\"" + name + "\"")
		if isFile {
			b.WriteString("; filename=\"" + filename + "\"\r\nContent-Type: application/xml")
		}
		b.WriteString("\r\n\r\n" + pairs[i+1] + "\r\n")
	}
	return "multipart/form-data; boundary=B", b.String() + "--B--\r\n"
}

const notProvided = `{"detail":"Authentication credentials were not provided."}`

// The answers to a creation, in the order in which the server checks.
func TestCreateAnswers(t *testing.T) {
	good := []string{"group", "CBC", "pipeline", "gstlal", "labels", "INJ", "labels", "DQV", "offline", "0", "eventFile/coinc.xml", Readable}
	with := func(name, value string) []string {
		out := append([]string(nil), good...)
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
				return out
			}
		}
		return append(out, name, value)
	}
	for _, tt := range []struct {
		name   string
		edit   func(*client)
		fields []string
		status int
		says   string
	}{
		{"good", nil, good, 201, `"graceid":"G1001"`},
		{"no agent", func(c *client) { c.agent = ""; c.token = "" }, good, 400, "out of date"},
		{"old agent", func(c *client) { c.agent = "gracedb-client/1.20.0" }, good, 400, "version (1.20.0) is not supported by this server. Please use a version >=2.0.0."},
		{"bad agent", func(c *client) { c.agent = "gracedb-client/2.16.0rc1 (go)" }, good, 400, "is not supported by this server"},
		{"peer's agent", func(c *client) { c.agent = "gracedb-client/2.16.1" }, good, 201, ""},
		{"two digits", func(c *client) { c.agent = "gracedb-client/10.0" }, good, 201, ""},
		{"no token", func(c *client) { c.token = "" }, good, 403, notProvided},
		{"bad token", func(c *client) { c.token = "x" }, good, 403, notProvided},
		{"no scope", func(c *client) { c.token, _ = c.s.Token(testauth.Claims{Scope: "kafka.consume"}) }, good, 403, notProvided},
		{"a token of nothing", func(c *client) { c.token = " " }, good, 500, "Server Error (500)"},
		{"inactive", func(c *client) { c.token, _ = c.s.Token(testauth.Claims{Subject: "gone"}) }, good, 403, `{"detail":"User inactive or deleted."}`},
		{"retired", nil, with("pipeline", "X"), 400, "no longer supported"},
		{"unknown pipeline", nil, with("pipeline", "Nope"), 400, `{"error":"Please provide a valid pipeline."}`},
		{"no permission", nil, with("pipeline", "pycbc"), 403, "You don't have permission on this pipeline."},
		{"unapproved", nil, with("pipeline", "spiir"), 400, "The spiir pipeline is not approved to upload to GraceDB. Contact an administrator to enable uploads"},
		{"disabled", nil, with("pipeline", "MBTA"), 400, "The MBTA pipeline has been temporarily disabled by an EM advocate due to suspected misbehavior."},
		{"unknown label in quotes", nil, with("labels", `["INJ",'&']`), 400, `[\u0026quot;INJ\u0026quot;,\u0026#x27;\u0026amp;\u0026#x27;] is not one`},
		{"unknown label", nil, with("labels", "NOPE"), 400, `{"errors":["labels: * Select a valid choice. NOPE is not one`},
		{"empty file", nil, with("eventFile/coinc.xml", ""), 400, "The submitted file is empty"},
		{"file named ..", nil, append(with("eventFile/coinc.xml", "x")[:10], "eventFile/..", "x"), 400, "eventFile: * This field is required."},
		{"no pipeline", nil, []string{"group", "CBC"}, 500, "Server Error (500)"},
		{"the old client's extra parts", nil, append(append([]string(nil), good...), "eventFile", "/data/coinc.xml", "eventFile", Readable, "eventFile", "application/xml"), 201, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, Config{
				Forbidden: []string{"pycbc"}, Inactive: []string{"gone"}, Unapproved: []string{"spiir"}, Disabled: []string{"MBTA"},
			})
			if tt.edit != nil {
				tt.edit(c)
			}
			ct, body := parts(tt.fields...)
			resp, got := c.do("POST", "/api/v2/events/", ct, body)
			if resp.StatusCode != tt.status || !strings.Contains(got, tt.says) {
				t.Errorf("%d %s, want %d with %q", resp.StatusCode, got, tt.status, tt.says)
			}
			if tt.status != 201 {
				return
			}
			if e := c.s.Events(); len(e) != 1 || !e[0].Offline || e[0].Filename != "coinc.xml" || string(e[0].Data) != Readable || len(e[0].Labels) != 2 {
				t.Errorf("%+v", e)
			}
			if want := c.s.URL() + "v2/events/G1001"; resp.Header.Get("Location") != want {
				t.Errorf("Location %q, want %q", resp.Header.Get("Location"), want)
			}
			for _, r := range c.s.Requests() {
				if strings.Contains(r.Header.Get("Authorization"), c.token) {
					t.Error("the token was recorded")
				}
			}
		})
	}
	c := start(t, Config{Refusal: 401})
	c.token = ""
	if resp, got := c.do("POST", "/api/v2/events/", formType, ""); resp.StatusCode != 401 || got != notProvided || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("Refusal 401: %d %s", resp.StatusCode, got)
	}
	c = start(t, Config{})
	if resp, got := c.do("POST", "/api/v2/events/", formType, "group=CBC"); resp.StatusCode != 415 || !strings.Contains(got, "Unsupported media type") {
		t.Errorf("a form: %d %s", resp.StatusCode, got)
	}
}

func TestReservations(t *testing.T) {
	c := start(t, Config{Conflict: 400})
	resp, got := c.do("POST", "/api/v2/events/reserve/", formType, url.Values{"group": {"Test"}, "pipeline": {"gstlal"}, "content_id": {"c"}}.Encode())
	if resp.StatusCode != 201 || !strings.Contains(got, `"graceid":"T1001"`) || !strings.Contains(got, `"submitter":"alice"`) {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	if resp, got := c.do("POST", "/api/v2/events/reserve/", formType, "group=Test&pipeline=gstlal&replay_id=a+b"); resp.StatusCode != 400 || got[0] != '"' {
		t.Errorf("malformed replay_id: %d %s", resp.StatusCode, got)
	}
	if resp, got := c.do("GET", "/api/v2/events/T1001", "", ""); resp.StatusCode != 200 || !strings.Contains(got, `"processing_status":"reserved"`) {
		t.Errorf("detail of a reservation: %d %s", resp.StatusCode, got)
	}
	ct, body := parts("graceid", "T1001", "labels", "INJ", "kafka_topic", "t", "eventFile/a.xml", Readable)
	alice := c.token
	c.token, _ = c.s.Token(testauth.Claims{Subject: "bob"})
	if resp, got := c.do("POST", "/api/v2/events/T1001/upload/", ct, body); resp.StatusCode != 403 {
		t.Errorf("somebody else's upload: %d %s", resp.StatusCode, got)
	}
	c.token = alice
	for i, want := range []int{201, 400} {
		if resp, got := c.do("POST", "/api/v2/events/T1001/upload/", ct, body); resp.StatusCode != want {
			t.Errorf("upload %d: %d %s, want %d", i, resp.StatusCode, got, want)
		}
	}
	if resp, _ := c.do("POST", "/api/v2/events/T1002/upload/", ct, body); resp.StatusCode != 404 {
		t.Errorf("upload to an unknown graceid: %d", resp.StatusCode)
	}
	e := c.s.Events()
	if len(e) != 1 || e[0].Conflicts != 1 || !e[0].Reserved || e[0].ContentID != "c" || e[0].KafkaTopic != "t" || string(e[0].Data) != Readable {
		t.Errorf("%+v", e)
	}
	if resp, got := c.do("GET", "/api/v2/events/T1001", "", ""); resp.StatusCode != 200 || !strings.Contains(got, `"labels":["INJ"]`) ||
		!strings.Contains(got, `"processing_status":"uploaded"`) {
		t.Errorf("detail: %d %s", resp.StatusCode, got)
	}

	old := start(t, Config{NoProcessingStatus: true})
	old.do("POST", "/api/v2/events/reserve/", formType, "group=Test&pipeline=gstlal")
	if resp, got := old.do("GET", "/api/v2/events/T1001", "", ""); resp.StatusCode != 404 {
		t.Errorf("detail of a reservation on a server of old: %d %s", resp.StatusCode, got)
	}
	old.do("POST", "/api/v2/events/T1001/upload/", ct, body)
	if resp, got := old.do("GET", "/api/v2/events/T1001", "", ""); resp.StatusCode != 200 || strings.Contains(got, "processing_status") {
		t.Errorf("detail on a server of old: %d %s", resp.StatusCode, got)
	}
}

func TestRoutes(t *testing.T) {
	c := start(t, Config{})
	for path, want := range map[string]int{
		"/api/": 200, "/api/v1/": 200, "/api/v2/": 200, "/api/v9/": 404, "/": 404, "/api/v2/events": 301, "/api/v2/events/": 200,
		"/api/v2/events/G1/": 404, "/api/v2/events/G9999": 404, "/api/v2/user-info/": 200,
	} {
		if resp, _ := c.do("GET", path, "", ""); resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	_, got := c.do("GET", "/api/v1/", "", "")
	var doc struct {
		Links, Templates map[string]string
	}
	if err := json.Unmarshal([]byte(got), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Links["events"] != c.s.URL()+"v1/events/" || doc.Templates["event-upload-template"] != c.s.URL()+"v1/events/{graceid}/upload/" {
		t.Errorf("%+v", doc)
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Rate: 2, Virtual: true, Plain: true})
		reserve := func() int {
			resp, _ := c.do("POST", "/api/v2/events/reserve/", formType, "group=Test&pipeline=gstlal")
			if resp.StatusCode == 429 && resp.Header.Get("Retry-After") != "1" {
				t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
			}
			return resp.StatusCode
		}
		var got []int
		for range 3 {
			got = append(got, reserve())
			time.Sleep(300 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // the first is a second ago
		got = append(got, reserve(), reserve())
		for i, want := range []int{201, 201, 429, 201, 429} {
			if got[i] != want {
				t.Errorf("statuses %v", got)
				break
			}
		}
	})
}

func TestFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		fault Fault
		made  int  // reservations
		lost  bool // no answer
	}{
		"none":     {Fault{}, 1, false},
		"refuse":   {Fault{Refuse: true}, 0, true},
		"drop":     {Fault{Drop: true}, 1, true},
		"reset":    {Fault{Drop: true, Reset: true}, 1, true},
		"half":     {Fault{Half: true}, 1, true},
		"status":   {Fault{Status: 502}, 0, false},
		"commit":   {Fault{Status: 502, Commit: true}, 1, false},
		"other":    {Fault{On: "upload", Status: 502}, 1, false},
		"skip":     {Fault{Skip: 1, Status: 502}, 1, false},
		"slow":     {Fault{Wait: time.Millisecond, Think: time.Millisecond, Drip: time.Microsecond}, 1, false},
		"no reply": {Fault{Status: 200, Drop: true}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, Config{})
			c.s.Script(tt.fault)
			req, err := http.NewRequestWithContext(t.Context(), "POST", c.s.URL()+"v2/events/reserve/", strings.NewReader("group=Test&pipeline=gstlal"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", formType)
			req.Header.Set("Authorization", "Bearer "+c.token)
			resp, err := c.http.Do(req)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			if (err != nil) != tt.lost || len(c.s.Reservations()) != tt.made {
				t.Errorf("%v, %d reservations", err, len(c.s.Reservations()))
			}
			if r := c.s.Requests(); len(r) != 1 {
				t.Errorf("%d requests recorded", len(r))
			}
		})
	}
}

// Close leaves nobody waiting whose request was never read.
func TestCloseEndsHandlers(t *testing.T) {
	s, err := Start(Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.Script(Fault{Wait: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	never, writer := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"v2/events/", never)
	if err != nil {
		t.Fatal(err)
	}
	c := s.HTTPClient()
	done := make(chan error, 1)
	go func() {
		resp, err := c.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		done <- err
	}()
	if _, err := writer.Write([]byte("half")); err != nil { // read by the transport: connected
		t.Fatal(err)
	}
	cancel()
	_ = writer.CloseWithError(context.Canceled)
	<-done
	c.CloseIdleConnections()
	s.Close()
	goleak.VerifyNone(t)
}
