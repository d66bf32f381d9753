package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// The rows of the fault bar about HTTP; S5 to S8, S11, H6 and T23 are in
// rest_reply_test.go and rest_retry_test.go.

func newHTTPServer(t *testing.T, h http.HandlerFunc) (url string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// H1: one gateway error makes no second event, and mostly no error.
func TestFault_H1_OneServerError(t *testing.T) {
	for _, tt := range []struct {
		fault    gracetest.Fault
		repeated bool // what is safe to repeat
		create   bool // the creation is repeated too
	}{
		{gracetest.Fault{Status: 500}, false, false},
		{gracetest.Fault{Status: 502}, true, false},
		{gracetest.Fault{Status: 503}, false, false},
		{gracetest.Fault{Status: 503, Header: after("1")}, true, true},
		{gracetest.Fault{Status: 504}, true, false},
		{gracetest.Fault{Status: 502, Commit: true}, true, false}, // the gateway lost the answer
		{gracetest.Fault{Status: 504, Commit: true}, true, false},
	} {
		for _, kind := range []string{"root", "reserve", "upload", "create"} {
			testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
				f := tt.fault
				f.On = kind
				s.Script(f)
				start := time.Now()
				err := s.Call(t.Context(), kind)
				want := tt.repeated && kind != "create" || tt.create
				if (err == nil) != want || time.Since(start) > 2*time.Second || len(s.Events()) > 1 {
					t.Errorf("%d (%v) on %s: %v after %v, %d events; want success: %v",
						f.Status, f.Header, kind, err, time.Since(start), len(s.Events()), want)
				}
				if unsure := kind == "create" && f.Status != 503; unsure != (err != nil && strings.Contains(err.Error(), "the event may exist")) {
					t.Errorf("%d on %s: %v: says that the event may exist: %v", f.Status, kind, err, !unsure)
				}
			})
		}
	}
}

// H2: 503 for ever is told at once, or, with Retry-After, with status and tries.
func TestFault_H2_MaintenanceForEver(t *testing.T) {
	testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
		s.Script(gracetest.Fault{Status: 503, Times: -1})
		start := time.Now()
		wantStatus(t, s.Call(t.Context(), "create"), 503, 1)
		if d := time.Since(start); d != 0 {
			t.Errorf("after %v", d)
		}
	})
	testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
		s.Script(gracetest.Fault{Status: 503, Header: after("10"), Times: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		start := time.Now()
		err := s.Call(ctx, "create")
		wantStatus(t, err, 503, 3)
		wantHTTPErr(t, err, nil, "(3 attempts)")
		if d := time.Since(start); d > 25*time.Second {
			t.Errorf("after %v", d)
		}
	})
}

// H3: Retry-After in all forms is honoured, capped, and bounded by ctx.
func TestFault_H3_RetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"2": 2 * time.Second, "1000000000": 30 * time.Second, "Sat, 01 Jan 2000 00:00:02 GMT": 2 * time.Second, "junk": 0,
	} {
		testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
			s.Script(gracetest.Fault{On: "create", Status: 429, Header: after(value), Times: 1})
			start := time.Now()
			if err := s.Call(t.Context(), "create"); err != nil || time.Since(start) != want || len(s.Events()) != 1 {
				t.Errorf("Retry-After %s: %v after %v, %d events", value, err, time.Since(start), len(s.Events()))
			}
		})
	}
}

// H4: a header that never comes and a body that drips end with ctx, exactly.
func TestFault_H4_SlowAnswers(t *testing.T) {
	for name, f := range map[string]gracetest.Fault{
		"no header": {Think: time.Hour}, "one byte a second": {Drip: time.Second}, "an error, one byte a second": {Status: 400, Body: strings.Repeat("x", 100), Drip: time.Second},
	} {
		for _, kind := range []string{"root", "reserve", "create"} {
			testrig.InBubble(t, gracetest.Config{}, nil, func(t *testing.T, s *testrig.Service) {
				f.On, f.Times = kind, -1
				s.Script(f)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				err := s.Call(ctx, kind)
				if d := time.Since(start); err == nil || d != 10*time.Second {
					t.Errorf("%s, %s: %v after %v, want the end of ctx after 10s", name, kind, err, d)
				}
				if f.Status == 0 && kind == "create" {
					wantHTTPErr(t, err, gracedb.ErrOutcomeUnknown, "the event may exist")
				}
			})
		}
	}
}

