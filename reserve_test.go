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
