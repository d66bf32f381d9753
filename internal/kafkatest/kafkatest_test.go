package kafkatest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bearer is the least that a client of a broker with OAUTHBEARER needs. It answers
// a challenge as RFC 7628 wants it, and keeps the JSON.
type bearer struct {
	token func() (string, error)
	mu    sync.Mutex
	heard []string
}

func (*bearer) Name() string { return "OAUTHBEARER" }

func (b *bearer) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	t, err := b.token()
	return b, []byte("n,,\x01auth=Bearer " + t + "\x01\x01"), err
}

func (b *bearer) Challenge(challenge []byte) (bool, []byte, error) {
	if len(challenge) == 0 {
		return true, nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = append(b.heard, string(challenge))
	return false, []byte{1}, nil
}

func (b *bearer) challenges() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard
}

// raw is a mechanism that sends a first message as it is.
type raw string

func (raw) Name() string { return "OAUTHBEARER" }
func (r raw) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	return &bearer{}, []byte(r), nil
}

func start(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	if cfg.Topics == nil {
		cfg.Topics = map[string]int{"gracedb-test.test": 1}
	}
	c, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// as returns a mechanism for a subject, with a new token at every login.
func as(c *Cluster, claims testauth.Claims) *bearer {
	return &bearer{token: func() (string, error) { return c.Issuer().Token(claims) }}
}

func client(t *testing.T, c *Cluster, m sasl.Mechanism, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(c.Addrs()...),
		kgo.DisableClientMetrics(),
		kgo.ProducerLinger(0),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.DefaultProduceTopic("gracedb-test.test"),
	}, opts...)
	if m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	if c.CAFile() != "" {
		opts = append(opts, kgo.Dialer(tlsDialer(c)))
	} else {
		opts = append(opts, kgo.Dialer(c.Dial))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, cl *kgo.Client, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatalf("produce %q: %v", value, err)
	}
}

func values(t *testing.T, c *Cluster, topic string) []string {
	t.Helper()
	records, err := c.Records(topic)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range records {
		out = append(out, string(r.Value))
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
	}{
		{"TLS", Config{}},
		{"plaintext", Config{Plaintext: true}},
		{"three brokers", Config{Brokers: 3, Topics: map[string]int{"gracedb-test.test": 6}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, tt.cfg)
			cl := client(t, c, as(c, testauth.Claims{Algorithm: testauth.RS256}), kgo.ConsumeTopics("gracedb-test.test"))
			var want []string
			for i := range 20 {
				want = append(want, fmt.Sprint(i))
				produce(t, cl, want[i])
			}
			got := map[string]bool{}
			for len(got) < len(want) {
				fetches := cl.PollFetches(t.Context())
				if err := fetches.Err(); err != nil {
					t.Fatal(err)
				}
				fetches.EachRecord(func(r *kgo.Record) { got[string(r.Value)] = true })
			}
			if n := len(values(t, c, "gracedb-test.test")); n != len(want) {
				t.Errorf("%d records in the log, want %d", n, len(want))
			}
			if in, out := c.Bytes(); in == 0 || out == 0 {
				t.Errorf("bytes: %d in, %d out", in, out)
			}
			conns := c.Connections()
			if len(conns) == 0 || conns[0].Subject != "alice" {
				t.Errorf("connections: %+v", conns)
			}
			if n := c.Requests()[kmsg.Produce]; n != 20 {
				t.Errorf("%d Produce requests, want 20", n)
			}
		})
	}
}

func TestVirtual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := Start(Config{Virtual: true, Brokers: 2, MaxSession: 10 * time.Minute, Topics: map[string]int{"gracedb-test.test": 1}})
		if err != nil {
			t.Fatal(err)
		}
		cl := client(t, c, as(c, testauth.Claims{}))
		begin := time.Now()
		n := 0
		for time.Since(begin) < 55*time.Minute {
			produce(t, cl, fmt.Sprint(n))
			n++
			time.Sleep(10 * time.Second)
		}
		if got := len(values(t, c, "gracedb-test.test")); got != n {
			t.Errorf("%d records in the log, want %d", got, n)
		}
		again := 0
		for _, l := range c.Logins() {
			if l.Refused != "" {
				t.Errorf("refused: %+v", l)
			}
			if l.Lifetime != 10*time.Minute {
				t.Errorf("session of %v, want 10m", l.Lifetime)
			}
			if l.Again {
				again++
			}
		}
		if again < 5 {
			t.Errorf("%d re-authentications in 55 minutes, want at least 5", again)
		}
		cl.Close()
		c.Close()
	})
}

func TestCertificate(t *testing.T) {
	authority, err := testauth.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := authority.Certificate("kafka.example")
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, Config{Authority: authority, TLS: &tls.Config{Certificates: []tls.Certificate{wrong}}})
	err = client(t, c, as(c, testauth.Claims{})).Ping(t.Context())
	if err == nil || !strings.Contains(err.Error(), "kafka.example") {
		t.Errorf("error %v", err)
	}
	if got, err := os.ReadFile(c.CAFile()); err != nil || string(got) != string(authority.PEM()) {
		t.Errorf("CA file: %q, %v", got, err)
	}
	c.Close()
	if _, err := os.Stat(c.CAFile()); !os.IsNotExist(err) {
		t.Errorf("CA file after Close: %v", err)
	}
}

func tlsDialer(c *Cluster) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := c.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, &tls.Config{RootCAs: c.Authority().Pool(), ServerName: "localhost"})
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		return conn, nil
	}
}