// H5: an answer that is cut before its graceid is no answer, and no half result is
// returned. (Behind it: TestGraceIDAtTheHead.)
func TestFault_H5_TruncatedAnswers(t *testing.T) {
	const good = `{"submitter": "alice", "graceid": "G100`
	for name, f := range map[string]gracetest.Fault{
		"in the middle":           {Status: 201, Body: good, Half: true},
		"Content-Length too long": {Status: 201, Body: good, Header: http.Header{"Content-Length": {"1000"}}},
		"reset":                   {Status: 201, Body: good, Half: true, Reset: true},
	} {
		for _, kind := range []string{"reserve", "create"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.Retries = -1 })
				f.On = kind
				s.Script(f)
				err := s.Call(t.Context(), kind)
				wantHTTPErr(t, err, gracedb.ErrConnection, "")
				if kind == "create" {
					wantHTTPErr(t, err, gracedb.ErrOutcomeUnknown, "the event may exist")
				}
			})
		}
	}
}

// H7: a reset after the reservation uses up a graceid at most, which is logged and
// never used.
func TestFault_H7_ResetAfterReserve(t *testing.T) {
	var log bytes.Buffer
	r := testrig.NewRig(t, testrig.RigConfig{Client: func(c *gracedb.ClientConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }})
	r.Script(gracetest.Fault{On: "reserve", Drop: true, Reset: true})
	got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{})
	if err != nil || got.GraceID != "G1002" {
		t.Fatalf("%+v, %v", got, err)
	}
	if m := r.Messages(t, "gstlal"); len(m) != 1 || string(m[0].Key) != "G1002" || len(r.Reservations()) != 2 {
		t.Errorf("%d messages, %d reservations", len(m), len(r.Reservations()))
	}
	if !strings.Contains(log.String(), "a graceid may stay reserved that nobody uses") {
		t.Errorf("the log does not tell: %s", log.String())
	}
}

// H8: a reset after the upload is settled by repeating; a 409 is success then.
func TestFault_H8_ResetAfterUpload(t *testing.T) {
	s := testrig.NewService(t, gracetest.Config{}, nil)
	r, err := s.Client.Reserve(t.Context(), testrig.Event())
	if err != nil {
		t.Fatal(err)
	}
	s.Script(gracetest.Fault{On: "upload", Drop: true, Reset: true})
	got, err := s.Client.UploadReservedEvent(t.Context(), r.GraceID, testrig.Event(), gracedb.Provenance{})
	if err != nil || got.GraceID != r.GraceID {
		t.Errorf("%+v, %v", got, err)
	}
	if e := s.Events(); len(e) != 1 || e[0].Conflicts != 1 || s.Count("upload") != 2 {
		t.Errorf("%+v after %d uploads", e, s.Count("upload"))
	}
	// Where the server never acted, nothing is there, and a 409 is what it says.
	s.Script(gracetest.Fault{On: "upload", Status: 503, Header: after("0")})
	_, err = s.Client.UploadReservedEvent(t.Context(), r.GraceID, testrig.Event(), gracedb.Provenance{})
	wantStatus(t, err, 409, 2)
}

// H9: Kafka refuses: the upload carries the same graceid.
func TestFault_H9_KafkaRefuses(t *testing.T) {
	publishes(gracedb.PublishOptions{HTTPFallback: true}, publishSteps[6].setup, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
		e := r.Events()
		if err != nil || len(e) != 1 || e[0].GraceID != got.GraceID || !e[0].Reserved || !errors.Is(got.Fallback, gracedb.ErrDelivery) {
			t.Errorf("%+v, %v, %+v", got, err, e)
		}
		r.WantPosts(t, 1, 1, 0)
	})(t)
}

// H10: Kafka's outcome is unknown: it is waited for as long as FlushTimeout, then
// the upload carries the same graceid.
func TestFault_H10_OutcomeUnknown(t *testing.T) {
	for _, s := range publishSteps[7:] {
		start := time.Time{}
		publishes(gracedb.PublishOptions{HTTPFallback: true}, func(t *testing.T, r *matrixRig) {
			s.setup(t, r)
			start = time.Now()
		}, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
			e := r.Events()
			if err != nil || len(e) != 1 || e[0].GraceID != got.GraceID || !errors.Is(got.Fallback, gracedb.ErrOutcomeUnknown) {
				t.Errorf("%s: %+v, %v, %+v", s.name, got, err, e)
			}
			if d := time.Since(start); d < 10*time.Second || d > 10*time.Second+200*time.Millisecond {
				t.Errorf("%s: after %v, want FlushTimeout", s.name, d)
			}
		})(t)
	}
	// Settled while it waits: the acknowledgement came after all.
	publishes(gracedb.PublishOptions{HTTPFallback: true}, func(_ *testing.T, r *matrixRig) {
		r.Kafka.LoseAcks(1, kafkatest.CutResponse)
	}, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
		if err != nil || got.Fallback != nil || len(r.Messages(t, "gstlal")) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		r.WantPosts(t, 1, 0, 0)
	})(t)
}

