package kafkatest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

const topic = "gracedb-test.test"

var produces = []kmsg.Key{kmsg.Produce}

// bubble runs f with a cluster on a virtual network and a client that has produced
// the record "first".
func bubble(t *testing.T, cfg Config, f func(t *testing.T, c *Cluster, cl *kgo.Client), opts ...kgo.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Virtual = true
		c := start(t, cfg)
		opts = append([]kgo.Opt{kgo.DialTimeout(5 * time.Second), kgo.RequestTimeoutOverhead(5 * time.Second), kgo.ProduceRequestTimeout(5 * time.Second)}, opts...)
		cl := client(t, c, as(c, testauth.Claims{}), opts...)
		produce(t, cl, "first")
		f(t, c, cl)
		cl.Close()
		c.Close()
	})
}

// Each action on Produce requests: the record is in the log once, soon or late,
// and the fault was met.
func TestActionsOnProduce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  Fault
		before bool          // nothing is appended by the request that meets the fault
		least  time.Duration // that the record takes
		most   time.Duration
	}{
		{"CutRequest", Fault{Do: CutRequest}, true, 0, time.Second},
		{"CutRequest RST", Fault{Do: CutRequest, How: RST}, true, 0, time.Second},
		{"DropRequest", Fault{Do: DropRequest}, true, 10 * time.Second, 11 * time.Second},
		{"CutResponse", Fault{Do: CutResponse}, false, 0, time.Second},
		{"CutResponse 5 times", Fault{Do: CutResponse, How: RST, Count: 5}, false, 0, 2 * time.Second},
		{"DropResponse", Fault{Do: DropResponse}, false, 10 * time.Second, 11 * time.Second},
		{"HalfResponse", Fault{Do: HalfResponse}, false, 0, time.Second},
		{"HoldResponse", Fault{Do: HoldResponse, Delay: 3 * time.Second}, false, 3 * time.Second, 3 * time.Second},
		{"ErrorResponse", Fault{Do: ErrorResponse, Err: kerr.NotLeaderForPartition}, false, 0, time.Second},
		{"HugeResponse", Fault{Do: HugeResponse, Length: 2<<30 - 1}, false, 0, 11 * time.Second},
		{"HugeResponse negative", Fault{Do: HugeResponse, Length: -1}, false, 0, 11 * time.Second},
		{"GarbageResponse", Fault{Do: GarbageResponse}, false, 0, 11 * time.Second},
		{"StrayResponse", Fault{Do: StrayResponse}, false, 0, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
				fault := tt.fault
				fault.Keys = produces
				i := c.Inject(fault)
				begin := time.Now()
				var atHit []string
				watched := make(chan struct{})
				go func() {
					defer close(watched)
					if err := i.Wait(t.Context(), 1); err != nil {
						t.Error(err)
					}
					if tt.least > 0 {
						time.Sleep(time.Second)
						atHit = values(t, c, topic)
					}
				}()
				produce(t, cl, "second")
				if d := time.Since(begin); d < tt.least || d > tt.most {
					t.Errorf("took %v, want %v to %v", d, tt.least, tt.most)
				}
				<-watched
				if tt.least > 0 && (len(atHit) == 1) != tt.before {
					t.Errorf("the log after the fault: %q", atHit)
				}
				if got, want := i.Hits(), max(1, tt.fault.Count); got != want {
					t.Errorf("%d hits, want %d", got, want)
				}
				if diff := cmp.Diff([]string{"first", "second"}, values(t, c, topic)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestThrottle(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		c.Inject(Fault{Do: ThrottleResponse, Delay: 2 * time.Second, Keys: produces})
		produce(t, cl, "second")
		begin := time.Now()
		produce(t, cl, "third")
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("the record after the throttled one took %v, want 2s", d)
		}
	})
}

func TestRewrite(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		i := c.Inject(Fault{
			Do: RewriteResponse, Keys: produces, Count: -1,
			Match: func(r kmsg.Request) bool { return r.(*kmsg.ProduceRequest).Acks == -1 },
			Rewrite: func(_ kmsg.Request, r kmsg.Response) {
				r.(*kmsg.ProduceResponse).Topics[0].Partitions[0].BaseOffset = 1000
			},
		})
		offset := func() int64 {
			r, err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).First()
			if err != nil {
				t.Fatal(err)
			}
			return r.Offset
		}
		if got := offset(); got != 1000 {
			t.Errorf("offset %d, want 1000", got)
		}
		i.Remove()
		if got := offset(); got != 2 {
			t.Errorf("offset %d, want 2", got)
		}
	})
}

func TestFail(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		all := c.Fail(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch, kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("error %v", err)
		}
		if diff := cmp.Diff([]string{"first"}, values(t, c, topic)); diff != "" {
			t.Error(diff)
		}
		all.Remove()
		c.Fail(kfake.Fault{Keys: produces, Err: kerr.NotEnoughReplicasAfterAppend, Count: 2})
		produce(t, cl, "second")
		if diff := cmp.Diff([]string{"first", "second"}, values(t, c, topic)); diff != "" {
			t.Error(diff)
		}
	})
}

// What no client would send ends its connection, and nothing else.
func TestHostileClient(t *testing.T) {
	c := start(t, Config{Plaintext: true})
	for _, frame := range []string{
		"\xff\xff\xff\xff", "\x7f\xff\xff\xff", "\x00\x00\x00\x00", "\x00\x00\x00\x02\x00\x12",
		"\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x00\x00\x01\xff\xff",
		"\x00\x00\x00\x0a\xff\xff\x00\x00\x00\x00\x00\x01\xff\xff",
		"\x00\x00\x00\x0a\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff",
		"\x00\x00\x00\x0a\x00\x24\x00\x00\x00\x00\x00\x01\xff\xff",
		"GET / HTTP/1.1\r\n\r\n",
		strings.Repeat("\x00\x00\x00\x0a\x00\x11\x00\x01", 10),
	} {
		conn, err := c.Dial(t.Context(), "tcp", c.Addrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, frame); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("%q: %d bytes of an answer, %v", frame, n, err)
		}
		_ = conn.Close()
	}
	if err := client(t, c, as(c, testauth.Claims{})).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestOnTopic(t *testing.T) {
	bubble(t, Config{Topics: map[string]int{topic: 1, "gracedb-test.other": 1}}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		i := c.Inject(Fault{Do: CutRequest, Count: -1, Match: c.OnTopic("gracedb-test.other")})
		produce(t, cl, "second")
		if n := i.Hits(); n != 0 {
			t.Errorf("%d hits on another topic", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cl.Produce(ctx, &kgo.Record{Topic: "gracedb-test.other"}, nil)
		if err := i.Wait(ctx, 1); err != nil {
			t.Error(err)
		}
	})
}
