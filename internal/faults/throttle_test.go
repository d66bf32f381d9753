package faults_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testlog"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// throttle makes the broker ask for a pause in each answer of these kinds.
func throttle(c *kafkatest.Cluster, pause time.Duration, keys ...kmsg.Key) *kafkatest.Injection {
	return c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: keys, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
		switch r := resp.(type) {
		case *kmsg.ProduceResponse:
			r.ThrottleMillis = int32(pause.Milliseconds())
		case *kmsg.FetchResponse:
			r.ThrottleMillis = int32(pause.Milliseconds())
		case *kmsg.MetadataResponse:
			r.ThrottleMillis = int32(pause.Milliseconds())
		}
	}})
}

// A pause that a broker asks for is told as that, by errors and by one line a minute; what
// was not sent meanwhile is not said to be written, and what Close withdraws was not.
func TestThrottledProducer(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		var log testlog.Log
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		if err != nil {
			t.Fatal(err)
		}
		throttle(c, 15*time.Minute, kmsg.Produce)
		testrig.Send(t, p, "first") // its answer asks for the pause
		time.Sleep(time.Millisecond)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			start := time.Now()
			_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("second")})
			cancel()
			testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrDelivery), testrig.Kinds(gracedb.ErrOutcomeUnknown), "throttled by "+c.Addrs()[0]+" for another 1m", "was not written")
			if took := time.Since(start); took > 3100*time.Millisecond {
				t.Errorf("after %v", took)
			}
		}
		var outcome error
		if err := p.Produce(t.Context(), gracedb.Message{Value: []byte("third")}, func(_ gracedb.Message, err error) { outcome = err }); err != nil {
			t.Fatal(err)
		}
		testrig.WantErr(t, p.Close(), testrig.Kinds(gracedb.ErrDelivery), testrig.Kinds(gracedb.ErrOutcomeUnknown), "closed with 1 message(s) failed", "throttled by "+c.Addrs()[0], "a quota of alice")
		testrig.WantErr(t, outcome, testrig.Kinds(gracedb.ErrDelivery, gracedb.ErrClosed), testrig.Kinds(gracedb.ErrOutcomeUnknown), "throttled by "+c.Addrs()[0])
		if got := testrig.Values(t, c, testrig.Topic); len(got) != 1 {
			t.Errorf("written: %q", got)
		}
		if n := strings.Count(log.String(), "throttles this client"); n != 1 || !strings.Contains(log.String(), "asked=15m0s kept=2m0s") {
			t.Errorf("said %d times: %s", n, log.String())
		}
	})
}

// A pause of more than two minutes is two minutes long, and then another connection is made.
func TestThrottleEnds(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
		i := throttle(c, 15*time.Minute, kmsg.Produce)
		testrig.Send(t, p, "first")
		i.Remove()
		before := c.ConnectionCount()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if _, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("second")}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start).Round(time.Second); took < 2*time.Minute-time.Second || took > 2*time.Minute+time.Second {
			t.Errorf("after %v", took)
		}
		if n := c.ConnectionCount(); n <= before {
			t.Errorf("%d connections, as before", n)
		}
		if got := testrig.Values(t, c, testrig.Topic); len(got) != 2 {
			t.Errorf("written: %q", got)
		}
	})
}

// A Consumer that is throttled reads on after two minutes, and says why it does not before.
func TestThrottledConsumer(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		var log testlog.Log
		cluster := testrig.ClusterFor(t, c, "bob")
		cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
		con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
		i := throttle(c, time.Hour, kmsg.Fetch)
		time.Sleep(10 * time.Second)
		i.Remove()
		testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "x"))
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if m, err := con.Poll(ctx); err != nil || string(m.Value) != "x" {
			t.Errorf("%q, %v", m.Value, err)
		}
		if took := time.Since(start); took > 2*time.Minute+5*time.Second {
			t.Errorf("after %v", took)
		}
		if !strings.Contains(log.String(), "asked=1h0m0s kept=2m0s") {
			t.Error(log.String())
		}
	})
}