// H10 with a token that is refused meanwhile: the record's outcome is waited for
// all the same, so that nothing goes to the server twice.
func TestFault_H10_RefusedMeanwhile(t *testing.T) {
	cfg := testrig.RigConfig{Producer: func(c *gracedb.ProducerConfig) { c.AuthGrace = time.Second }}
	testrig.InRig(t, cfg, func(t *testing.T, r *testrig.Rig) {
		if _, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
		r.Kafka.LoseAcks(1, kafkatest.CutResponse)
		r.Kafka.RefuseTokens(kafkatest.Refusal{})
		time.AfterFunc(5*time.Second, func() { r.Kafka.AcceptTokens() })
		start := time.Now()
		got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{HTTPFallback: true})
		if d := time.Since(start); err != nil || got.Fallback != nil || d < 5*time.Second || d > 7*time.Second {
			t.Errorf("%+v, %v after %v", got, err, d)
		}
		if m := r.Messages(t, "gstlal"); len(m) != 2 {
			t.Errorf("%d messages, want 2", len(m))
		}
		r.WantPosts(t, 2, 0, 0)
	})
}

// H11: no reservation: one plain creation with fallback, an error without.
func TestFault_H11_ReserveFails(t *testing.T) {
	fails := failsWith("reserve", gracetest.Fault{Status: 500})
	publishes(gracedb.PublishOptions{HTTPFallback: true}, fails, func(t *testing.T, r *matrixRig, got gracedb.Receipt, err error) {
		if e := r.Events(); err != nil || len(e) != 1 || got.GraceID != e[0].GraceID {
			t.Errorf("%+v, %v, %+v", got, err, e)
		}
		wantStatus(t, got.Fallback, 500, 1)
		r.WantPosts(t, 1, 0, 1)
	})(t)
	publishes(gracedb.PublishOptions{}, fails, func(t *testing.T, r *matrixRig, _ gracedb.Receipt, err error) {
		wantStatus(t, err, 500, 1)
		r.WantPosts(t, 1, 0, 0)
	})(t)
	// A server without reservations, too.
	none := testrig.RigConfig{Service: gracetest.Config{NoReservations: true}}
	testrig.InRig(t, none, func(t *testing.T, r *testrig.Rig) {
		_, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{})
		wantHTTPErr(t, err, errors.ErrUnsupported, "does not reserve graceids")
		got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{HTTPFallback: true})
		if err != nil || !errors.Is(got.Fallback, errors.ErrUnsupported) || len(r.Events()) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// H12: Kafka and HTTP fail: one error with both causes and the graceid.
func TestFault_H12_BothFail(t *testing.T) {
	publishes(gracedb.PublishOptions{HTTPFallback: true}, func(t *testing.T, r *matrixRig) {
		publishSteps[6].setup(t, r)
		failsWith("upload", gracetest.Fault{Status: 400, Body: `{"error": "no"}`})(t, r)
	}, func(t *testing.T, _ *matrixRig, _ gracedb.Receipt, err error) {
		res, ok := errors.AsType[*gracedb.ReservedError](err)
		if !ok || res.Reservation.GraceID != "G1001" {
			t.Errorf("%v is not a ReservedError of G1001", err)
		}
		wantHTTPErr(t, err, gracedb.ErrTopic, "then over HTTP: POST http://localhost/api/v2/events/G1001/upload/: 400 Bad Request: no")
		wantHTTPErr(t, err, gracedb.ErrDelivery, "G1001")
		wantStatus(t, err, 400, 1)
	})(t)
}

// H13: HTTP/2: streams that are reset and connections that are told to go away.
func TestFault_H13_HTTP2(t *testing.T) {
	for name, f := range map[string]gracetest.Fault{
		"RST_STREAM":             {Drop: true},
		"RST_STREAM before":      {Refuse: true},
		"GOAWAY with the answer": {Header: http.Header{"Connection": {"close"}}},
	} {
		for _, kind := range []string{"root", "reserve", "upload", "create"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := testrig.NewService(t, gracetest.Config{HTTP2: true}, nil)
				if err := s.Call(t.Context(), "root"); err != nil {
					t.Fatal(err)
				}
				if kind == "root" { // once more
					s.Client = testrig.NewClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), HTTP: s.HTTPClient(), Token: testrig.TokenIs(s.Bearer)})
				}
				f.On = kind
				s.Script(f)
				start := time.Now()
				err := s.Call(t.Context(), kind)
				lost := kind == "create" && !strings.HasPrefix(name, "GOAWAY")
				if (err != nil) != lost || time.Since(start) > 2*time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
				if lost {
					wantHTTPErr(t, err, gracedb.ErrOutcomeUnknown, "the event may exist")
				}
				if err := s.Call(t.Context(), "reserve"); err != nil {
					t.Errorf("the next call: %v", err)
				}
				if n := len(s.Events()); n > 1 {
					t.Errorf("%d events", n)
				}
			})
		}
	}
}

