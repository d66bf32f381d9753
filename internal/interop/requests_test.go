//go:build unix

package interop

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

// A request is what both sides must agree on. The graceid in it is replaced.
type request struct {
	Method, Path, Type string
	Fields             []field
}

type field struct{ Name, Value, Filename string }

// requestsOf returns what do has sent to the server, but for the reading of its
// root document.
func requestsOf(t *testing.T, s *setting, do func()) []request {
	t.Helper()
	before := len(s.grace.Requests())
	do()
	var out []request
	for _, r := range s.grace.Requests()[before:] {
		if r.Method == "GET" {
			continue
		}
		if r.Status/100 != 2 {
			t.Errorf("%s %s: status %d", r.Method, r.Path, r.Status)
		}
		if auth := r.Header.Get("Authorization"); auth != "Bearer <token>" {
			t.Errorf("%s %s: Authorization is %q", r.Method, r.Path, auth)
		}
		out = append(out, simplify(r))
	}
	return out
}

func simplify(r gracetest.Request) request {
	q := request{Method: r.Method, Path: r.Path, Type: r.ContentType}
	graceid := r.Value("graceid")
	if graceid == "" && strings.HasPrefix(path.Base(r.Path), "G") {
		graceid = path.Base(r.Path)
	}
	hide := func(text string) string {
		if graceid == "" {
			return text
		}
		return strings.ReplaceAll(text, graceid, "GRACEID")
	}
	q.Path = hide(q.Path)
	for _, f := range r.Fields {
		q.Fields = append(q.Fields, field{f.Name, hide(string(f.Data)), f.Filename})
	}
	return q
}

func TestRequestsOfBothSidesCarryTheSameFields(t *testing.T) {
	ctx, s := need(t)
	s.create(ctx, t, 1, "mbta")
	client, producer := s.client(t), s.producer(ctx, t, "")
	peer := s.peer(ctx, t)
	must(t, peer.Do(ctx, "open_client", Args{"service_url": s.grace.URL()}, nil))
	must(t, peer.Do(ctx, "client_producer", Args{"bootstrap_servers": s.kafka.Addrs()[0], "ca_cert_path": s.caFile(t)}, nil))

	plain := gracedb.Event{Group: "CBC", Pipeline: "MBTA", Filename: "coinc.xml", Data: []byte("<x/>\r\n\x00\xff")}
	full := plain
	full.Search, full.Labels, full.ReplayID, full.Offline = "AllSky", []string{"INJ", "DQV"}, "o4-7", true
	// No topic: what the reservation promised is uploaded over HTTP.
	fallback := full
	fallback.Pipeline = "MLy"

	kafka := func(e gracedb.Event) error {
		_, err := client.PublishEvent(ctx, producer, e, gracedb.PublishOptions{})
		return err
	}
	for _, tt := range []struct {
		name  string
		event gracedb.Event
		ours  func(gracedb.Event) error
		extra Args
		want  []string // the last parts of the paths
	}{
		{"reservation", plain, kafka, nil, []string{"reserve"}},
		{"reservation with everything", full, kafka, nil, []string{"reserve"}},
		{"fallback to an upload", fallback, func(e gracedb.Event) error {
			_, err := client.PublishEvent(ctx, producer, e, gracedb.PublishOptions{HTTPFallback: true})
			return err
		}, Args{"http_fallback": true}, []string{"reserve", "upload"}},
		{"plain creation", plain, func(e gracedb.Event) error {
			_, err := client.CreateEvent(ctx, e)
			return err
		}, Args{"kafka": false}, []string{"events"}},
		{"creation with everything", full, func(e gracedb.Event) error {
			_, err := client.CreateEvent(ctx, e)
			return err
		}, Args{"kafka": false}, []string{"events"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := Args{
				"group": tt.event.Group, "pipeline": tt.event.Pipeline, "filename": tt.event.Filename,
				"contents": tt.event.Data, "offline": tt.event.Offline,
			}
			if tt.event.Search != "" {
				args["search"], args["labels"], args["replay_id"] = tt.event.Search, tt.event.Labels, tt.event.ReplayID
			}
			maps.Copy(args, tt.extra)
			theirs := requestsOf(t, s, func() { must(t, peer.Do(ctx, "create_event", args, nil)) })
			ours := requestsOf(t, s, func() { must(t, tt.ours(tt.event)) })
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Errorf("(-Python +Go):\n%s", diff)
			}
			if len(theirs) != len(tt.want) {
				t.Fatalf("Python sent %d requests, want %q", len(theirs), tt.want)
			}
			for i, part := range tt.want {
				if !slices.Contains(strings.Split(theirs[i].Path, "/"), part) && !strings.Contains(theirs[i].Path, part) {
					t.Errorf("request %d went to %s, want %s", i, theirs[i].Path, part)
				}
			}
		})
	}
}
