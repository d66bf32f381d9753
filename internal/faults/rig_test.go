package faults

import (
	"cmp"
	"context"
	"flag"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb"
	judge "github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		os.Exit(runChild(child))
	}
	if ran, code := rebuilt(); ran {
		os.Exit(code)
	}
	sideBySide()
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// sideBySide lets all parallel tests run at once, unless a flag says otherwise: they
// wait for the real clock, not for a processor.
func sideBySide() {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		_ = flag.Set("test.parallel", "8") // it exists
	}
}

const topic = "gracedb-test.test"

var produces = []kmsg.Key{kmsg.Produce}

// A rig is an embedded cluster and a history of what was sent to it.
type rig struct {
	*kafkatest.Cluster
	*history
	tokens    tokens
	writer    *kgo.Client  // of raw
	epochsEnd atomic.Int64 // where brokers say that the epochs of former leaders end; if zero, where they do
}

// virtually runs f with a rig in virtual time: waits cost nothing, bounds are exact.
func virtually(t *testing.T, cfg kafkatest.Config, f func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// Runs last: what a shape was about to bring to a connection that is closed takes its time.
		t.Cleanup(func() { time.Sleep(time.Second) })
		cfg.Virtual = true
		f(t, newRig(t, cfg))
	})
}

func newRig(t testing.TB, cfg kafkatest.Config) *rig {
	t.Helper()
	if cfg.Topics == nil {
		cfg.Topics = map[string]int{topic: 1}
	}
	c, err := kafkatest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r := &rig{Cluster: c, history: newHistory()}
	// kfake does not know where the epoch of a leader ends until the next has
	// written something, and says that it never was. Kafka does know.
	c.Inject(kafkatest.Fault{
		Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.OffsetForLeaderEpoch}, Count: -1,
		Rewrite: func(req kmsg.Request, resp kmsg.Response) {
			for i, t := range resp.(*kmsg.OffsetForLeaderEpochResponse).Topics {
				for j := range t.Partitions {
					p := &t.Partitions[j]
					end := r.epochsEnd.Load()
					if p.ErrorCode == 0 && (end > 0 || p.EndOffset < 0) {
						p.LeaderEpoch = req.(*kmsg.OffsetForLeaderEpochRequest).Topics[i].Partitions[j].LeaderEpoch
						p.EndOffset = cmp.Or(end, math.MaxInt64)
					}
				}
			}
		},
	})
	return r
}

// tokens is a place where a token is kept. It is found until it is taken away.
type tokens struct {
	mu   sync.Mutex
	gone error
	life time.Duration // of each; if zero, three hours
}

// take makes the source fail with err, or work again if that is nil.
func (k *tokens) take(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = err
}

// source returns a source of new tokens of subject.
func (r *rig) source(subject string) gracedb.TokenSource {
	return func(context.Context) (string, error) {
		r.tokens.mu.Lock()
		defer r.tokens.mu.Unlock()
		if r.tokens.gone != nil {
			return "", r.tokens.gone
		}
		claims := testauth.Claims{Subject: subject}
		if r.tokens.life > 0 {
			claims.Expires = time.Now().Add(r.tokens.life)
		}
		return r.Issuer().Token(claims)
	}
}

// An unasked is an option that Cluster.Opts may not hold, and does not see.
type unasked struct{ kgo.Opt }

func (r *rig) cluster(subject string) gracedb.Cluster {
	return gracedb.Cluster{
		Brokers: r.Addrs(), Instance: "gracedb-test", CAFile: r.CAFile(), Dial: r.Dial, Token: r.source(subject),
	}
}

