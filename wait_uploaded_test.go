package gracedb_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
)

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
