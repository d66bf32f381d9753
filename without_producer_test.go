package gracedb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

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
