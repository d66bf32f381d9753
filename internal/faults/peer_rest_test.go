package faults_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// What ligo-gracedb 2.16.1 makes of an answer to the reservation, and what we do,
// without and with HTTPFallback. "sends" counts reservations.
func TestPeerAnswers(t *testing.T) {
	lost := gracetest.Fault{Drop: true}
	for _, tt := range []struct {
		answer     string
		fault      gracetest.Fault // for ever, unless Times says otherwise
		theirs     string
		ours       string
		sends      int
		took       time.Duration
		ok         bool  // published
		kind       error // of the error, if not ok
		status     int   // of its StatusError
		noFallback bool  // the error is the same with HTTPFallback
	}{
		{answer: "400", fault: gracetest.Fault{Status: 400, Body: `{"error": "no"}`}, theirs: "1 send, HTTPError whose text is <Response [400]>", ours: "1 send, StatusError with the server's text", sends: 1, status: 400},
		{answer: "404", fault: gracetest.Fault{Status: 404}, theirs: "1 send, HTTPError", ours: "the same", sends: 1, status: 404},
		{answer: "500", fault: gracetest.Fault{Status: 500}, theirs: "1 send, HTTPError", ours: "the same", sends: 1, status: 500},
		{answer: "401", fault: gracetest.Fault{Status: 401}, theirs: "1 send, HTTPError, no fallback", ours: "the same; once more only with another token", sends: 1, kind: gracedb.ErrAuthentication, status: 401, noFallback: true},
		{answer: "403", fault: gracetest.Fault{Status: 403}, theirs: "1 send, HTTPError, no fallback", ours: "the same", sends: 1, kind: gracedb.ErrAuthentication, status: 403, noFallback: true},
		{answer: "408", fault: gracetest.Fault{Status: 408}, theirs: "6 sends in 3.1 s, RetryError without the status", ours: "6 sends in 3 s, StatusError", sends: 6, took: 3 * time.Second, status: 408},
		{answer: "409", fault: gracetest.Fault{Status: 409}, theirs: "6 sends in 3.1 s, RetryError", ours: "1 send: a conflict does not go away", sends: 1, status: 409},
		{answer: "502", fault: gracetest.Fault{Status: 502}, theirs: "6 sends in 3.1 s, RetryError", ours: "6 sends in 3 s, StatusError", sends: 6, took: 3 * time.Second, status: 502},
		{answer: "504", fault: gracetest.Fault{Status: 504}, theirs: "6 sends in 3.1 s, RetryError", ours: "6 sends in 3 s, StatusError", sends: 6, took: 3 * time.Second, status: 504},
		{answer: "409, then 201", fault: gracetest.Fault{Status: 409, Times: 1}, theirs: "2 sends, success", ours: "1 send, StatusError", sends: 1, status: 409},
		{answer: "502, then 201", fault: gracetest.Fault{Status: 502, Times: 1}, theirs: "2 sends, success", ours: "the same", sends: 2, ok: true},
		{answer: "429", fault: gracetest.Fault{Status: 429}, theirs: "1 send, HTTPError", ours: "6 sends in 3 s: nothing was done", sends: 6, took: 3 * time.Second, status: 429},
		{answer: "429, Retry-After: 1", fault: gracetest.Fault{Status: 429, Header: after("1")}, theirs: "6 sends in 5.1 s, HTTPError", ours: "6 sends in 5.6 s (never sooner than the backoff)", sends: 6, took: 5600 * time.Millisecond, status: 429},
		{answer: "503", fault: gracetest.Fault{Status: 503}, theirs: "1 send, HTTPError", ours: "the same", sends: 1, status: 503},
		{answer: "503, Retry-After: 1", fault: gracetest.Fault{Status: 503, Header: after("1")}, theirs: "6 sends in 5.1 s, RetryError", ours: "6 sends in 5.6 s, StatusError", sends: 6, took: 5600 * time.Millisecond, status: 503},
		{answer: "503, Retry-After: 60, then 201", fault: gracetest.Fault{Status: 503, Header: after("60"), Times: 1}, theirs: "waits 30 s, success", ours: "the same", sends: 2, took: 30 * time.Second, ok: true},
		{answer: "413, Retry-After: 1, then 201", fault: gracetest.Fault{Status: 413, Header: after("1"), Times: 1}, theirs: "2 sends, success", ours: "1 send: what is too large stays so", sends: 1, status: 413},
		{answer: "reset", fault: lost, theirs: "6 sends in 3.1 s, ConnectionError; 6 graceids used up", ours: "6 sends in 3 s, ErrConnection; 6 graceids used up, logged", sends: 6, took: 3 * time.Second, kind: gracedb.ErrConnection},
		{answer: "reset once", fault: gracetest.Fault{Drop: true, Times: 1}, theirs: "2 sends, success, 1 graceid used up", ours: "the same, logged", sends: 2, ok: true},
		{answer: "none", fault: gracetest.Fault{Think: time.Hour}, theirs: "1 send, waits for ever", ours: "1 send, ErrConnection after a minute", sends: 1, took: time.Minute, kind: gracedb.ErrConnection},
		{answer: "HTML", fault: gracetest.Fault{Status: 200, Body: "<html>"}, theirs: "1 send, JSONDecodeError, no fallback", ours: "1 send, StatusError, fallback", sends: 1, status: 200},
		{answer: "broken JSON", fault: gracetest.Fault{Status: 201, Body: `{"graceid"`}, theirs: "1 send, JSONDecodeError, no fallback", ours: "1 send, StatusError, fallback", sends: 1, status: 201},
		{answer: "empty", fault: gracetest.Fault{Status: 201}, theirs: "1 send, JSONDecodeError, no fallback", ours: "1 send, StatusError, fallback", sends: 1, status: 201},
		{answer: "no graceid", fault: gracetest.Fault{Status: 201, Body: `{"submitter": "alice"}`}, theirs: "1 send, KeyError, no fallback", ours: "1 send, StatusError that names it, fallback", sends: 1, status: 201},
		{answer: "no submitter", fault: gracetest.Fault{Status: 201, Body: `{"graceid": "G1001"}`}, theirs: "1 send, KeyError, no fallback", ours: "published without one: the graceid is what counts", sends: 1, ok: true},
	} {
		for _, fallback := range []bool{false, true} {
			name := tt.answer
			if fallback {
				name += ", fallback"
			}
			t.Run(name, func(t *testing.T) {
				t.Logf("theirs: %s; ours: %s", tt.theirs, tt.ours)
				testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
					f := tt.fault
					f.On = "reserve"
					if f.Times == 0 {
						f.Times = -1
					}
					r.Script(f)
					if err := r.Call(t.Context(), "root"); err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{HTTPFallback: fallback})
					if d := time.Since(start); r.Count("reserve") != tt.sends || d != tt.took {
						t.Errorf("%d sends in %v, want %d in %v", r.Count("reserve"), d, tt.sends, tt.took)
					}
					posted := fallback && !tt.ok && !tt.noFallback
					if (err == nil) != (tt.ok || posted) {
						t.Fatalf("%+v, %v", got, err)
					}
					if tt.ok && (len(r.Messages(t, "gstlal")) != 1 || got.Fallback != nil) {
						t.Errorf("not published: %+v", got)
					}
					if posted {
						err = got.Fallback
					}
					if posted != (r.Count("create") == 1) || posted != (len(r.Events()) == 1) {
						t.Errorf("%d creations, %d events; want %v", r.Count("create"), len(r.Events()), posted)
					}
					if tt.kind != nil && !errors.Is(err, tt.kind) {
						t.Errorf("%v is not %v", err, tt.kind)
					}
					if tt.status != 0 {
						wantStatus(t, err, tt.status, tt.sends)
					}
				})
			})
		}
	}
}

