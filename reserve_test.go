package gracedb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

func TestPublishEvent(t *testing.T) {
	r := newRig(t, rigConfig{})
	e := event()
	e.Offline, e.ReplayID, e.Filename = true, "r_1", "/a/b/coinc.xml"
	got, err := r.Client.PublishEvent(t.Context(), r.Producer, e, gracedb.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Timing.Reserve <= 0 || got.Timing.Encode <= 0 || got.Timing.Publish <= 0 || got.Timing.Upload != 0 {
		t.Errorf("Timing = %+v", got.Timing)
	}
	if got.GraceID != "G1001" || got.Submitter != "alice" || got.Fallback != nil {
		t.Errorf("receipt = %+v", got)
	}
	m := got.Message
	if m.Topic != "127.gstlal" || string(m.Key) != "G1001" || m.Value != nil || m.Offset != 0 || m.Time.IsZero() {
		t.Errorf("message of the receipt = %+v", m)
	}
	log := r.Messages(t, "gstlal")
	if len(log) != 1 || string(log[0].Key) != "G1001" {
		t.Fatalf("messages: %+v", log)
	}
	u, err := log[0].Upload()
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(u.Time) > time.Minute {
		t.Errorf("Time = %v", u.Time)
	}
	u.Time = time.Time{}
	if diff := gocmp.Diff(gracedb.Upload{
		Server: r.URL(), GraceID: "G1001", Submitter: "alice", Pipeline: "gstlal", Group: "CBC", Search: "AllSky",
		Labels: []string{"INJ", "DQV"}, Offline: true, ReplayID: "r_1", Filename: "coinc.xml", Data: e.Data,
		ContentID: contentIDOf(e.Data),
	}, u); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if r.Count("reserve") != 1 || r.Count("create")+r.Count("upload") != 0 {
		t.Errorf("%d reservations, %d creations, %d uploads", r.Count("reserve"), r.Count("create"), r.Count("upload"))
	}
}

func TestPublishOptions(t *testing.T) {
	for _, tt := range []struct {
		name     string
		edit     func(*gracedb.Event)
		opts     gracedb.PublishOptions
		topic    string // pipeline
		key      string
		reserved int
		check    func(*testing.T, gracedb.Upload)
	}{
		{name: "test group", edit: func(e *gracedb.Event) { e.Group = "Test" }, topic: "test", key: "T1001", reserved: 1},
		{name: "lowered", edit: func(e *gracedb.Event) { e.Pipeline = "MLy" }, topic: "mly", key: "G1001", reserved: 1},
		{name: "topic", opts: gracedb.PublishOptions{Topic: "test"}, topic: "test", key: "G1001", reserved: 1},
		{name: "full topic", opts: gracedb.PublishOptions{Topic: "127.mly"}, topic: "mly", key: "G1001", reserved: 1},
		{name: "publish only", opts: gracedb.PublishOptions{PublishOnly: true}, topic: "gstlal", key: contentIDOf(event().Data), check: func(t *testing.T, u gracedb.Upload) {
			if !u.PublishOnly || u.GraceID != "" || u.Submitter != "" || u.Search != "AllSky" {
				t.Errorf("%+v", u)
			}
		}},
		{name: "skip supervisor", opts: gracedb.PublishOptions{SkipSupervisor: true}, topic: "gstlal", key: "G1001", reserved: 1, check: func(t *testing.T, u gracedb.Upload) {
			if !u.SkipSupervisor {
				t.Errorf("%+v", u)
			}
		}},
		{name: "reservation", opts: gracedb.PublishOptions{Reservation: &gracedb.Reservation{GraceID: "G42", Submitter: "bob"}}, topic: "gstlal", key: "G42", check: func(t *testing.T, u gracedb.Upload) {
			if u.GraceID != "G42" || u.Submitter != "bob" {
				t.Errorf("%+v", u)
			}
		}},
		{name: "fallback not needed", opts: gracedb.PublishOptions{HTTPFallback: true}, topic: "gstlal", key: "G1001", reserved: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, rigConfig{})
			e := event()
			if tt.edit != nil {
				tt.edit(&e)
			}
			got, err := r.Client.PublishEvent(t.Context(), r.Producer, e, tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if (got.GraceID == tt.key) == tt.opts.PublishOnly || got.Fallback != nil || got.Message.Topic != "127."+tt.topic {
				t.Errorf("receipt = %+v", got)
			}
			log := r.Messages(t, tt.topic)
			if len(log) != 1 || string(log[0].Key) != tt.key {
				t.Fatalf("messages: %+v", log)
			}
			u, err := log[0].Upload()
			if err != nil || !bytes.Equal(u.Data, e.Data) {
				t.Errorf("%+v, %v", u, err)
			}
			if tt.check != nil {
				tt.check(t, u)
			}
			if n := r.Count("reserve"); n != tt.reserved || r.Count("create")+r.Count("upload") != 0 {
				t.Errorf("%d reservations, %d creations, %d uploads", n, r.Count("create"), r.Count("upload"))
			}
		})
	}
}

