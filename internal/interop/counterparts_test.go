//go:build unix

package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A bench is a broker with one topic, "test" of the instance "counterparts", and a
// valid token where FindToken looks.
type bench struct {
	cluster gracedb.Cluster
}

const missingTopic = "non-existent-topic-12345"

// counterparts do what the peer's integration tests of the same names do.
var counterparts = map[string]func(context.Context, *testing.T, bench){
	"TestKafkaProducerIntegration.test_producer_creation": func(ctx context.Context, t *testing.T, b bench) {
		p := b.producer(ctx, t, "test")
		if n := p.Pending(); n != 0 {
			t.Errorf("%d pending", n)
		}
		must(t, p.Check(ctx))
	},
	"TestKafkaProducerIntegration.test_ping_round_trip": func(ctx context.Context, t *testing.T, b bench) {
		m, err := b.producer(ctx, t, "test").Ping(ctx, "")
		must(t, err)
		var body struct{ Type, Sub string }
		must(t, m.Decode(&body))
		if m.Topic != "counterparts.test" || m.Partition < 0 || m.Offset < 0 || body.Type != "ping" || body.Sub != "alice" {
			t.Errorf("%+v says %+v", m, body)
		}
	},
	"TestKafkaProducerIntegration.test_produce_single_message_strict": func(ctx context.Context, t *testing.T, b bench) {
		b.produce(ctx, t, 1)
	},
	"TestKafkaProducerIntegration.test_produce_multiple_messages": func(ctx context.Context, t *testing.T, b bench) {
		b.produce(ctx, t, 10)
	},
	"TestKafkaProducerIntegration.test_produce_with_delivery_callback": func(ctx context.Context, t *testing.T, b bench) {
		p := b.producer(ctx, t, "test")
		calls := make(chan gracedb.Message, 2)
		must(t, p.Produce(ctx, gracedb.Message{Key: []byte("TEST_CALLBACK")}, func(m gracedb.Message, err error) {
			if err != nil {
				t.Error(err)
			}
			calls <- m
		}))
		must(t, p.Flush(ctx))
		if m := <-calls; len(calls) != 0 || string(m.Key) != "TEST_CALLBACK" || m.Topic != "counterparts.test" {
			t.Errorf("%+v, and %d more calls", m, len(calls))
		}
	},
	"TestKafkaProducerIntegration.test_produce_with_headers": func(ctx context.Context, t *testing.T, b bench) {
		c := b.consumer(ctx, t)
		want := []gracedb.Header{{Key: "source", Value: []byte("integration-test")}, {Key: "version", Value: []byte("1.0")}}
		p := b.producer(ctx, t, "test")
		_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("{}"), Headers: want})
		must(t, err)
		m, err := c.Poll(ctx)
		must(t, err)
		if diff := cmp.Diff(want, m.Headers); diff != "" {
			t.Errorf("headers (-sent +received):\n%s", diff)
		}
	},
	"TestKafkaProducerIntegration.test_explicit_topic_is_namespaced": func(ctx context.Context, t *testing.T, b bench) {
		m, err := b.producer(ctx, t, "").Ping(ctx, "test")
		must(t, err)
		if m.Topic != "counterparts.test" {
			t.Errorf("topic %s", m.Topic)
		}
	},
	"TestKafkaProducerIntegration.test_token_refresh_manager_over_time": func(ctx context.Context, t *testing.T, b bench) {
		var asked atomic.Int32
		find := gracedb.FindToken(gracedb.TokenQuery{})
		b.cluster.Token = gracedb.ReloadToken(func(ctx context.Context) (string, error) {
			asked.Add(1)
			return find(ctx)
		}, 5*time.Minute)
		b.produce(ctx, t, 3)
		if n := asked.Load(); n != 1 {
			t.Errorf("the token was looked up %d times, although it stayed good", n)
		}
	},
	"TestKafkaProducerIntegration.test_context_manager": func(ctx context.Context, t *testing.T, b bench) {
		p := b.producer(ctx, t, "test")
		delivered := make(chan error, 1)
		must(t, p.Produce(ctx, gracedb.Message{Key: []byte("TEST_CTX")}, func(_ gracedb.Message, err error) { delivered <- err }))
		must(t, p.Close())
		must(t, <-delivered)
		if n := p.Pending(); n != 0 {
			t.Errorf("%d pending", n)
		}
	},
	"TestKafkaAuthenticationIntegration.test_token_discovery": func(ctx context.Context, t *testing.T, _ bench) {
		token, err := gracedb.FindToken(gracedb.TokenQuery{Scopes: []string{"gracedb.read"}})(ctx)
		must(t, err)
		if strings.Count(token, ".") != 2 {
			t.Error("not a token")
		}
	},
	"TestKafkaAuthenticationIntegration.test_oauth_callback": func(ctx context.Context, t *testing.T, b bench) {
		find := gracedb.FindToken(gracedb.TokenQuery{})
		token, err := find(ctx)
		must(t, err)
		mechanism := gracedb.OAuthBearer(find)
		_, first, err := mechanism.Authenticate(ctx, b.cluster.Brokers[0])
		must(t, err)
		if mechanism.Name() != "OAUTHBEARER" || !bytes.Contains(first, []byte("\x01auth=Bearer "+token+"\x01")) {
			t.Error("the client's first message is another")
		}
	},
	"TestKafkaAuthenticationIntegration.test_refresh_manager": func(ctx context.Context, t *testing.T, _ bench) {
		find := gracedb.FindToken(gracedb.TokenQuery{})
		asked := 0
		reload := gracedb.ReloadToken(func(ctx context.Context) (string, error) {
			asked++
			return find(ctx)
		}, 5*time.Minute)
		first, err := reload(ctx)
		must(t, err)
		second, err := reload(ctx)
		must(t, err)
		if first != second || asked != 1 {
			t.Errorf("looked up %d times", asked)
		}
	},
	"TestKafkaErrorHandling.test_unreachable_broker_fails_at_construction": func(ctx context.Context, t *testing.T, b bench) {
		b.cluster.Brokers = []string{"no-such-host.invalid:9092"}
		began := time.Now()
		_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: b.cluster, Topic: "test"})
		checkKinds(t, "NewProducer", err, "ErrKafka ErrProducer ErrConnection", "no-such-host.invalid")
		t.Logf("after %v; the peer takes 11 s", time.Since(began).Round(time.Millisecond))
	},
	"TestKafkaErrorHandling.test_missing_topic_fails_at_construction": func(ctx context.Context, t *testing.T, b bench) {
		_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: b.cluster, Topic: missingTopic})
		checkKinds(t, "NewProducer", err, "ErrKafka ErrProducer ErrDelivery? ErrTopic", "counterparts."+missingTopic, "does not exist")
	},
	"TestKafkaErrorHandling.test_wrong_instance_lists_available_instances": func(ctx context.Context, t *testing.T, b bench) {
		b.cluster.Instance = "no-such-instance"
		_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: b.cluster})
		checkKinds(t, "NewProducer", err, "ErrKafka ErrProducer ErrDelivery? ErrTopic", "no-such-instance", "counterparts")
	},
	"TestKafkaErrorHandling.test_ping_missing_topic": func(ctx context.Context, t *testing.T, b bench) {
		_, err := b.producer(ctx, t, "test").Ping(ctx, missingTopic)
		checkKinds(t, "Ping", err, "ErrKafka ErrProducer ErrDelivery ErrTopic", missingTopic, "does not exist")
	},
	"TestKafkaErrorHandling.test_missing_topic_diagnosed_on_strict_flush": func(ctx context.Context, t *testing.T, b bench) {
		p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: b.cluster, Lazy: true})
		must(t, err)
		defer func() { must(t, p.Close()) }()
		if err = p.Produce(ctx, gracedb.Message{Topic: missingTopic, Value: []byte("{}")}, nil); err == nil {
			err = p.Flush(ctx)
		}
		if !errors.Is(err, gracedb.ErrTopic) || !errors.Is(err, gracedb.ErrDelivery) || !strings.Contains(err.Error(), "counterparts."+missingTopic) {
			t.Errorf("flush: %v", err)
		}
	},
	"TestGraceDbClientIntegration.test_create_producer_from_client": func(ctx context.Context, t *testing.T, b bench) {
		client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: "https://counterparts.example/api/"})
		must(t, err)
		b.cluster.Instance = ""
		p, err := client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: b.cluster, Topic: "test"})
		must(t, err)
		defer func() { must(t, p.Close()) }()
		m, err := p.Ping(ctx, "")
		must(t, err)
		if m.Topic != "counterparts.test" {
			t.Errorf("topic %s", m.Topic)
		}
	},
	"TestKafkaPerformance.test_throughput": func(ctx context.Context, t *testing.T, b bench) {
		began := time.Now()
		b.produce(ctx, t, 1000)
		if took := time.Since(began); took > 100*time.Second {
			t.Errorf("1000 messages took %v", took)
		} else {
			t.Logf("1000 messages took %v, with the start of the producer", took.Round(time.Millisecond))
		}
	},
}

