package faultproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "a.b"

// start returns an embedded broker, a proxy before it and a client of the proxy.
func start(t *testing.T) (*kafkatest.Cluster, *Proxy, *kgo.Client) {
	t.Helper()
	cluster, err := kafkatest.Start(kafkatest.Config{Topics: map[string]int{topic: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	proxy, err := New(cluster.Authority())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addrs()...), kgo.Dialer(overTLS(cluster, proxy.Dial)),
		kgo.ProducerLinger(0), kgo.DisableClientMetrics(), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DefaultProduceTopic(topic),
		kgo.SASL(oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := cluster.Issuer().Token(testauth.Claims{})
			return oauth.Auth{Token: token}, err
		})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return cluster, proxy, client
}

func overTLS(c *kafkatest.Cluster, dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, &tls.Config{RootCAs: c.Authority().Pool(), ServerName: "localhost"})
		return conn, conn.HandshakeContext(ctx)
	}
}

func send(t *testing.T, client *kgo.Client, value string) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	if err := client.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	return time.Since(began)
}

func wantLog(t *testing.T, c *kafkatest.Cluster, want ...string) {
	t.Helper()
	records, err := c.Records(topic)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, string(r.Value))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q in the log, want %q", got, want)
	}
}

// The second Produce meets the fault, and no other; how often the broker sees it
// tells on which side of the broker the frame was lost.
func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault Fault
		seen  int // Produce requests that reach the broker
	}{
		{"request reset", Fault{Do: Cut}, 3},
		{"half a request", Fault{Do: Cut, Forward: 0.5}, 3},
		{"answer reset", Fault{Do: Cut, Response: true}, 4},
		{"end inside an answer", Fault{Do: Cut, Response: true, Forward: 0.5, FIN: true}, 4},
		{"request held", Fault{Do: Hold, For: 200 * time.Millisecond}, 3},
		{"answer held", Fault{Do: Hold, For: 200 * time.Millisecond, Response: true}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster, proxy, client := start(t)
			tt.fault.Keys, tt.fault.Skip = []kmsg.Key{kmsg.Produce}, 1
			i := proxy.Inject(tt.fault)
			send(t, client, "a")
			if i.Hits() != 0 {
				t.Error("the first was hit")
			}
			if took := send(t, client, "b"); took < tt.fault.For {
				t.Errorf("b took %v", took)
			}
			send(t, client, "c")
			if i.Hits() != 1 {
				t.Errorf("%d hits", i.Hits())
			}
			wantLog(t, cluster, "a", "b", "c")
			if n := cluster.Requests()[kmsg.Produce]; n != tt.seen {
				t.Errorf("the broker has seen %d Produce requests, want %d", n, tt.seen)
			}
			if n := proxy.Requests(kmsg.Produce); n < 3 || n > 4 {
				t.Errorf("the proxy has seen %d Produce requests", n)
			}
		})
	}
}

func TestDrop(t *testing.T) {
	for _, response := range []bool{false, true} {
		cluster, proxy, client := start(t)
		send(t, client, "a")
		before := cluster.Requests()[kmsg.ListGroups]
		i := proxy.Inject(Fault{Keys: []kmsg.Key{kmsg.ListGroups}, Response: response, Count: 100})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, client)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("swallowed: %v", err)
		}
		if n := cluster.Requests()[kmsg.ListGroups] - before; response != (n > 0) || i.Hits() == 0 {
			t.Errorf("answers: %v: the broker has seen %d requests, %d hits", response, n, i.Hits())
		}
		i.Remove()
		proxy.CutAll()
		if _, err := kmsg.NewPtrListGroupsRequest().RequestWith(t.Context(), client); err != nil {
			t.Error(err)
		}
	}
}

func TestLine(t *testing.T) {
	cluster, proxy, client := start(t)
	send(t, client, "a")

	proxy.Freeze()
	timer := time.AfterFunc(300*time.Millisecond, proxy.Thaw)
	defer timer.Stop()
	if took := send(t, client, "frozen"); took < 250*time.Millisecond {
		t.Errorf("frozen for %v", took)
	}
	if n := proxy.CutAll(); n == 0 {
		t.Error("no connection to cut")
	}
	send(t, client, "cut")

	proxy.SetShape(Shape{Chunk: 1})
	send(t, client, "one byte at a time")
	proxy.SetShape(Shape{PerSecond: 50_000})
	if took := send(t, client, strings.Repeat("x", 20_000)); took < 300*time.Millisecond {
		t.Errorf("20 kB at 50 kB/s took %v", took)
	}
	proxy.SetShape(Shape{Latency: 100 * time.Millisecond})
	if took := send(t, client, "far"); took < 200*time.Millisecond {
		t.Errorf("100 ms away took %v", took)
	}
	proxy.SetShape(Shape{})
	wantLog(t, cluster, "a", "frozen", "cut", "one byte at a time", strings.Repeat("x", 20_000), "far")
}

func TestNobodyThere(t *testing.T) {
	_, proxy, _ := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	// The reset may come before Dial has returned.
	if conn, err := proxy.Dial(t.Context(), "tcp", l.Addr().String()); err == nil {
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("somebody answers")
		}
	}
	proxy.Close()
	if _, err := proxy.Dial(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}
