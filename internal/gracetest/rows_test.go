package gracetest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// What an event is said to be, as far as it differs.
type eventDocument struct {
	GraceID, Instruments     string
	GPSTime, FAR, Likelihood *float64
	Nevents                  *int
	Labels, Warnings         []string
	Extra                    map[string]any `json:"extra_attributes"`
	Links                    map[string]string
}

func (c *client) create(fields ...string) (status int, doc eventDocument, text string) {
	c.t.Helper()
	ct, body := parts(fields...)
	resp, got := c.do("POST", "/api/v2/events/", ct, body)
	if resp.StatusCode == http.StatusCreated {
		if err := json.Unmarshal([]byte(got), &doc); err != nil {
			c.t.Fatal(err)
		}
	}
	return resp.StatusCode, doc, got
}

// The samples, as the parsers of the real server read them.
func TestSamplesAreRead(t *testing.T) {
	c := start(t, Config{})
	for _, sample := range append(samples.Events(), samples.LargeEvents()...) {
		_, doc, text := c.create("group", sample.Group, "pipeline", sample.Pipeline, "eventFile/"+sample.Filename, string(sample.Data))
		if len(doc.Warnings) > 0 || doc.GPSTime == nil || *doc.GPSTime < 1.4e9 || doc.FAR == nil || *doc.FAR > 1e-7 || doc.Instruments == "" {
			t.Errorf("%s: %.1000s", sample.Filename, text)
		}
		switch sample.Filename {
		case "coinc.xml":
			single, _ := doc.Extra["SingleInspiral"].([]any)
			if fmt.Sprintf("%.6f %.3e %s %d %d", *doc.GPSTime, *doc.FAR, doc.Instruments, *doc.Nevents, len(single)) != "1424338686.297479 9.239e-10 H1,L1,V1 3 3" {
				t.Errorf("%.1000s", text)
			}
			if snr := doc.Extra["CoincInspiral"].(map[string]any)["snr"].(float64); math.Abs(snr-13.80) > 0.01 || math.Abs(*doc.Likelihood-26.4) > 0.1 {
				t.Errorf("snr %v, likelihood %v", snr, *doc.Likelihood)
			}
		case "trigger.txt":
			if fmt.Sprintf("%.3e %s %.4f", *doc.FAR, doc.Instruments, doc.Extra["MultiBurst"].(map[string]any)["mchirp"]) != "7.432e-09 H1,L1 29.8781" {
				t.Errorf("%.1000s", text)
			}
		}
	}
}

func gzipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.String()
}