// The findings about ligo-gracedb 2.16.1 that concern HTTP, by their numbers: what
// happens there must not happen here.

// 4, 5: an exception, yet delivered later; delivered by Kafka and by HTTP.
func TestPeerFinding_04_05_DeliveredTwice(t *testing.T) {
	testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
		if _, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
		r.Kafka.Freeze()
		time.AfterFunc(20*time.Second, func() { r.Kafka.Thaw() })
		_, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{})
		res, ok := errors.AsType[*gracedb.ReservedError](err)
		if !ok || !errors.Is(err, gracedb.ErrOutcomeUnknown) {
			t.Fatalf("%v, want a ReservedError that says that the outcome is unknown", err)
		}
		time.Sleep(time.Minute)
		// It may have come after all. Taken up again, it is the same graceid.
		got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{Reservation: &res.Reservation})
		if err != nil || got.GraceID != res.Reservation.GraceID || len(r.Reservations()) != 2 {
			t.Errorf("%+v, %v, %d reservations", got, err, len(r.Reservations()))
		}
	})
}

// 7, 8: another message's failure or delay fails a good event.
func TestPeerFinding_07_08_ForeignQueue(t *testing.T) {
	testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
		failed := make(chan error, 1)
		if err := r.Producer.Produce(t.Context(), gracedb.Message{Topic: "nosuch", Value: []byte("{}")}, func(_ gracedb.Message, err error) { failed <- err }); err != nil {
			failed <- err
		}
		start := time.Now()
		if _, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{HTTPFallback: true}); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("took %v", d)
		}
		if err := <-failed; !errors.Is(err, gracedb.ErrTopic) {
			t.Errorf("the other message: %v", err)
		}
		r.WantPosts(t, 1, 0, 0)
	})
}