// What cannot work whatever the event is, is told before anything is sent.
func TestPublishConfig(t *testing.T) {
	r := newRig(t, rigConfig{})
	other, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{
		Cluster: gracedb.Cluster{Brokers: r.Kafka.Addrs(), Instance: "gracedb-dev", Token: tokenIs(r.Bearer)}, Lazy: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	for _, tt := range []struct {
		name string
		p    *gracedb.Producer
		opts gracedb.PublishOptions
		want string
	}{
		{"only and fallback", r.Producer, gracedb.PublishOptions{PublishOnly: true, HTTPFallback: true}, "PublishOnly excludes HTTPFallback"},
		{"only and reservation", r.Producer, gracedb.PublishOptions{PublishOnly: true, Reservation: &gracedb.Reservation{GraceID: "G1"}}, "PublishOnly excludes Reservation"},
		{"no producer", nil, gracedb.PublishOptions{}, "Producer is required"},
		{"no producer, only", nil, gracedb.PublishOptions{PublishOnly: true}, "Producer is required"},
		{"instance", other, gracedb.PublishOptions{}, `instance "gracedb-dev", the Client for "127"`},
		{"instance and fallback", other, gracedb.PublishOptions{HTTPFallback: true}, `instance "gracedb-dev"`},
	} {
		_, err := r.Client.PublishEvent(t.Context(), tt.p, event(), tt.opts)
		if !errors.Is(err, gracedb.ErrConfig) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an ErrConfig that says %q", tt.name, err, tt.want)
		}
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// The whole way: the supervisor consumes what was published, and GraceDB has it.
func TestSupervisor(t *testing.T) {
	r := newRig(t, rigConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cluster := gracedb.Cluster{Brokers: r.Kafka.Addrs(), ServiceURL: r.URL(), CAFile: r.Kafka.CAFile(), Token: tokenIs(r.Bearer)}
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"gstlal", "test"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	done := make(chan error, 1)
	go func() { done <- r.Supervise(ctx, c.Stream(ctx)) }()

	if _, err := r.Producer.Ping(ctx, "gstlal"); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	for i, opts := range []gracedb.PublishOptions{{}, {SkipSupervisor: true}, {PublishOnly: true}, {}} {
		e := event()
		e.Data = fmt.Appendf(e.Data, "<!-- %d -->", i)
		got, err := r.Client.PublishEvent(ctx, r.Producer, e, opts)
		if err != nil {
			t.Fatal(err)
		}
		if opts == (gracedb.PublishOptions{}) {
			want[got.GraceID] = e.Data
		}
	}
	for deadline := time.Now().Add(10 * time.Second); len(r.Events()) < len(want) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("supervisor: %v", err)
	}
	got := map[string][]byte{}
	for _, e := range r.Events() {
		got[e.GraceID] = e.Data
		if e.Uploader != "supervisor" || e.KafkaTopic != "127.gstlal" || !slices.Equal(e.Labels, []string{"INJ", "DQV"}) {
			t.Errorf("event %+v", e)
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// A program that starts while brokers are away publishes over HTTP, and the receipt
// says what was wrong with them.
func TestPublishWithoutProducer(t *testing.T) {
	s := newService(t, gracetest.Config{}, nil)
	publish := func(want ...string) error {
		t.Helper()
		got, err := s.Client.PublishEvent(t.Context(), nil, event(), gracedb.PublishOptions{HTTPFallback: true})
		if err != nil {
			t.Fatal(err)
		}
		if got.GraceID == "" || got.Message.Topic != "" || s.Count("create") != 0 {
			t.Errorf("receipt %+v, %d plain creates", got, s.Count("create"))
		}
		wantErr(t, got.Fallback, kinds(gracedb.ErrDelivery), kinds(gracedb.ErrConfig), want...)
		return got.Fallback
	}
	publish("no Producer was given")

	away := gracedb.Cluster{Brokers: []string{"localhost:1"}}
	_, err := s.Client.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: away})
	wantErr(t, err, kinds(gracedb.ErrConnection), nil, "localhost:1", "refused")
	fallback := publish("no Producer was given", "localhost:1", "refused")
	if !errors.Is(fallback, gracedb.ErrConnection) || !errors.Is(fallback, err) {
		t.Errorf("Fallback %v is not what NewProducer failed with", fallback)
	}

	// A mistake in the configuration loses no event either.
	_, err = s.Client.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: gracedb.Cluster{Brokers: []string{"localhost"}}})
	wantErr(t, err, kinds(gracedb.ErrConfig), nil)
	publish("no Producer was given", "host:port")

	// It is forgotten when there is a Producer.
	lazy, err := s.Client.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: away, Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lazy.Close() }()
	if text := publish("no Producer was given").Error(); strings.Contains(text, "host:port") {
		t.Error(text)
	}

	// A Producer that is lazy tells as much.
	got, err := s.Client.PublishEvent(t.Context(), lazy, event(), gracedb.PublishOptions{HTTPFallback: true})
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, got.Fallback, kinds(gracedb.ErrDelivery, gracedb.ErrConnection), nil, "localhost:1", "refused")
}