// A pause that is kept whole is told by the log once a minute, with how long it is, and by
// what waits for it.
func TestShortThrottle(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		var log testlog.Log
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		i := throttle(c, 20*time.Second, kmsg.Produce)
		testrig.Send(t, p, "first")
		i.Remove() // Kafka has no more to say against the next, when its pause is over
		time.Sleep(time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("second")})
		testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrDelivery), testrig.Kinds(gracedb.ErrOutcomeUnknown), "throttled by "+c.Addrs()[0]+" for another 1", "was not written")
		start := time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("third")}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 16*time.Second || took > 18*time.Second {
			t.Errorf("after %v", took)
		}
		if n := strings.Count(log.String(), "throttles this client (a quota of its sub or client.id): nothing is sent to it meanwhile"); n != 1 || !strings.Contains(log.String(), "for=20s") {
			t.Errorf("said %d times: %s", n, log.String())
		}
	})
}

// With another way for the event, a throttle that lasts longer than Kafka is waited for is
// not waited for at all, whether it began before or is told while the event waits; the event
// is not written then. One that ends in time is waited for, and so is one of a connection
// that carries no messages.
func TestThrottledFallback(t *testing.T) {
	for _, tt := range []struct {
		name  string
		pause time.Duration
		falls bool
	}{{"long", 49 * time.Second, true}, {"short", 4 * time.Second, false}} {
		t.Run(tt.name, func(t *testing.T) {
			testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
				throttle(r.Kafka, tt.pause, kmsg.Produce)
				if _, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{}); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{HTTPFallback: true})
				took := time.Since(start)
				if err != nil {
					t.Fatal(err)
				}
				if !tt.falls {
					if got.Fallback != nil || took < tt.pause-time.Second || took > tt.pause+time.Second {
						t.Errorf("after %v: %v", took, got.Fallback)
					}
					return
				}
				if took > 100*time.Millisecond {
					t.Errorf("after %v", took)
				}
				testrig.WantErr(t, got.Fallback, testrig.Kinds(gracedb.ErrDelivery, gracedb.ErrConnection), testrig.Kinds(gracedb.ErrOutcomeUnknown),
					"throttled by "+r.Kafka.Addrs()[0]+" for another 4", "(a quota of alice or of its client.id)", "was not written")
				time.Sleep(time.Minute)
				if n := len(r.Messages(t, "gstlal")); n != 1 || r.Count("upload") != 1 {
					t.Errorf("%d messages, %d uploads", n, r.Count("upload"))
				}
			})
		})
	}
}

func TestThrottledFallback_ToldMeanwhile(t *testing.T) {
	testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
		const late = 2 * time.Second
		r.Kafka.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Keys: []kmsg.Key{kmsg.Produce}, Delay: late})
		throttle(r.Kafka, time.Minute, kmsg.Produce)
		r.Kafka.SetProduceQuota(1)
		first := make(chan error, 1)
		go func() {
			_, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{})
			first <- err
		}()
		time.Sleep(late / 2)
		start := time.Now()
		got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{HTTPFallback: true})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < late/3 || took > late/2+200*time.Millisecond {
			t.Errorf("after %v", took)
		}
		testrig.WantErr(t, got.Fallback, testrig.Kinds(gracedb.ErrDelivery), testrig.Kinds(gracedb.ErrOutcomeUnknown), "throttled by")
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

func TestThrottledFallback_OtherConnection(t *testing.T) {
	testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
		if _, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
		throttle(r.Kafka, time.Minute, kmsg.Metadata)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		testrig.WantErr(t, r.Producer.Check(ctx), testrig.Kinds(gracedb.ErrProducer), nil, "throttled by") // its second request
		time.Sleep(20 * time.Second)                                                                       // until connections are kept warm
		got, err := r.Client.PublishEvent(t.Context(), r.Producer, testrig.Event(), gracedb.PublishOptions{HTTPFallback: true})
		if err != nil || got.Fallback != nil {
			t.Errorf("%v, %v", got.Fallback, err)
		}
	})
}

// Check says at once that it would have to wait longer than it may, and passes by no
// throttle by tearing its connection down; nor does what keeps connections warm.
func TestThrottledCheck(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
		i := throttle(c, 100*time.Second, kmsg.Produce)
		testrig.Send(t, p, "first")
		i.Remove()
		before, start := c.ConnectionCount(), time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		testrig.WantErr(t, p.Check(ctx), testrig.Kinds(gracedb.ErrProducer, gracedb.ErrConnection), nil, "throttled by "+c.Addrs()[0]+" for another 1m40s (a quota of alice or of its client.id)")
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("after %v", took)
		}
		time.Sleep(70 * time.Second)
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("second")}); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 99*time.Second {
			t.Errorf("written after %v", took)
		}
		if n := c.ConnectionCount(); n != before {
			t.Errorf("%d connections, were %d", n, before)
		}
	})
}
