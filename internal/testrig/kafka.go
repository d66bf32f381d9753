package testrig

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// Topic is the topic of most tests.
const Topic = "gracedb-test.test"

// StartCluster starts an embedded broker that ends with the test. It has the topic
// "test" if cfg names none.
func StartCluster(t testing.TB, cfg kafkatest.Config) *kafkatest.Cluster {
	t.Helper()
	if cfg.Topics == nil {
		cfg.Topics = map[string]int{Topic: 1}
	}
	c, err := kafkatest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Virtually runs f with a cluster in virtual time. Waits cost nothing there, and
// bounds are exact.
func Virtually(t *testing.T, cfg kafkatest.Config, f func(*testing.T, *kafkatest.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Virtual = true
		f(t, StartCluster(t, cfg))
	})
}

// ClusterFor returns the configuration of a client of c, with a token of subject.
func ClusterFor(t testing.TB, c *kafkatest.Cluster, subject string) gracedb.Cluster {
	t.Helper()
	return gracedb.Cluster{
		Brokers: c.Addrs(), Instance: "gracedb-test", CAFile: c.CAFile(), Dial: c.Dial,
		Token: gracedb.StaticToken(Mint(t, c, testauth.Claims{Subject: subject})),
	}
}

// Mint returns a token that c believes.
func Mint(t testing.TB, c *kafkatest.Cluster, claims testauth.Claims) string {
	t.Helper()
	tok, err := c.Issuer().Token(claims)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// NewProducer makes a Producer that ends with the test, and in good order.
func NewProducer(t testing.TB, cfg gracedb.ProducerConfig) *gracedb.Producer {
	t.Helper()
	p, err := gracedb.NewProducer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("closing the producer: %v", err)
		}
	})
	return p
}

// NewConsumer makes a Consumer that ends with the test, and in good order.
func NewConsumer(t testing.TB, cfg gracedb.ConsumerConfig) *gracedb.Consumer {
	t.Helper()
	c, err := gracedb.NewConsumer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("closing the consumer: %v", err)
		}
	})
	return c
}

// Send publishes text under the key text and waits for the acknowledgement.
func Send(t testing.TB, p *gracedb.Producer, text string) gracedb.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := p.ProduceSync(ctx, gracedb.Message{Key: []byte(text), Value: []byte(text)})
	if err != nil {
		t.Fatalf("sending %s: %v", text, err)
	}
	return m
}

// Poll returns the next message, which comes soon.
func Poll(t testing.TB, c *gracedb.Consumer) gracedb.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := c.Poll(ctx)
	if err != nil {
		t.Fatalf("Poll: %v", err)
	}
	return m
}

// Values returns what is in a topic's log.
func Values(t testing.TB, c *kafkatest.Cluster, topic string) []string {
	t.Helper()
	records, err := c.Records(topic)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = string(r.Value)
	}
	return out
}

// ProduceRaw appends records past all faults and without this package.
func ProduceRaw(t testing.TB, c *kafkatest.Cluster, records ...*kgo.Record) {
	t.Helper()
	cl, err := c.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(context.WithoutCancel(t.Context()), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// WantErr checks that err is of all kinds, of none of the others, one line, and
// names what it should.
func WantErr(t testing.TB, err error, is, isNot []error, names ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, kind := range is {
		if !errors.Is(err, kind) {
			t.Errorf("not %q: %v", kind, err)
		}
	}
	for _, kind := range isNot {
		if errors.Is(err, kind) {
			t.Errorf("wrongly %q: %v", kind, err)
		}
	}
	text := err.Error()
	if strings.ContainsAny(text, "\n\r") || strings.Count(text, "gracedb: ") != 1 || !strings.HasPrefix(text, "gracedb: ") {
		t.Errorf("not one line with one prefix: %q", text)
	}
	if strings.Contains(text, "eyJ") {
		t.Errorf("a token shows: %q", text)
	}
	for _, name := range names {
		if !strings.Contains(text, name) {
			t.Errorf("%q does not name %q", text, name)
		}
	}
}

// Kinds is a list of errors for WantErr.
func Kinds(errs ...error) []error { return errs }