// WaitUploaded returns when the server has the event's data, and no sooner.
func TestWaitUploaded(t *testing.T) {
	const reserved = `{"graceid": "G1001", "processing_status": "reserved"}`
	for _, tt := range []struct {
		name   string
		before gracetest.Fault // the answers while the data are not there
		after  string
	}{
		{"as the newest servers say it", gracetest.Fault{Status: 200, Body: reserved}, `{"graceid": "G1001", "processing_status": "uploaded"}`},
		{"a server without the member", gracetest.Fault{Status: 404, Body: "Event not found."}, `{"graceid": "G1001"}`},
		{"a member that says nothing", gracetest.Fault{Status: 200, Body: reserved}, `{"graceid": "G1001", "processing_status": null}`},
		{"in between", gracetest.Fault{Status: 502}, `{"graceid": "G1001", "far": NaN, "processing_status": "uploaded"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *service) {
				tt.before.On, tt.before.Times = "event", 4
				s.Script(tt.before, gracetest.Fault{On: "event", Status: 200, Body: tt.after})
				start := time.Now()
				if err := s.Client.WaitUploaded(t.Context(), "G1001"); err != nil {
					t.Fatal(err)
				}
				d := time.Since(start)
				if n := s.Count("event"); n != 5 || d < 1400*time.Millisecond || d > 3*time.Second {
					t.Errorf("%d requests in %v, want 5", n, d)
				}
			})
		})
	}
	t.Run("at once", func(t *testing.T) {
		inBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *service) {
			r, err := s.Client.CreateEvent(t.Context(), event())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := s.Client.WaitUploaded(t.Context(), r.GraceID); err != nil || time.Since(start) != 0 {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("by the supervisor", func(t *testing.T) {
		inBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *service) {
			r, err := s.Client.Reserve(t.Context(), event())
			if err != nil {
				t.Fatal(err)
			}
			uploaded := make(chan error, 1)
			time.AfterFunc(10*time.Second, func() {
				_, err := s.Client.UploadReservedEvent(t.Context(), r.GraceID, event(), gracedb.Provenance{})
				uploaded <- err
			})
			start := time.Now()
			if err := s.Client.WaitUploaded(t.Context(), r.GraceID); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d < 10*time.Second || d > 12*time.Second {
				t.Errorf("returned after %v, want it within 2s after 10s", d)
			}
			if err := <-uploaded; err != nil {
				t.Error(err)
			}
		})
	})
}

func TestWaitUploadedFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		id    string
		fault gracetest.Fault
		limit time.Duration
		took  time.Duration
		says  string
		kind  error
	}{
		{"never uploaded", "G1001", gracetest.Fault{Status: 200, Body: `{"graceid": "G1001", "processing_status": "reserved"}`}, time.Minute, time.Minute, `waiting for the data of G1001: its processing_status is "reserved": context deadline exceeded`, context.DeadlineExceeded},
		{"never known", "G1001", gracetest.Fault{Status: 404}, 4 * time.Second, 4 * time.Second, "GraceDB does not know it", context.DeadlineExceeded},
		{"mute", "G1001", gracetest.Fault{Think: time.Hour}, 3 * time.Second, 3 * time.Second, "context deadline exceeded", context.DeadlineExceeded},
		{"not allowed", "G1001", gracetest.Fault{Status: 403}, time.Minute, 0, "403 Forbidden", gracedb.ErrAuthentication},
		{"another event", "G1001", gracetest.Fault{Status: 200, Body: `{"graceid": "G1002", "processing_status": "uploaded"}`}, time.Minute, 0, "is not about G1001", nil},
		{"no event", "G1001", gracetest.Fault{Status: 200, Body: `[]`}, time.Minute, 0, "not a JSON object", nil},
		{"no graceid", "../x", gracetest.Fault{}, time.Minute, 0, "is not a graceid", gracedb.ErrEvent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *service) {
				tt.fault.On, tt.fault.Times = "event", -1
				s.Script(tt.fault)
				ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
				defer cancel()
				start := time.Now()
				err := s.Client.WaitUploaded(ctx, tt.id)
				if err == nil || !strings.Contains(err.Error(), tt.says) || tt.kind != nil && !errors.Is(err, tt.kind) {
					t.Errorf("%v, want %v that says %q", err, tt.kind, tt.says)
				}
				if d := time.Since(start); d != tt.took {
					t.Errorf("returned after %v, want %v", d, tt.took)
				}
			})
		})
	}
}

// The event's URL is the server's to say; one that says none has it below "events".
func TestWaitUploadedWithoutTemplate(t *testing.T) {
	edit := func(doc map[string]any) { delete(doc["templates"].(map[string]string), "event-detail-template") }
	inBubble(t, gracetest.Config{EditRoot: edit}, nil, func(t *testing.T, s *service) {
		r, err := s.Client.CreateEvent(t.Context(), event())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Client.WaitUploaded(t.Context(), r.GraceID); err != nil || s.Count("event") != 1 {
			t.Errorf("%v, %d requests", err, s.Count("event"))
		}
	})
}