// 16: silently anonymous.
func TestPeerFinding_16_Anonymous(t *testing.T) {
	s := testrig.NewService(t, gracetest.Config{}, nil)
	for _, kind := range []string{"root", "reserve", "upload", "create"} {
		if err := s.Call(t.Context(), kind); err != nil {
			t.Error(err)
		}
	}
	for _, r := range s.Requests() {
		if r.Header.Get("Authorization") == "" {
			t.Errorf("%s %s without a token", r.Method, r.Path)
		}
	}
	TestNoToken(t)
}

// 17: creations are repeated after a lost answer or a conflict.
func TestPeerFinding_17_RepeatedPOST(t *testing.T) {
	for _, f := range []gracetest.Fault{{Status: 408}, {Status: 409}, {Status: 502, Commit: true}, {Status: 504, Commit: true}, {Drop: true}, {Status: 413, Header: after("1")}} {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			f.On = "create"
			s.Script(f)
			if err := s.Call(t.Context(), "create"); err == nil || s.Count("create") != 1 || len(s.Events()) > 1 {
				t.Errorf("%+v: %v, %d requests, %d events", f, err, s.Count("create"), len(s.Events()))
			}
		})
	}
}

// 18: no timeout.
func TestPeerFinding_18_NoTimeout(t *testing.T) { TestTimeoutIsNotRepeated(t) }

// 19: a login page in answer to an upload is success.
func TestPeerFinding_19_LoginPage(t *testing.T) {
	for _, body := range []string{"<html><title>Log in</title></html>", "{", ""} {
		s := testrig.NewService(t, gracetest.Config{}, nil)
		s.Script(gracetest.Fault{On: "upload", Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: body})
		err := s.Call(t.Context(), "upload")
		wantHTTPErr(t, err, gracedb.ErrOutcomeUnknown, "not a JSON object")
	}
}

// 20: fields are dropped on the way over Kafka and on the way back to HTTP.
func TestPeerFinding_20_DroppedFields(t *testing.T) {
	e := testrig.Event()
	e.Group, e.Offline, e.ReplayID = "Test", true, "r_1"
	publishes(gracedb.PublishOptions{}, func(_ *testing.T, r *matrixRig) { r.event = e }, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		if err != nil {
			t.Fatal(err)
		}
		u, err := r.Messages(t, "test")[0].Upload()
		if got := u.Event(); err != nil || got.Group != "Test" || got.Search != e.Search || !got.Offline || got.ReplayID != "r_1" || len(got.Labels) != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})(t)
	publishes(gracedb.PublishOptions{HTTPFallback: true}, func(t *testing.T, r *matrixRig) {
		r.event = e
		failsWith("reserve", gracetest.Fault{Status: 400})(t, r)
	}, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Events()[0]; got.Group != "Test" || got.Search != e.Search || !got.Offline || got.ReplayID != "r_1" || len(got.Labels) != 2 {
			t.Errorf("%+v", got)
		}
	})(t)
}

// 21, 29: a wrong content_id, changed contents.
func TestPeerFinding_21_29_Contents(t *testing.T) {
	e := testrig.Event()
	e.Data = []byte("a\r\nb\rc\x00\xff")
	publishes(gracedb.PublishOptions{}, func(_ *testing.T, r *matrixRig) { r.event = e }, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		if err != nil {
			t.Fatal(err)
		}
		u, err := r.Messages(t, "gstlal")[0].Upload()
		if err != nil || !bytes.Equal(u.Data, e.Data) || u.ContentID != testrig.ContentIDOf(e.Data) || r.Reservations()[0].ContentID != u.ContentID {
			t.Errorf("%+v, %v, %+v", u, err, r.Reservations())
		}
	})(t)
}

// The fallback is told apart from Kafka by the receipt, and by the log.
func TestFallbackIsTold(t *testing.T) {
	publishes(gracedb.PublishOptions{HTTPFallback: true}, publishSteps[3].setup, func(t *testing.T, _ *matrixRig, got gracedb.Receipt, err error) {
		if err != nil || got.Message.Topic != "" || !errors.Is(got.Fallback, gracedb.ErrTopic) {
			t.Errorf("%+v, %v", got, err)
		}
		if strings.Contains(got.Fallback.Error(), "\n") || errors.Is(got.Fallback, context.Canceled) {
			t.Error(got.Fallback)
		}
	})(t)
}