// H14: a connection that died while it was idle costs nothing: the request is
// sent on another.
func TestFault_H14_DeadKeepAlive(t *testing.T) {
	for _, kind := range []string{"reserve", "create"} {
		t.Run("closed/"+kind, func(t *testing.T) {
			d := &mortalDialer{}
			s := testrig.NewService(t, gracetest.Config{Plain: true}, func(c *gracedb.ClientConfig) {
				c.HTTP.Transport.(*http.Transport).DialContext = d.dial
			})
			for i := range 3 {
				if err := s.Call(t.Context(), kind); err != nil {
					t.Error(err)
				}
				s.CloseIdle()
				<-d.conns[i].ended // the client knows
			}
			if n := s.Count(kind); n != 3 || len(d.conns) != 3 {
				t.Errorf("%d requests on %d connections, want 3 on 3", n, len(d.conns))
			}
		})
		t.Run("forgotten/"+kind, func(t *testing.T) {
			d := &mortalDialer{}
			s := testrig.NewService(t, gracetest.Config{Plain: true}, func(c *gracedb.ClientConfig) {
				c.HTTP.Transport.(*http.Transport).DialContext = d.dial
			})
			if err := s.Call(t.Context(), "root"); err != nil {
				t.Fatal(err)
			}
			// A small request goes out whole, and a reset comes back; a large one
			// fails on its way.
			d.conns[0].resets = kind == "reserve"
			d.conns[0].dead.Store(true)
			e := testrig.Event()
			e.Data = make([]byte, 100_000)
			var err error
			if kind == "create" {
				_, err = s.Client.CreateEvent(t.Context(), e)
			} else {
				var r gracedb.Reservation
				if r, err = s.Client.Reserve(t.Context(), e); err == nil {
					_, err = s.Client.UploadReservedEvent(t.Context(), r.GraceID, e, gracedb.Provenance{})
				}
			}
			if err != nil || len(s.Events()) != 1 || s.Count(kind) != 1 {
				t.Errorf("%v, %d events, %d requests", err, len(s.Events()), s.Count(kind))
			}
		})
	}
}

// A mortalDialer makes connections that can die.
type mortalDialer struct {
	conns []*mortalConn
}

func (d *mortalDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &mortalConn{Conn: conn, ended: make(chan struct{})}
	d.conns = append(d.conns, c)
	return c, nil
}

// A mortalConn that is dead takes one more write, as a socket does whose other end
// has gone, and then fails.
type mortalConn struct {
	net.Conn
	ended  chan struct{} // closed when a read has failed
	once   sync.Once
	dead   atomic.Bool
	buried atomic.Bool
	resets bool // reads fail too, after the first write
}

func (c *mortalConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() { close(c.ended) })
	}
	return n, err
}

