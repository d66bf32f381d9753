//go:build unix

package chaos

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/faultproxy"
	"github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A rig is what one test uses: a topic of its own, a proxy before the brokers, a
// place for tokens, and a history of what was sent.
type rig struct {
	kafka   *realkafka.Cluster
	topic   string // full name
	ca      string
	proxy   *faultproxy.Proxy
	tokens  tokens
	history *history.History
}

func newRig(t *testing.T, pipeline string, partitions int32) *rig {
	t.Helper()
	r := &rig{kafka: brokers(t), topic: gracedb.MakeTopicName(instance, pipeline), history: history.New()}
	r.ca = caFile(t, r.kafka)
	must(t, r.kafka.CreateTopic(t.Context(), r.topic, partitions, nil))
	waitInSync(t, r.kafka, r.topic)
	var err error
	r.proxy, err = faultproxy.New(r.kafka.Authority)
	must(t, err)
	t.Cleanup(r.proxy.Close)
	r.tokens.issuer = r.kafka.Issuer
	return r
}

// tokens is a place where a token is found until it is taken away.
type tokens struct {
	issuer *testauth.Issuer

	mu     sync.Mutex
	gone   error
	claims testauth.Claims
}

// take makes the source fail with err, or work again if that is nil.
func (k *tokens) take(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = err
}

// say makes new tokens say something else.
func (k *tokens) say(claims testauth.Claims) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.claims = claims
}

// source is a gracedb.TokenSource of new tokens.
func (k *tokens) source(context.Context) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone != nil {
		return "", k.gone
	}
	return k.issuer.Token(k.claims)
}

// cluster is the brokers as seen through the proxy.
func (r *rig) cluster() gracedb.Cluster {
	return gracedb.Cluster{
		Brokers: r.kafka.Addrs(), Instance: instance, CAFile: r.ca, Dial: r.proxy.Dial, Token: r.tokens.source,
	}
}

// producer returns a Producer that the test closes.
func (r *rig) producer(t testing.TB, edit func(*gracedb.ProducerConfig)) *gracedb.Producer {
	t.Helper()
	cfg := gracedb.ProducerConfig{Cluster: r.cluster(), Topic: r.topic}
	if edit != nil {
		edit(&cfg)
	}
	p, err := gracedb.NewProducer(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// consumer returns a Consumer that the test closes.
func (r *rig) consumer(t testing.TB, edit func(*gracedb.ConsumerConfig)) *gracedb.Consumer {
	t.Helper()
	cfg := gracedb.ConsumerConfig{Cluster: r.cluster(), Topics: []string{r.topic}}
	if edit != nil {
		edit(&cfg)
	}
	c, err := gracedb.NewConsumer(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// try publishes the next message of key, and notes its outcome.
func (r *rig) try(t testing.TB, p *gracedb.Producer, key string, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	m := r.history.Begin(key)
	start := time.Now()
	got, err := p.ProduceSync(ctx, m)
	r.history.End(m, got, err)
	return time.Since(start), err
}

// send publishes the next message of key, which must be acknowledged.
func (r *rig) send(t testing.TB, p *gracedb.Producer, key string) time.Duration {
	t.Helper()
	took, err := r.try(t, p, key, time.Minute)
	if err != nil {
		t.Fatalf("%s after %v: %v", key, took, err)
	}
	return took
}

// traffic sends 20 messages per second from each of n senders, without waiting for
// acknowledgements, until stop is called.
func (r *rig) traffic(t testing.TB, p *gracedb.Producer, senders int) (stop func()) {
	return history.Traffic(t, senders, 50*time.Millisecond, func(key string) {
		m := r.history.Begin(key)
		err := p.Produce(context.Background(), m, func(got gracedb.Message, err error) { r.history.End(m, got, err) })
		if err != nil {
			r.history.End(m, gracedb.Message{}, err)
		}
	})
}

// probe is the key of messages that are expected to fail.
const probe = "probe"

// firstAck returns when a message that was sent after the call is acknowledged.
func (r *rig) firstAck(t testing.TB, p *gracedb.Producer) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		_, err := r.try(t, p, probe, 100*time.Millisecond)
		if err == nil {
			return
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("nothing is acknowledged: %v", err)
		}
	}
}

// close closes p and holds the history against the log. All but the probes must
// have been delivered.
func (r *rig) close(t testing.TB, p *gracedb.Producer) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	r.judge(t)
	said := 0
	for value, s := range r.history.Sends() {
		if s.Outcome != history.Delivered && s.Key != probe && said < 5 {
			t.Errorf("%s is %v: %v", value, s.Outcome, s.Err)
			said++
		}
	}
}

func (r *rig) judge(t testing.TB) {
	t.Helper()
	r.history.Judge(t, r.records(t))
}

func (r *rig) records(t testing.TB) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	records, err := r.kafka.Records(ctx, r.topic)
	must(t, err)
	return records
}

// within checks what is promised, with the room that real clocks need.
func within(t testing.TB, what string, took, promised time.Duration) {
	t.Helper()
	atMost(t, what, took, room*promised)
}

// atMost checks a bound, and prints what was measured.
func atMost(t testing.TB, what string, took, bound time.Duration) {
	t.Helper()
	t.Logf("%s: %v, at most %v", what, round(took), bound)
	if took > bound {
		t.Errorf("%s took %v, want at most %v", what, took, bound)
	}
}

func wantKinds(t testing.TB, err error, is []error, names ...string) {
	t.Helper()
	history.WantKinds(t, err, is, nil, names...)
}
