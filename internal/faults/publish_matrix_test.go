package faults_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

var updateMatrix = flag.Bool("update-matrix", false, "write testdata/publish_matrix.txt anew")

// A step is one way in which a step of PublishEvent goes.
type step struct {
	name  string
	fault *gracetest.Fault             // at the server, On being filled in
	setup func(*testing.T, *matrixRig) // anything else, once all is running
}

// A matrixRig is a rig and the call that is to be made.
type matrixRig struct {
	*testrig.Rig
	p     *gracedb.Producer
	event gracedb.Event
	opts  gracedb.PublishOptions
}

var reserveSteps = []step{
	{name: "ok"},
	{name: "answer lost once", fault: &gracetest.Fault{Drop: true}},
	{name: "answers lost", fault: &gracetest.Fault{Drop: true, Times: -1}},
	{name: "400", fault: &gracetest.Fault{Status: 400, Times: -1}},
	{name: "401", fault: &gracetest.Fault{Status: 401, Times: -1}},
	{name: "403", fault: &gracetest.Fault{Status: 403, Times: -1}},
	{name: "409", fault: &gracetest.Fault{Status: 409, Times: -1}},
	{name: "429, then ok", fault: &gracetest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}}},
	{name: "502", fault: &gracetest.Fault{Status: 502, Times: -1}},
	{name: "503", fault: &gracetest.Fault{Status: 503, Times: -1}},
	{name: "mute", fault: &gracetest.Fault{Think: time.Hour, Status: 500, Times: -1}},
	{name: "HTML", fault: &gracetest.Fault{Status: 200, Body: "<html>", Times: -1}},
}

var publishSteps = []step{
	{name: "ok"},
	{name: "no producer", setup: func(_ *testing.T, r *matrixRig) { r.p = nil }},
	{name: "closed", setup: func(t *testing.T, r *matrixRig) {
		if err := r.p.Close(); err != nil {
			t.Error(err)
		}
	}},
	{name: "no topic", setup: func(_ *testing.T, r *matrixRig) { r.opts.Topic = "nosuch" }},
	{name: "too large", setup: func(_ *testing.T, r *matrixRig) { r.event.Data = make([]byte, 100_000) }},
	{name: "token refused", setup: func(_ *testing.T, r *matrixRig) {
		r.Kafka.RefuseTokens(kafkatest.Refusal{})
		r.Kafka.Drop(kafkatest.RST)
		time.Sleep(time.Minute)
	}},
	{name: "refused by the broker", setup: func(_ *testing.T, r *matrixRig) {
		r.Kafka.Fail(produceRefused)
	}},
	{name: "lost", setup: func(_ *testing.T, r *matrixRig) { r.Kafka.LoseProduces(-1, kafkatest.DropRequest) }},
	{name: "acknowledgement lost", setup: func(_ *testing.T, r *matrixRig) { r.Kafka.LoseAcks(-1, kafkatest.DropResponse) }},
	{name: "acknowledgement lost, but uploaded", setup: func(t *testing.T, r *matrixRig) {
		r.Kafka.LoseAcks(-1, kafkatest.DropResponse)
		time.AfterFunc(5*time.Second, func() { r.superviseLog(t) })
	}},
}

var secondSteps = []step{
	{name: "ok"},
	{name: "400", fault: &gracetest.Fault{Status: 400, Times: -1}},
	{name: "403", fault: &gracetest.Fault{Status: 403, Times: -1}},
	{name: "409", fault: &gracetest.Fault{Status: 409, Times: -1}},
	{name: "500", fault: &gracetest.Fault{Status: 500, Times: -1}},
	{name: "answer lost once", fault: &gracetest.Fault{Drop: true}},
	{name: "answers lost", fault: &gracetest.Fault{Drop: true, Times: -1}},
	{name: "down", fault: &gracetest.Fault{Refuse: true, Times: -1}},
	{name: "HTML", fault: &gracetest.Fault{Status: 200, Body: "<html>", Times: -1}},
}

// produceRefused makes the broker refuse every message, for certain.
var produceRefused = kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed}