// Files that are not understood are events all the same, with a warning or without,
// and with neither an alert nor labels where there is "No alert issued".
func TestFilesThatAreNotUnderstood(t *testing.T) {
	const noAlert = "Problem scanning data. No alert issued ("
	cwb := string(samples.CWB(3))
	for _, tt := range []struct {
		pipeline, filename, data string
		warning                  string
		read                     bool // has a time
	}{
		{"gstlal", "coinc.xml", Readable, "", true},
		{"gstlal", "coinc.xml.gz", Readable, "", true},
		{"gstlal", "coinc.xml", gzipped(Readable), "", true},
		{"gstlal", "coinc.xml", gzipped(Readable)[:200], noAlert + "cannot unpack non-iterable NoneType object)", false},
		{"gstlal", "coinc.xml", "<x/>", noAlert + "cannot unpack non-iterable NoneType object)", false},
		{"gstlal", "coinc.xml", "text", noAlert + "cannot unpack non-iterable NoneType object)", false},
		{"pycbc", "coinc.xml", "<LIGO_LW></LIGO_LW>", "Could not extract coinc inspiral table.", false},
		{"spiir", "coinc.xml", strings.Replace(Readable, "coinc_event:", "other:", 2), "Could not extract coinc event table.", true},
		{"MBTA", "coinc.xml", Readable, "", true},
		{"MBTA", "initial.data", Readable, "", false},
		{"sgnl", "coinc.xml", "<x/>", "", false},
		{"CWB", "trigger.txt", "no keys", "", true},
		{"CWB", "trigger.txt", strings.Replace(cwb, "event_time", "other", 1), "", true},
		{"CWB", "trigger.txt", "far: x\nevent_time: 1\n", noAlert + "could not convert string to float: 'x')", false},
		{"CWB", "trigger.txt", "\xff", noAlert + "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte)", false},
		{"aframe", "event.json", "{", noAlert + "Expecting value", false},
		{"MLy", "event.json", `{"gpstime": 1}`, noAlert + "null value", false},
		{"MLy", "event.json", `{"gpstime": 1, "ifos": ["H1", "L1"]}`, "", true},
		{"oLIB", "event.json", `{"gpstime": 1}`, noAlert + "'instruments')", false},
		{"Fermi", "v.xml", "<x/>", noAlert, false},
		{"HardwareInjection", "i.json", `{"gpstime": 1}`, "", true},
	} {
		t.Run(tt.pipeline+" "+tt.filename, func(t *testing.T) {
			c := start(t, Config{Pipelines: []string{tt.pipeline}})
			status, doc, text := c.create("group", "CBC", "pipeline", tt.pipeline, "labels", "INJ", "eventFile/"+tt.filename, tt.data)
			said := strings.Join(doc.Warnings, "; ")
			if status != 201 || !strings.HasPrefix(said, tt.warning) || (said == "") != (tt.warning == "") || (doc.GPSTime != nil) != tt.read {
				t.Errorf("%d %s", status, text)
			}
			if strings.HasPrefix(said, noAlert) == (len(doc.Labels) == 1) {
				t.Errorf("labels %q with %q", doc.Labels, said)
			}
		})
	}
	// A file of old, as it is taken for one, has its rate elsewhere: none, here.
	c := start(t, Config{})
	if _, doc, text := c.create("group", "Burst", "pipeline", "CWB", "eventFile/t.txt", strings.Replace(cwb, "event_time", "other", 1)); doc.FAR == nil || *doc.FAR != 1 {
		t.Error(text)
	}
	// A rate that JSON cannot carry: the event is there, and cannot be told.
	if status, _, text := c.create("group", "Burst", "pipeline", "CWB", "eventFile/t.txt", "far: nan\nevent_time: 1\n"); status != 500 || len(c.s.Events()) != 2 {
		t.Errorf("%d %s", status, text)
	}
	if resp, _ := c.do("GET", "/api/v2/events/G1002", "", ""); resp.StatusCode != 500 {
		t.Errorf("detail of a rate that is none: %d", resp.StatusCode)
	}
}

func TestAlertsAndLabels(t *testing.T) {
	c := start(t, Config{AlertsDown: true, Labels: []string{"INJ", "ADVOK", "ZLATER"}})
	_, doc, text := c.create("group", "CBC", "pipeline", "gstlal", "labels", "ZLATER", "labels", "ADVOK", "labels", "INJ", "eventFile/coinc.xml", Readable)
	want := "[Problem issuing an alert ([Errno 111] Connection refused) Problem scanning data. No alert issued (The 'ADVOK' label is managed as part of an" +
		" automated process and cannot be applied manually)]"
	if fmt.Sprint(doc.Warnings) != want || fmt.Sprint(doc.Labels) != "[INJ]" {
		t.Error(text)
	}
}

