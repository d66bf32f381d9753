package faults_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A tripwire is a transport that calls trip at a point of the exchange with a
// path: "sent" when the server has the request, "answered" when the answer was
// read.
type tripwire struct {
	next        http.RoundTripper
	path, point string
	trip        func()
}

func (w *tripwire) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, w.path) {
		return w.next.RoundTrip(req)
	}
	resp, err := w.next.RoundTrip(req)
	if err == nil && w.point == "answered" {
		resp.Body = &trippingBody{resp.Body, w.trip}
	}
	return resp, err
}

type trippingBody struct {
	io.ReadCloser
	trip func()
}

func (b *trippingBody) Close() error { b.trip(); return b.ReadCloser.Close() }

// ctx cancelled between any two steps: the error is that of ctx, names the graceid
// once there is one, and nothing happens afterwards.
func TestPublishCancelled(t *testing.T) {
	const rootPath, reservePath, uploadPath = "/api/v2/", "/events/reserve/", "/upload/"
	for _, tt := range []struct {
		name                  string
		path, point           string // when: see tripwire; "in work" is when the server works on it
		fallback              bool
		kafka                 string // "", "refuses", "produce" (cancelled when the broker gets it), "lost"
		reserved, unknown, ok bool
		requests              []string // that the server got, in order
		messages, events      int
	}{
		{name: "before the call", point: "now"},
		{name: "while the root document is fetched", path: rootPath, point: "in work", requests: []string{"root"}},
		{name: "after the root document", path: rootPath, point: "answered", requests: []string{"root"}},
		{name: "while reserving", path: reservePath, point: "in work", requests: []string{"root", "reserve"}},
		{name: "while reserving, fallback", path: reservePath, point: "in work", fallback: true, requests: []string{"root", "reserve"}},
		{name: "between reservation and publication", path: reservePath, point: "answered", reserved: true, requests: []string{"root", "reserve"}},
		{name: "between reservation and publication, fallback", path: reservePath, point: "answered", fallback: true, reserved: true, requests: []string{"root", "reserve"}},
		{name: "before the broker has it", kafka: "lost", fallback: true, reserved: true, unknown: true, requests: []string{"root", "reserve"}},
		{name: "before the acknowledgement", kafka: "produce", reserved: true, unknown: true, requests: []string{"root", "reserve"}, messages: 1},
		{name: "before the acknowledgement, fallback", kafka: "produce", fallback: true, reserved: true, unknown: true, requests: []string{"root", "reserve"}, messages: 1},
		{name: "while uploading", kafka: "refuses", path: uploadPath, point: "in work", fallback: true, reserved: true, unknown: true, requests: []string{"root", "reserve", "upload"}, events: 1},
		{name: "after the upload", kafka: "refuses", path: uploadPath, point: "answered", fallback: true, ok: true, requests: []string{"root", "reserve", "upload"}, events: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := &tripwire{path: tt.path, point: tt.point}
			testrig.InRig(t, testrig.RigConfig{Client: func(c *gracedb.ClientConfig) {
				wire.next = c.HTTP.Transport
				c.HTTP.Transport = wire
			}}, func(t *testing.T, r *testrig.Rig) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				wire.trip = cancel
				opts := gracedb.PublishOptions{HTTPFallback: tt.fallback}
				const pause = time.Second // between a cancellation and what would come next
				switch tt.point {
				case "now":
					cancel()
				case "in work":
					on := map[string]string{rootPath: "root", reservePath: "reserve", uploadPath: "upload"}[tt.path]
					r.Script(gracetest.Fault{On: on, Think: pause, Times: -1})
					time.AfterFunc(pause/2, cancel)
				}
				switch tt.kafka {
				case "refuses":
					opts.Topic = "nosuch"
				case "lost":
					r.Kafka.LoseProduces(-1, kafkatest.DropRequest)
					time.AfterFunc(pause, cancel)
				case "produce":
					r.Kafka.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Delay: pause, Keys: []kmsg.Key{kmsg.Produce}})
					time.AfterFunc(pause/2, cancel)
				}
				start := time.Now()
				e := testrig.Event()
				e.Data = append(e.Data, strings.Repeat("\n", 100_000)...) // large enough to be encoded beside the reservation
				receipt, err := r.Client.PublishEvent(ctx, r.Producer, e, opts)
				if d := time.Since(start); d > 1100*time.Millisecond {
					t.Errorf("returned after %v", d)
				}
				if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, context.Canceled) {
					t.Fatalf("%+v, %v", receipt, err)
				}
				res, isReserved := errors.AsType[*gracedb.ReservedError](err)
				if isReserved != tt.reserved || isReserved && res.Reservation != (gracedb.Reservation{GraceID: "G1001", Submitter: "alice"}) {
					t.Errorf("%v: is a ReservedError: %v, want %v", err, isReserved, tt.reserved)
				}
				if got := errors.Is(err, gracedb.ErrOutcomeUnknown); got != tt.unknown {
					t.Errorf("%v: is ErrOutcomeUnknown: %v, want %v", err, got, tt.unknown)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				var requests []string
				for _, q := range r.Requests() {
					requests = append(requests, gracetest.KindOf(q))
				}
				if !slices.Equal(requests, tt.requests) {
					t.Errorf("requests %q, want %q", requests, tt.requests)
				}
				if m, e := len(r.Messages(t, "gstlal")), len(r.Events()); m != tt.messages || e != tt.events {
					t.Errorf("%d messages and %d events, want %d and %d", m, e, tt.messages, tt.events)
				}
			})
		})
	}
}