// producer returns a Producer that the test closes.
func (r *rig) producer(t testing.TB, edit func(*gracedb.ProducerConfig)) *gracedb.Producer {
	t.Helper()
	cfg := gracedb.ProducerConfig{Cluster: r.cluster("alice"), Topic: "test"}
	if edit != nil {
		edit(&cfg)
	}
	p, err := gracedb.NewProducer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// consumer returns a Consumer that the test closes.
func (r *rig) consumer(t testing.TB, edit func(*gracedb.ConsumerConfig)) *gracedb.Consumer {
	t.Helper()
	cfg := gracedb.ConsumerConfig{Cluster: r.cluster("bob"), Topics: []string{"test"}}
	if edit != nil {
		edit(&cfg)
	}
	c, err := gracedb.NewConsumer(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// send publishes the next message of key, which must be acknowledged, and returns
// how long that took.
func (r *rig) send(t testing.TB, p *gracedb.Producer, key string) time.Duration {
	t.Helper()
	took, err := r.try(t, p, key, time.Minute)
	if err != nil {
		t.Fatalf("%s after %v: %v", key, took, err)
	}
	return took
}

// try publishes the next message of key, and notes its outcome.
func (r *rig) try(t testing.TB, p *gracedb.Producer, key string, timeout time.Duration) (time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	m := r.begin(key)
	start := time.Now()
	got, err := p.ProduceSync(ctx, m)
	r.end(t, m, got, err)
	return time.Since(start), err
}

// async queues the next message of key, and notes its outcome when it has one.
func (r *rig) async(t testing.TB, ctx context.Context, p *gracedb.Producer, key string) error {
	m := r.begin(key)
	err := p.Produce(ctx, m, func(got gracedb.Message, err error) { r.end(t, m, got, err) })
	if err != nil {
		r.end(t, m, gracedb.Message{}, err)
	}
	return err
}

// records returns all that is in the topics' logs; without names, in the usual one.
func (r *rig) records(t testing.TB, topics ...string) []*kgo.Record {
	t.Helper()
	if topics == nil {
		topics = []string{topic}
	}
	var all []*kgo.Record
	for _, name := range topics {
		records, err := r.Records(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, records...)
	}
	return all
}

// judge holds the history against the log. After Close nothing is pending.
func (r *rig) judge(t testing.TB, topics ...string) {
	t.Helper()
	r.shared.Judge(t, r.records(t, topics...))
}

// close closes p, whose messages must all have been delivered.
func closeProducer(t testing.TB, p *gracedb.Producer) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// traffic sends messages at a rate until stop is called, with an own key for each
// of n senders, one after the other without waiting for acknowledgements.
func (r *rig) traffic(t testing.TB, p *gracedb.Producer, senders int, every time.Duration) (stop func()) {
	return judge.Traffic(t, senders, every, func(key string) { _ = r.async(t, context.Background(), p, key) })
}

// firstAck returns how long it takes until a message that is sent now is
// acknowledged.
func (r *rig) firstAck(t testing.TB, p *gracedb.Producer) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		_, err := r.try(t, p, "probe", 100*time.Millisecond)
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("nothing is acknowledged: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// within checks a bound.
func within(t testing.TB, what string, took, bound time.Duration) {
	t.Helper()
	if took > bound {
		t.Errorf("%s took %v, want at most %v", what, took, bound)
	}
}

func wantKinds(t testing.TB, err error, is, isNot []error, names ...string) {
	t.Helper()
	judge.WantKinds(t, err, is, isNot, names...)
}

func is(errs ...error) []error { return errs }

// raw appends records past all faults and without this package.
func (r *rig) raw(t testing.TB, topic string, partition int32, values ...string) {
	t.Helper()
	for try := range 3 {
		if r.writer == nil {
			var err error
			if r.writer, err = r.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
				kgo.MetadataMinAge(50*time.Millisecond), kgo.DisableClientMetrics()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.writer.Close)
		}
		var records []*kgo.Record
		for _, v := range values {
			records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)})
		}
		done := make(chan error, 1)
		writer := r.writer
		go func() { done <- writer.ProduceSync(context.Background(), records...).FirstErr() }()
		select {
		case err := <-done:
			if err == nil {
				return
			}
			t.Logf("writing: %v", err)
			writer.Close()
		case <-time.After(5 * time.Second):
			writer.Close()
			<-done
		}
		// A client that a killed broker has led astray.
		r.writer = nil
		if try == 2 {
			t.Fatal("cannot write")
		}
	}
}
