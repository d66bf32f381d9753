package gracedb_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

func TestCreateEvent(t *testing.T) {
	s := newService(t, gracetest.Config{
		Warnings: func(gracetest.Event) []string { return []string{"Problem scanning data.\x1b[31m No alert issued"} },
	}, nil)
	e := event()
	e.Offline, e.ReplayID, e.Filename = true, "r_2", "/data/run 1/coinc.xml"
	r, err := s.Client.CreateEvent(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if r.Timing.Upload <= 0 {
		t.Errorf("Timing.Upload = %v, want more than 0", r.Timing.Upload)
	}
	r.Timing = gracedb.Timing{}
	want := gracedb.Receipt{GraceID: "G1001", Submitter: "alice", Warnings: []string{"Problem scanning data.[31m No alert issued"}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("receipt (-want +got):\n%s", diff)
	}
	got := s.Events()
	if len(got) != 1 {
		t.Fatalf("%d events on the server, want 1", len(got))
	}
	got[0].Created = time.Time{}
	if diff := cmp.Diff(gracetest.Event{
		GraceID: "G1001", Submitter: "alice", Group: "CBC", Pipeline: "gstlal", Search: "AllSky", ReplayID: "r_2",
		ContentID: "e3523d90-1de1-cf71-07c3-c3cf24d98f29", Uploaded: true, Uploader: "alice", Offline: true,
		Labels: []string{"INJ", "DQV"}, Filename: "coinc.xml", ContentType: "application/xml", Data: e.Data,
	}, got[0]); diff != "" {
		t.Errorf("event on the server (-want +got):\n%s", diff)
	}
}

func TestReserveAndUpload(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	e := event()
	e.Group = "Test"
	res, err := s.Client.Reserve(t.Context(), e)
	if want := (gracedb.Reservation{GraceID: "T1001", Submitter: "alice"}); err != nil || res != want {
		t.Fatalf("Reserve = %+v, %v, want %+v", res, err, want)
	}
	if len(s.Events()) != 0 {
		t.Fatal("the reservation made an event")
	}
	r, err := s.Client.UploadReservedEvent(t.Context(), res.GraceID, e, gracedb.Provenance{KafkaServer: "k", KafkaTopic: "x.test"})
	if err != nil || r.GraceID != "T1001" || r.Submitter != "alice" {
		t.Fatalf("UploadReservedEvent = %+v, %v", r, err)
	}
	got := s.Events()
	if len(got) != 1 || got[0].KafkaServer != "k" || got[0].KafkaTopic != "x.test" || !bytes.Equal(got[0].Data, e.Data) {
		t.Errorf("events on the server: %+v", got)
	}
	// A second upload to the same graceid is no success: nothing went unanswered.
	_, err = s.Client.UploadReservedEvent(t.Context(), res.GraceID, e, gracedb.Provenance{})
	if status, ok := errors.AsType[*gracedb.StatusError](err); !ok || status.StatusCode != 409 || status.Attempts != 1 {
		t.Errorf("second upload: %v, want a StatusError of 409 after one attempt", err)
	}
	if errors.Is(err, gracedb.ErrOutcomeUnknown) {
		t.Errorf("%v is ErrOutcomeUnknown", err)
	}
}

func TestServiceInfo(t *testing.T) {
	s := newService(t, gracetest.Config{Groups: []string{"CBC", "Test"}}, nil)
	info, err := s.Client.ServiceInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CBC", "Test"}, info.Groups); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if info.ServerVersion != "gracetest" || info.Links["events"] != s.URL()+"v2/events/" ||
		info.Templates["event-upload-template"] != s.URL()+"v2/events/{graceid}/upload/" {
		t.Errorf("info = %+v", info)
	}
	info.Groups[0] = "changed by the caller"
	info.Links["events"] = "changed by the caller"
	if _, err := s.Client.CreateEvent(t.Context(), event()); err != nil {
		t.Errorf("after the caller changed its copy: %v", err)
	}
	if n := s.Count("root"); n != 1 {
		t.Errorf("%d requests for the root document, want 1", n)
	}
}

func TestNewClientConfig(t *testing.T) {
	dir := t.TempDir()
	notPEM := filepath.Join(dir, "not.pem")
	if err := os.WriteFile(notPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	const ok = "https://gracedb.ligo.org/api/"
	for _, tt := range []struct {
		name string
		cfg  gracedb.ClientConfig
		want string // in the error; "" means none
	}{
		{"plain", gracedb.ClientConfig{ServiceURL: ok}, ""},
		{"no slash", gracedb.ClientConfig{ServiceURL: "https://gracedb.ligo.org/api"}, ""},
		{"no path", gracedb.ClientConfig{ServiceURL: "https://gracedb.ligo.org"}, ""},
		{"port", gracedb.ClientConfig{ServiceURL: "https://gracedb.ligo.org:8443/api/"}, ""},
		{"IPv6", gracedb.ClientConfig{ServiceURL: "https://[2001:db8::1]/api/"}, ""},
		{"loopback http", gracedb.ClientConfig{ServiceURL: "http://127.0.0.1:5000/api"}, ""},
		{"loopback http name", gracedb.ClientConfig{ServiceURL: "http://LocalHost/api"}, ""},
		{"loopback http IPv6", gracedb.ClientConfig{ServiceURL: "http://[::1]:1/api"}, ""},
		{"version", gracedb.ClientConfig{ServiceURL: ok, APIVersion: "v1"}, ""},
		{"empty", gracedb.ClientConfig{}, "required"},
		{"relative", gracedb.ClientConfig{ServiceURL: "/api/"}, "no host"},
		{"host only", gracedb.ClientConfig{ServiceURL: "gracedb.ligo.org"}, "write https://"},
		{"ftp", gracedb.ClientConfig{ServiceURL: "ftp://gracedb.ligo.org/api/"}, "not https"},
		{"http", gracedb.ClientConfig{ServiceURL: "http://gracedb.ligo.org/api/"}, "use https"},
		{"http that looks local", gracedb.ClientConfig{ServiceURL: "http://127.0.0.1.evil.test/api/"}, "use https"},
		{"userinfo", gracedb.ClientConfig{ServiceURL: "https://user:hunter2@gracedb.ligo.org/api/"}, "user and password"},
		{"userinfo in no URL", gracedb.ClientConfig{ServiceURL: "https://user:hunter2@gracedb.ligo.org:port/"}, "not a URL"},
		{"query", gracedb.ClientConfig{ServiceURL: ok + "?x=1"}, "query"},
		{"fragment", gracedb.ClientConfig{ServiceURL: ok + "#x"}, "fragment"},
		{"bad version", gracedb.ClientConfig{ServiceURL: ok, APIVersion: "../v2"}, "APIVersion"},
		{"CA and HTTP", gracedb.ClientConfig{ServiceURL: ok, CAFile: notPEM, HTTP: &http.Client{}}, "at most one"},
		{"CA missing", gracedb.ClientConfig{ServiceURL: ok, CAFile: filepath.Join(dir, "none.pem")}, "none.pem: no such file"},
		{"CA no PEM", gracedb.ClientConfig{ServiceURL: ok, CAFile: notPEM}, "not.pem: no certificate"},
		{"CA directory", gracedb.ClientConfig{ServiceURL: ok, CAFile: dir}, "it is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Token = tokenIs("t")
			_, err := gracedb.NewClient(tt.cfg)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, gracedb.ErrConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want an ErrConfig with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestClientCAFile(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, s.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), CAFile: file, Token: tokenIs(s.Bearer)})
	if _, err := c.ServiceInfo(t.Context()); err != nil {
		t.Errorf("with the right authority: %v", err)
	}
	c = newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), Token: tokenIs(s.Bearer)})
	if _, err := c.ServiceInfo(t.Context()); !errors.Is(err, gracedb.ErrConnection) || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with the system's authorities: %v", err)
	}
}

func TestUserAgent(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	if _, err := s.Client.CreateEvent(t.Context(), event()); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Requests() {
		if got := r.Header.Get("User-Agent"); !strings.HasPrefix(got, "gracedb-go/") || strings.Contains(got, "gracedb-client") {
			t.Errorf("%s %s: User-Agent %q", r.Method, r.Path, got)
		}
	}
}
