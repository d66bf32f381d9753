package gracedbtest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/gracedbtest"
)

// Nothing stays behind once a test has ended.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A user is a Client and a Producer of services.
type user struct {
	*gracedbtest.Services
	client   *gracedb.Client
	producer *gracedb.Producer
}

func newUser(t *testing.T) user {
	t.Helper()
	s := gracedbtest.Start(t, gracedbtest.Config{Topics: []string{"test", "gstlal", "GstLAL"}})
	client, err := gracedb.NewClient(s.Client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.HTTPClient().CloseIdleConnections)
	producer, err := client.NewProducer(t.Context(), gracedb.ProducerConfig{
		Cluster: s.Cluster(), FlushTimeout: time.Second, AuthGrace: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = producer.Close() })
	return user{s, client, producer}
}

func (u user) publish(t *testing.T, opts gracedb.PublishOptions) (gracedb.Receipt, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return u.client.PublishEvent(ctx, u.producer, gracedb.Event{
		Group: "CBC", Pipeline: "gstlal", Labels: []string{"INJ"}, Filename: "coinc.xml", Data: []byte("<LIGO_LW/>"),
	}, opts)
}

// An event travels through Kafka and the supervisor to GraceDB.
func TestServices(t *testing.T) {
	u := newUser(t)
	receipt, err := u.publish(t, gracedb.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.client.WaitUploaded(t.Context(), receipt.GraceID); err != nil {
		t.Fatal(err)
	}
	events := u.Events()
	if len(events) != 1 || events[0].GraceID != receipt.GraceID || !events[0].Kafka || events[0].Pipeline != "gstlal" ||
		events[0].Group != "CBC" || string(events[0].Data) != "<LIGO_LW/>" {
		t.Errorf("%+v", events)
	}
	if ids := u.Reserved(); !slices.Equal(ids, []string{receipt.GraceID}) {
		t.Error(ids)
	}
	for _, topic := range []string{"gstlal", "localhost.gstlal"} {
		m := u.Messages(topic)
		if len(m) != 1 || m[0].Topic != "localhost.gstlal" {
			t.Fatal(m)
		}
		if up, err := m[0].Upload(); err != nil || up.GraceID != receipt.GraceID {
			t.Error(up, err)
		}
	}
	if m := u.Messages("test"); len(m) != 0 {
		t.Error(m)
	}
}

// Each fault shows as what it is, and not after Heal.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault gracedbtest.Fault
		opts  gracedb.PublishOptions
		meets func(*testing.T, user, gracedb.Receipt, error)
	}{
		{"token refused", gracedbtest.TokenRefused, gracedb.PublishOptions{HTTPFallback: true}, func(t *testing.T, u user, _ gracedb.Receipt, err error) {
			if se, ok := errors.AsType[*gracedb.StatusError](err); !ok || se.StatusCode != 403 || !errors.Is(err, gracedb.ErrAuthentication) {
				t.Error(err)
			}
			if err := u.producer.Check(t.Context()); !errors.Is(err, gracedb.ErrAuthentication) {
				t.Error(err)
			}
		}},
		{"broker away", gracedbtest.BrokerAway, gracedb.PublishOptions{HTTPFallback: true}, func(t *testing.T, u user, r gracedb.Receipt, err error) {
			if e := u.Events(); err != nil || r.Fallback == nil || len(e) != 1 || e[0].Kafka || len(u.Messages("gstlal")) != 0 {
				t.Error(err, r.Fallback, e)
			}
		}},
		{"reservation refused", gracedbtest.ReservationRefused, gracedb.PublishOptions{HTTPFallback: true}, func(t *testing.T, u user, r gracedb.Receipt, err error) {
			if e := u.Events(); err != nil || r.GraceID == "" || len(u.Reserved()) != 0 || len(e) != 1 {
				t.Error(err, r, e)
			}
			if _, err := u.publish(t, gracedb.PublishOptions{}); err == nil {
				t.Error("no error without the fallback")
			}
		}},
		{"acknowledgement lost", gracedbtest.AcknowledgementLost, gracedb.PublishOptions{}, func(t *testing.T, u user, _ gracedb.Receipt, err error) {
			if m := u.Messages("gstlal"); !errors.Is(err, gracedb.ErrOutcomeUnknown) || errors.Is(err, gracedb.ErrDelivery) || len(m) != 1 {
				t.Error(err, m)
			}
		}},
		{"created with warnings", gracedbtest.CreatedWithWarnings, gracedb.PublishOptions{}, func(t *testing.T, u user, _ gracedb.Receipt, err error) {
			if err != nil {
				t.Error(err)
			}
			r, err := u.client.CreateEvent(t.Context(), gracedb.Event{Group: "CBC", Pipeline: "gstlal", Filename: "x.xml", Data: []byte("<LIGO_LW/>")})
			if err != nil || !slices.ContainsFunc(r.Warnings, func(s string) bool { return s == "Problem issuing an alert ([Errno 111] Connection refused)" }) {
				t.Error(r.Warnings, err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUser(t)
			u.Inject(tt.fault)
			receipt, err := u.publish(t, tt.opts)
			tt.meets(t, u, receipt, err)
			u.Heal()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for err = u.producer.Check(ctx); err != nil && ctx.Err() == nil; err = u.producer.Check(ctx) {
				time.Sleep(50 * time.Millisecond)
			}
			receipt, err = u.publish(t, gracedb.PublishOptions{})
			if err != nil || receipt.Fallback != nil {
				t.Fatal(err, receipt.Fallback)
			}
			if err := u.client.WaitUploaded(ctx, receipt.GraceID); err != nil {
				t.Error(err)
			}
		})
	}
}