func TestNamesOfFiles(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		stored string
		says   string
	}{
		{"/a/b/coinc.xml", 201, "coinc.xml", ""},
		{"a&amp;b.xml", 201, "a&b.xml", ""},
		{"x&#47;y.xml", 201, "y.xml", ""},
		{"a\u200bb\u00a0c d.xml", 201, "abc d.xml", ""},
		{"a%22b%0A.xml", 201, "a%22b%0A.xml", ""},
		{"a,b.xml", 400, "", `{"warnings":["Problem creating event (versioned file name cannot contain a ',')"]}`},
		{strings.Repeat("ü", 96) + ".xml", 201, strings.Repeat("ü", 96) + ".xml", ""},
		{strings.Repeat("ü", 97) + ".xml", 201, strings.Repeat("ü", 97) + ".xml", "No alert issued ({'filename': ['Ensure this value has at most 100 characters (it has 101).']})"},
		{strings.Repeat("a", 249) + ".xml", 201, strings.Repeat("a", 249) + ".xml", "No alert issued"},
		{strings.Repeat("a", 250) + ".xml", 400, "", "File name too long"},
	} {
		c := start(t, Config{})
		status, doc, text := c.create("group", "CBC", "pipeline", "gstlal", "eventFile/"+tt.name, Readable)
		if status != tt.status || !strings.Contains(text, tt.says) {
			t.Errorf("%q: %d %.600s", tt.name, status, text)
			continue
		}
		if events := c.s.Events(); status == 201 && events[0].Filename != tt.stored || status != 201 && len(events) != 0 {
			t.Errorf("%q: stored as %+v", tt.name, events)
		}
		if status == 201 && (doc.GPSTime == nil) != strings.Contains(text, "No alert") {
			t.Errorf("%q: %.600s", tt.name, text)
		}
	}
	c := start(t, Config{})
	c.create("group", "CBC", "pipeline", "gstlal", "eventFile/a,b", Readable)
	if _, doc, _ := c.create("group", "CBC", "pipeline", "gstlal", "eventFile/a", Readable); doc.GraceID != "G1002" {
		t.Errorf("%s after an event that was undone", doc.GraceID)
	}
}

// Of fields that come twice the last counts, of letters the first that fits.
func TestLastFieldAndFirstLetter(t *testing.T) {
	for _, tt := range []struct{ fields, want string }{
		{"group CBC pipeline gstlal", "G"},
		{"group Test pipeline HardwareInjection search MDC", "T"},
		{"group External pipeline HardwareInjection search MDC", "M"},
		{"group External pipeline HardwareInjection", "H"},
		{"group External pipeline Fermi", "E"},
		{"group CBC group Test pipeline gstlal", "T"},
	} {
		c := start(t, Config{})
		_, doc, text := c.create(append(strings.Fields(tt.fields), "eventFile/first", "1", "eventFile/last", "2")...)
		if doc.GraceID != tt.want+"1001" || c.s.Events()[0].Filename != "last" {
			t.Errorf("%s: %s", tt.fields, text)
		}
	}
	c := start(t, Config{Disabled: []string{"gstlal"}})
	if status, _, text := c.create("group", "CBC", "pipeline", "gstlal", "search", "MDC", "eventFile/a", Readable); status != 201 {
		t.Errorf("an MDC event of a pipeline that is disabled: %d %s", status, text)
	}
}