// superviseLog uploads what is in the log, as the supervisor would have done by now.
func (r *matrixRig) superviseLog(t *testing.T) {
	err := r.Supervise(t.Context(), func(yield func(gracedb.Message, error) bool) {
		for _, m := range r.Messages(t, "gstlal") {
			if !yield(m, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// Every way of reserving, publishing and falling back, with every option: what is
// sent, what is published, what the server has in the end, and what the caller is
// told. testdata/publish_matrix.txt states every cell; checkCell states what no
// cell may show. A step that is not reached in a cell may go in any way.
func TestPublishMatrix(t *testing.T) {
	given, anyStep := []step{{name: "given"}}, step{name: "any"}
	var got strings.Builder
	for _, o := range []struct {
		name            string
		opts            gracedb.PublishOptions
		reserve, second []step
	}{
		{"none", gracedb.PublishOptions{}, reserveSteps, secondSteps},
		{"PublishOnly", gracedb.PublishOptions{PublishOnly: true}, reserveSteps, secondSteps},
		{"Reservation", gracedb.PublishOptions{Reservation: &gracedb.Reservation{}}, given, secondSteps},
		{"Reservation, HTTPFallback", gracedb.PublishOptions{Reservation: &gracedb.Reservation{}, HTTPFallback: true}, given, secondSteps},
		{"HTTPFallback", gracedb.PublishOptions{HTTPFallback: true}, reserveSteps, secondSteps},
	} {
		for _, publish := range publishSteps {
			for i, reserve := range o.reserve {
				reserved := false
				for j, second := range o.second {
					sent, line := cell(t, o.opts, reserve, publish, second)
					if i == 0 && sent["reserve"] == 0 && o.reserve[0].name == "ok" {
						reserve = anyStep
					}
					if j == 0 && sent["upload"]+sent["create"] == 0 {
						second = anyStep
					}
					fmt.Fprintf(&got, "%s | reserve %s | publish %s | HTTP %s: %s\n", o.name, reserve.name, publish.name, second.name, line)
					reserved = sent["reserve"] > 0
					if second.name == anyStep.name {
						break
					}
				}
				if !reserved {
					break
				}
			}
		}
	}
	const golden = "../../testdata/publish_matrix.txt"
	if *updateMatrix {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("the matrix differs from %s (-want +got); if that is meant, run with -update-matrix:\n%s", golden, diff)
	}
}

// cell runs one cell. It returns how many requests of a kind were sent, and all
// that there is to say in one line.
func cell(t *testing.T, opts gracedb.PublishOptions, reserve, publish, second step) (sent map[string]int, line string) {
	name := fmt.Sprintf("%+v | %s | %s | %s", opts, reserve.name, publish.name, second.name)
	sent = map[string]int{}
	testrig.InRig(t, testrig.RigConfig{
		Producer: func(c *gracedb.ProducerConfig) { c.MaxMessageBytes, c.AuthGrace = 50_000, time.Second },
	}, func(t *testing.T, rig *testrig.Rig) {
		r := &matrixRig{rig, rig.Producer, testrig.Event(), opts}
		if opts.Reservation != nil {
			res, err := r.Client.Reserve(t.Context(), r.event)
			if err != nil {
				t.Fatal(err)
			}
			r.opts.Reservation = &res
		}
		before := len(r.Requests())
		for on, s := range map[string]step{"reserve": reserve, "upload": second, "create": second} {
			if s.fault != nil {
				f := *s.fault
				f.On = on
				r.Script(f)
			}
		}
		if publish.setup != nil {
			publish.setup(t, r)
		}
		start := time.Now()
		receipt, err := r.Client.PublishEvent(t.Context(), r.p, r.event, r.opts)
		took := time.Since(start)
		r.Heal()

		for _, q := range r.Requests()[before:] {
			if supervisor := q.Value("kafka_topic") != ""; !supervisor {
				sent[gracetest.KindOf(q)]++
			}
		}
		messages := r.Messages(t, "gstlal")
		line = fmt.Sprintf("sent %d reserve, %d upload, %d create; %d messages; %d events of %d graceids; %s",
			sent["reserve"], sent["upload"], sent["create"], len(messages), len(r.Events()), len(r.Reservations())+created(r),
			told(receipt, err, took))
		checkCell(t, name, r, receipt, err, messages)
	})
	return sent, line
}

// created counts the events that came without a reservation.
func created(r *matrixRig) (n int) {
	for _, e := range r.Events() {
		if !e.Reserved {
			n++
		}
	}
	return n
}

// checkCell is what must be true in every cell.
func checkCell(t *testing.T, name string, r *matrixRig, receipt gracedb.Receipt, err error, messages []gracedb.Message) {
	events := r.Events()
	// One event at most, unless the answer to a creation or a reservation was lost.
	if len(events) > 1 || len(messages) > 1 {
		t.Errorf("%s: %d events, %d messages", name, len(events), len(messages))
	}
	switch reserved, isReserved := errors.AsType[*gracedb.ReservedError](err); {
	case err == nil && !r.opts.PublishOnly:
		// Success: the event is on the server or on its way, under that graceid.
		found := false
		for _, e := range events {
			found = found || e.GraceID == receipt.GraceID
		}
		for _, m := range messages {
			found = found || string(m.Key) == receipt.GraceID
		}
		// The test's own 409 claims an upload that nobody made.
		if !found && !strings.HasSuffix(name, "| 409") {
			t.Errorf("%s: success with graceid %q, which is nowhere", name, receipt.GraceID)
		}
	case isReserved:
		// The graceid is the last that was reserved for this call.
		if all := r.Reservations(); len(all) == 0 || all[len(all)-1].GraceID != reserved.Reservation.GraceID {
			t.Errorf("%s: graceid %q is not what the server reserved", name, reserved.Reservation.GraceID)
		}
		if !errors.Is(err, gracedb.ErrOutcomeUnknown) && len(events)+len(messages) > 0 {
			t.Errorf("%s: %v: the graceid has data, which the error excludes", name, err)
		}
	case err != nil:
		// No ReservedError: nothing of the event is anywhere, or the error says that
		// it may be.
		if !errors.Is(err, gracedb.ErrOutcomeUnknown) && len(events)+len(messages) > 0 {
			t.Errorf("%s: %v, but there are %d events and %d messages", name, err, len(events), len(messages))
		}
	}
	if errors.Is(err, gracedb.ErrDelivery) && errors.Is(err, gracedb.ErrOutcomeUnknown) {
		t.Errorf("%s: %v is both ErrDelivery and ErrOutcomeUnknown", name, err)
	}
	if err != nil && strings.Contains(err.Error(), "\n") || err != nil && strings.Count(err.Error(), "gracedb: ") != 1 {
		t.Errorf("%s: %q", name, err)
	}
}

// told is what the caller gets to know, in one line.
func told(receipt gracedb.Receipt, err error, took time.Duration) string {
	after := fmt.Sprintf(" after %v", took.Round(100*time.Millisecond))
	if err == nil {
		way := "Kafka"
		if receipt.Message.Topic == "" {
			way = "HTTP"
		}
		s := fmt.Sprintf("success by %s, graceid %q", way, receipt.GraceID)
		if receipt.Fallback != nil {
			s += ", Fallback: " + kindsOf(receipt.Fallback)
		}
		return s + after
	}
	return "error: " + kindsOf(err) + after
}

// kindsOf lists what an error is.
func kindsOf(err error) string {
	var is []string
	if r, ok := errors.AsType[*gracedb.ReservedError](err); ok {
		is = append(is, "ReservedError "+r.Reservation.GraceID)
	}
	for _, k := range []struct {
		name string
		err  error
	}{
		{"ErrKafka", gracedb.ErrKafka},
		{"ErrDelivery", gracedb.ErrDelivery},
		{"ErrTooLarge", gracedb.ErrTooLarge},
		{"ErrOutcomeUnknown", gracedb.ErrOutcomeUnknown},
		{"ErrAuthentication", gracedb.ErrAuthentication},
		{"ErrConnection", gracedb.ErrConnection},
		{"ErrTopic", gracedb.ErrTopic},
		{"ErrClosed", gracedb.ErrClosed},
		{"ErrConfig", gracedb.ErrConfig},
		{"ErrEvent", gracedb.ErrEvent},
		{"Canceled", context.Canceled},
	} {
		if errors.Is(err, k.err) {
			is = append(is, k.name)
		}
	}
	if s, ok := errors.AsType[*gracedb.StatusError](err); ok {
		is = append(is, fmt.Sprintf("StatusError %d", s.StatusCode))
	}
	return strings.Join(is, ", ")
}