func (b bench) producer(ctx context.Context, t *testing.T, topic string) *gracedb.Producer {
	t.Helper()
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: b.cluster, Topic: topic})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

func (b bench) consumer(ctx context.Context, t *testing.T) *gracedb.Consumer {
	t.Helper()
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: b.cluster, Topics: []string{"test"}})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// produce sends n events and waits for them.
func (b bench) produce(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	p := b.producer(ctx, t, "test")
	for i := range n {
		m, err := gracedb.JSONMessage("", map[string]any{"graceid": fmt.Sprintf("TEST%d", i), "group": "Test", "index": i})
		must(t, err)
		m.Key = fmt.Appendf(nil, "TEST%d", i)
		must(t, p.Produce(ctx, m, nil))
	}
	must(t, p.Flush(ctx))
	if left := p.Pending(); left != 0 {
		t.Errorf("%d pending after the flush", left)
	}
}

// runCounterparts runs them all on a broker, with a token where FindToken looks.
func runCounterparts(ctx context.Context, t *testing.T, brokers []string, authority *testauth.Authority, issuer *testauth.Issuer) {
	t.Helper()
	dir := t.TempDir()
	token, err := issuer.Token(testauth.Claims{})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "ca.pem"), authority.PEM(), 0o600))
	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("BEARER_TOKEN_FILE", filepath.Join(dir, "token"))
	for _, name := range peerTests {
		t.Run(name, func(t *testing.T) {
			test := counterparts[name]
			if test == nil {
				t.Fatal("has no counterpart")
			}
			test(ctx, t, bench{gracedb.Cluster{Brokers: brokers, Instance: "counterparts", CAFile: filepath.Join(dir, "ca.pem")}})
		})
	}
}

func TestPeerCounterpartsOnRealKafka(t *testing.T) {
	ctx, s := need(t)
	must(t, s.kafka.CreateTopic(ctx, "counterparts.test", 1, nil))
	runCounterparts(ctx, t, s.kafka.Addrs(), s.kafka.Authority, s.kafka.Issuer)
}

func TestPeerCounterpartsOnTheEmbeddedBroker(t *testing.T) {
	c, err := kafkatest.Start(kafkatest.Config{Topics: map[string]int{"counterparts.test": 1}})
	must(t, err)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	runCounterparts(ctx, t, c.Addrs(), c.Authority(), c.Issuer())
}