// Bodies that are not what a client of HTTP's usual kind sends.
func TestBodies(t *testing.T) {
	c := start(t, Config{})
	ct, body := parts("group", "CBC", "pipeline", "gstlal", "eventFile/coinc.xml", Readable)
	for _, tt := range []struct {
		name, ct, body string
		status         int
		says           string
	}{
		{"cut", ct, body[:len(body)-30], 400, `{"errors":["eventFile: * This field is required."]}`},
		{"no boundary", "multipart/form-data", body, 400, `{"detail":"Multipart form parse error - Invalid boundary in multipart: None"}`},
	} {
		if resp, got := c.do("POST", "/api/v2/events/", tt.ct, tt.body); resp.StatusCode != tt.status || got != tt.says {
			t.Errorf("%s: %d %s", tt.name, resp.StatusCode, got)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", c.s.URL()+"v2/events/", io.MultiReader(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", ct)
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 500 || len(c.s.Events()) != 0 {
		t.Errorf("chunked: %d", resp.StatusCode)
	}
}

func TestRootIsReadable(t *testing.T) {
	c := start(t, Config{Inactive: []string{"gone"}})
	for _, token := range []string{"", "bad"} {
		c.token = token
		if resp, _ := c.do("GET", "/api/v2/", "", ""); resp.StatusCode != 200 {
			t.Errorf("token %q: %d", token, resp.StatusCode)
		}
	}
	c.token, _ = c.s.Token(testauth.Claims{Subject: "gone"})
	if resp, got := c.do("GET", "/api/v2/", "", ""); resp.StatusCode != 403 || !strings.Contains(got, "User inactive or deleted") {
		t.Errorf("inactive: %d %s", resp.StatusCode, got)
	}
}

func TestHeadersAndForms(t *testing.T) {
	c := start(t, Config{})
	resp, got := c.do("GET", "/api/v2/events/G9999", "", "")
	if resp.StatusCode != 404 || got != "Event not found." || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %s %v", resp.StatusCode, got, resp.Header)
	}
	resp, _ = c.do("POST", "/api/v2/events", "", "")
	if resp.StatusCode != 301 || resp.Header.Get("Location") != "/api/v2/events/" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	resp, got = c.do("DELETE", "/api/v2/events/", "", "")
	if resp.StatusCode != 405 || got != `{"detail":"Method \"DELETE\" not allowed."}` || resp.Header.Get("Allow") != "GET, POST, HEAD, OPTIONS" ||
		resp.Header.Get("Vary") != "Accept, Cookie" {
		t.Errorf("%d %s %v", resp.StatusCode, got, resp.Header)
	}
	_, _, text := c.create("group", "CBC", "pipeline", "gstlal", "replay_id", "r", "eventFile/coinc.xml", Readable)
	for _, member := range []string{"replay_id", "superevent_neighbours"} {
		if strings.Contains(text, member) {
			t.Errorf("the answer has %s: %s", member, text)
		}
	}
	for _, member := range []string{`"neighbors":`, `"emobservations":`, `"reporting_latency":`, `"processing_status":"uploaded"`, `"warnings":[]`} {
		if !strings.Contains(text, member) {
			t.Errorf("the answer has no %s: %s", member, text)
		}
	}
}