// Many callers share a client and a producer: each gets a graceid and a message of
// its own.
func TestPublishConcurrently(t *testing.T) {
	r := testrig.NewRig(t, testrig.RigConfig{})
	const n = 50
	receipts := make([]gracedb.Receipt, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			e := testrig.Event()
			e.Data = fmt.Appendf(nil, "event %d", i)
			var err error
			if receipts[i], err = r.Client.PublishEvent(t.Context(), r.Producer, e, gracedb.PublishOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := map[string]string{}
	for _, m := range r.Messages(t, "gstlal") {
		u, err := m.Upload()
		if err != nil || got[u.GraceID] != "" || string(m.Key) != u.GraceID {
			t.Errorf("message %+v: %v", m, err)
		}
		got[u.GraceID] = string(u.Data)
	}
	if len(got) != n {
		t.Errorf("%d messages with different graceids, want %d", len(got), n)
	}
	for i, receipt := range receipts {
		if want := fmt.Sprintf("event %d", i); got[receipt.GraceID] != want {
			t.Errorf("graceid %s of call %d carries %q", receipt.GraceID, i, got[receipt.GraceID])
		}
	}
	if r.Count("root") != 1 || r.Count("reserve") != n {
		t.Errorf("%d root documents, %d reservations", r.Count("root"), r.Count("reserve"))
	}
}

// A burst against a server that throttles: everybody gets through, nobody twice,
// as fast as the throttle lets them.
func TestThrottledBurst(t *testing.T) {
	const n, rate = 100, 10
	for _, tt := range []struct {
		name string
		call func(context.Context, *testrig.Rig, gracedb.Event) error
		wait time.Duration // that the server takes for each
	}{
		{"publish", func(ctx context.Context, r *testrig.Rig, e gracedb.Event) error {
			_, err := r.Client.PublishEvent(ctx, r.Producer, e, gracedb.PublishOptions{})
			return err
		}, 0},
		{"create", func(ctx context.Context, r *testrig.Rig, e gracedb.Event) error {
			_, err := r.Client.CreateEvent(ctx, e)
			return err
		}, 0},
		{"create, slowly", func(ctx context.Context, r *testrig.Rig, e gracedb.Event) error {
			_, err := r.Client.CreateEvent(ctx, e)
			return err
		}, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testrig.InRig(t, testrig.RigConfig{Service: gracetest.Config{Rate: rate, Work: tt.wait}}, func(t *testing.T, r *testrig.Rig) {
				data := make([]byte, 100_000)
				var wg sync.WaitGroup
				start := time.Now()
				for i := range n {
					wg.Go(func() {
						e := testrig.Event()
						e.Data = append(fmt.Appendf(nil, "event %d ", i), data...)
						if err := tt.call(t.Context(), r, e); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				took := time.Since(start)
				// n events at that rate take n/rate - 1 s at least, and the last its own time.
				least := time.Duration(n/rate-1)*time.Second + tt.wait
				t.Logf("%v, the throttle allows %v; %d requests", took, least, len(r.Requests()))
				// Who does not see refusals at once sends on for a while, so that
				// the server's whole seconds begin later.
				if most := least + least/4; took > most {
					t.Errorf("took %v, the throttle allows %v", took, least)
				}
				// Reading the log would leave a decoder with a finalizer, which must not
				// run outside this bubble.
				messages := int(r.Kafka.Kfake().PartitionInfo("localhost.gstlal", 0).HighWatermark)
				if got := messages + len(r.Events()); got != n {
					t.Errorf("%d events, want %d", got, n)
				}
				if posts := r.Count("reserve") + r.Count("create"); posts > 2*n+3*n/rate {
					t.Errorf("%d POSTs for %d events", posts, n)
				}
			})
		})
	}
}