func (c *mortalConn) Write(b []byte) (int, error) {
	if c.dead.Load() {
		if c.buried.Swap(true) {
			return 0, syscall.EPIPE
		}
		if c.resets {
			_ = c.Close()
		}
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// S4: nothing that a caller or an operator gets to see holds the token, in whatever
// form it is printed.
func TestFault_S4_CanaryHTTP(t *testing.T) {
	for _, f := range []gracetest.Fault{
		{},
		{Status: 401},
		{Status: 400, Body: "echo"},
		{Status: 502, Body: "echo"},
		{Drop: true},
		{Status: 302, Header: http.Header{"Location": {"https://evil.test/?t=echo"}}},
		{Status: 201, Body: "echo"},
		{Status: 429, Header: after("0")},
	} {
		for _, kind := range []string{"root", "reserve", "upload", "create"} {
			var log bytes.Buffer
			s := testrig.NewService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) {
				c.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
			})
			f.On, f.Times = kind, 2
			f.Body = strings.ReplaceAll(f.Body, "echo", s.Bearer)
			s.Script(f)
			err := s.Call(t.Context(), kind)
			asJSON, _ := json.Marshal(err)
			receipt, _ := s.Client.CreateEvent(t.Context(), testrig.Event())
			seen := fmt.Sprintf("%v %+v %#v %s %v %+v %#v %+v %s", err, err, err, asJSON, s.Client, s.Client, s.Client, receipt, log.String())
			for e := err; e != nil; e = errors.Unwrap(e) {
				seen += fmt.Sprintf("%v %+v %#v", e, e, e)
			}
			for i := 0; i+12 <= len(s.Bearer); i++ {
				if strings.Contains(seen, s.Bearer[i:i+12]) {
					t.Fatalf("%d on %s shows %q of the token", f.Status, kind, s.Bearer[i:i+12])
				}
			}
		}
	}
}

// P2: a process that is killed in the middle of a call, without an outbox, leaves
// one event at most.
func TestFault_P2_Killed(t *testing.T) {
	if os.Getenv("GRACEDB_TEST_KILLED_CHILD") != "" {
		publishAsChild(t)
		return
	}
	for _, tt := range []struct {
		name     string
		setup    func(*testrig.Rig) (reached func() bool)
		messages int
	}{
		{"reserving", func(r *testrig.Rig) func() bool {
			r.Script(gracetest.Fault{On: "reserve", Wait: time.Minute})
			before := len(r.Requests())
			return func() bool { return len(r.Requests()) > before } // the root document is fetched
		}, 0},
		{"reserved", func(r *testrig.Rig) func() bool {
			r.Script(gracetest.Fault{On: "reserve", Think: time.Minute})
			return func() bool { return len(r.Reservations()) > 0 }
		}, 0},
		{"published, not acknowledged", func(r *testrig.Rig) func() bool {
			held := r.Kafka.Inject(kafkatest.Fault{
				Do: kafkatest.HoldResponse, Delay: time.Minute, Keys: []kmsg.Key{kmsg.Produce},
				Match: func(req kmsg.Request) bool { return len(req.(*kmsg.ProduceRequest).Topics) > 0 },
			})
			return func() bool { return held.Hits() > 0 }
		}, 1},
		{"uploading", func(r *testrig.Rig) func() bool {
			r.Kafka.Fail(produceRefused)
			r.Script(gracetest.Fault{On: "upload", Think: time.Minute})
			return func() bool { return len(r.Events()) > 0 }
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := testrig.NewRig(t, testrig.RigConfig{})
			reached := tt.setup(r)
			ca := t.TempDir() + "/ca.pem"
			if err := os.WriteFile(ca, r.PEM(), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFault_P2_Killed$")
			cmd.Env = append(os.Environ(), "GRACEDB_TEST_KILLED_CHILD="+strings.Join([]string{
				r.URL(), ca, r.Kafka.Addrs()[0], r.Kafka.CAFile(), r.Bearer,
			}, " "))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(30 * time.Second); !reached() && time.Now().Before(deadline); {
				time.Sleep(2 * time.Millisecond)
			}
			if !reached() {
				t.Error("the child did not get there")
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			time.Sleep(50 * time.Millisecond) // for what may be on its way
			m, e := r.Messages(t, "gstlal"), r.Events()
			if len(m) != tt.messages || len(m)+len(e) > 1 || len(r.Reservations()) > 1 {
				t.Errorf("%d messages, %d events, %d reservations", len(m), len(e), len(r.Reservations()))
			}
		})
	}
}

// publishAsChild publishes one event to what the environment names.
func publishAsChild(t *testing.T) {
	env := strings.Fields(os.Getenv("GRACEDB_TEST_KILLED_CHILD"))
	c := testrig.NewClient(t, gracedb.ClientConfig{ServiceURL: env[0], CAFile: env[1], Token: testrig.TokenIs(env[4])})
	p, err := c.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: gracedb.Cluster{Brokers: env[2:3], CAFile: env[3]}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	_, err = c.PublishEvent(t.Context(), p, testrig.Event(), gracedb.PublishOptions{HTTPFallback: true})
	t.Log(err)
}