func TestPages(t *testing.T) {
	c := start(t, Config{})
	for range 25 {
		c.create("group", "Test", "pipeline", "CWB", "eventFile/t.txt", "x")
	}
	var ids []string
	pages := 0
	for next := "/api/v2/events/"; next != ""; pages++ {
		resp, got := c.do("GET", next, "", "")
		var doc struct {
			NumRows int
			Events  []struct{ GraceID string }
			Links   map[string]string
		}
		if err := json.Unmarshal([]byte(got), &doc); err != nil || doc.NumRows != 25 || !strings.Contains(resp.Header.Get("Cache-Control"), "no-store") {
			t.Fatalf("%v %s", err, got)
		}
		if doc.Links["first"] == "" || doc.Links["last"] == "" || (doc.Links["previous"] == "") != (pages == 0) {
			t.Errorf("links of page %d: %v", pages, doc.Links)
		}
		for _, e := range doc.Events {
			ids = append(ids, e.GraceID)
		}
		next = strings.TrimPrefix(doc.Links["next"], strings.TrimSuffix(c.s.URL(), "/api/"))
	}
	if pages != 3 || len(ids) != 25 || ids[0] != "T1025" || ids[24] != "T1001" {
		t.Errorf("%d pages: %q", pages, ids)
	}
	if resp, got := c.do("GET", "/api/v2/events/?count=3&start=24", "", ""); resp.StatusCode != 200 || strings.Count(got, `"graceid"`) != 1 || strings.Contains(got, `"next"`) {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

// Labels, log and files, of an event that is only reserved.
func TestAnnotations(t *testing.T) {
	c := start(t, Config{})
	c.do("POST", "/api/v2/events/reserve/", formType, "group=Test&pipeline=gstlal")
	const event = "/api/v2/events/T1001/"
	upload := func(name string) (string, string) {
		return parts("comment", "c", "tagname", "a", "tagname", "b", "upload/"+name, "data")
	}
	ct, body := upload("skymap.fits")
	for _, tt := range []struct {
		method, path, ct, body string
		status                 int
		says                   string
	}{
		{"PUT", "labels/INJ", "", "", 201, `"{}"`},
		{"PUT", "labels/INJ", "", "", 200, "already labeled with 'INJ'"},
		{"PUT", "labels/NOPE", "", "", 400, `"No such Label 'NOPE'"`},
		{"PUT", "labels/ADVOK", "", "", 400, "cannot be applied manually"},
		{"GET", "labels/", "", "", 200, `"name":"INJ"`},
		{"GET", "labels/INJ", "", "", 200, `"name":"INJ"`},
		{"GET", "labels/DQV", "", "", 404, "Label DQV Not Found"},
		{"DELETE", "labels/INJ", "", "", 204, ""},
		{"DELETE", "labels/INJ", "", "", 404, "No label 'INJ' associated with event T1001"},
		{"POST", "log/", "application/json", `{"comment": "hello", "tagname": "pe", "label": "DQV"}`, 201, `"tag_names":["pe"]`},
		{"POST", "log/", "application/json", `{"comment": "again", "label": "NOPE"}`, 400, "No such Label"},
		{"POST", "log/", ct, body, 201, `"file_version":0`},
		{"GET", "log/", "", "", 200, `"comment":"again"`},
		{"GET", "log/1", "", "", 200, `"comment":"Label: INJ"`},
		{"GET", "log/99", "", "", 404, "Log does not exist."},
		{"PUT", "files/skymap.fits", ct, body, 201, "permalink"},
		{"GET", "files/", "", "", 200, "skymap.fits,1"},
		{"GET", "files/skymap.fits", "", "", 200, "data"},
		{"GET", "files/skymap.fits,0", "", "", 200, "data"},
		{"GET", "files/skymap.fits,2", "", "", 404, ""},
		{"GET", "files/other", "", "", 404, ""},
		{"GET", "neighbors/", "", "", 200, `"neighbors":[]`},
		{"GET", "nothing/", "", "", 404, ""},
	} {
		if resp, got := c.do(tt.method, event+tt.path, tt.ct, tt.body); resp.StatusCode != tt.status || !strings.Contains(got, tt.says) {
			t.Errorf("%s %s %s: %d %s", tt.method, tt.path, tt.body, resp.StatusCode, got)
		}
	}
	ct, body = parts("eventFile/coinc.xml", Readable)
	if resp, got := c.do("PUT", strings.TrimSuffix(event, "/"), ct, body); resp.StatusCode != 202 || got != "" {
		t.Errorf("replaced: %d %s", resp.StatusCode, got)
	}
	c.token, _ = c.s.Token(testauth.Claims{Subject: "bob"})
	if resp, got := c.do("PUT", strings.TrimSuffix(event, "/"), ct, body); resp.StatusCode != 403 || got != "You did not create this event. You (bob) Them (alice)" {
		t.Errorf("replaced by another: %d %s", resp.StatusCode, got)
	}
	if _, got := c.do("GET", "/api/v2/events/G1001", "", ""); !strings.Contains(got, `"gpstime":1400000000.5`) {
		t.Errorf("by another letter: %s", got)
	}
}

func TestSuperusersAreNotThrottled(t *testing.T) {
	c := start(t, Config{Rate: 1, Superusers: []string{"alice"}})
	for range 3 {
		if resp, got := c.do("POST", "/api/v2/events/reserve/", formType, "group=Test&pipeline=gstlal"); resp.StatusCode != 201 {
			t.Errorf("%d %s", resp.StatusCode, got)
		}
	}
	c.token, _ = c.s.Token(testauth.Claims{Subject: "bob"})
	c.do("POST", "/api/v2/events/reserve/", formType, "group=Test&pipeline=gstlal")
	resp, got := c.do("POST", "/api/v2/events/reserve/", formType, "group=Test&pipeline=gstlal")
	if resp.StatusCode == 429 && got != `{"detail":"Request was throttled. Expected available in 1 second."}` {
		t.Error(got)
	}
}

func TestGPSTime(t *testing.T) {
	if got := gpsTime(time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)); got != 1480032018 {
		t.Errorf("%.0f", got)
	}
}
