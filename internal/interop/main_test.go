//go:build unix

package interop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A setting is what the tests of this package share, since a broker takes seconds
// to start: each uses topics of its own.
type setting struct {
	kafka    *realkafka.Cluster
	grace    *gracetest.Server
	instance string
}

// theSetting starts everything when the first test asks for it.
var theSetting = sync.OnceValues(func() (*setting, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	kafka, err := realkafka.Start(ctx, realkafka.Config{})
	if err != nil {
		return nil, err
	}
	s := &setting{kafka: kafka}
	opened = s
	if s.grace, err = gracetest.Start(gracetest.Config{Authority: kafka.Authority, Issuer: kafka.Issuer}); err != nil {
		return nil, err
	}
	if s.instance, err = gracedb.DeriveInstanceName(s.grace.URL()); err != nil {
		return nil, err
	}
	// Alice may do what she likes, and sees what does not exist. Bob may write to a
	// topic of his own, and see the others; dave may see them, carol not.
	return s, errors.Join(
		kafka.Allow(ctx, "alice", "*", kadm.OpRead, kadm.OpWrite, kadm.OpDescribe),
		kafka.AllowGroups(ctx, "alice"),
		kafka.Allow(ctx, "bob", "*", kadm.OpDescribe),
		kafka.Allow(ctx, "bob", s.topic("bob"), kadm.OpWrite),
		kafka.Allow(ctx, "dave", "*", kadm.OpDescribe),
		kafka.CreateTopic(ctx, s.topic("test"), 1, nil),
	)
})

// opened is what TestMain has to close, if any test has needed it.
var opened *setting

func TestMain(m *testing.M) {
	code := m.Run()
	if opened != nil {
		if err := opened.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func (s *setting) close() error {
	if s.grace != nil {
		s.grace.Close()
	}
	return s.kafka.Close()
}

// topic returns the full name of a pipeline's topic.
func (s *setting) topic(pipeline string) string { return gracedb.MakeTopicName(s.instance, pipeline) }

// wanted skips the test unless it is wanted.
func wanted(t *testing.T) {
	t.Helper()
	if os.Getenv("GRACEDB_INTEROP") != "1" {
		t.Skip("needs Java 17, Maven and Python 3 to run Apache Kafka and ligo-gracedb: set GRACEDB_INTEROP=1")
	}
}

// need returns the setting, and a context for the test.
func need(t *testing.T) (context.Context, *setting) {
	t.Helper()
	wanted(t)
	s, err := theSetting()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.kafka.Log(20))
		}
	})
	return ctx, s
}

// create creates topics; those that there are already, for an earlier test, stay.
func (s *setting) create(ctx context.Context, t *testing.T, partitions int32, pipelines ...string) {
	t.Helper()
	for _, name := range pipelines {
		if err := s.kafka.CreateTopic(ctx, s.topic(name), partitions, nil); !errors.Is(err, kerr.TopicAlreadyExists) {
			must(t, err)
		}
	}
}

// sandbox returns one with alice's token in it.
func (s *setting) sandbox(ctx context.Context, t *testing.T) *Sandbox {
	t.Helper()
	box, err := NewSandbox(ctx, t.TempDir(), s.kafka.Authority, s.kafka.Issuer)
	must(t, err)
	must(t, box.SetToken(s.token(t, testauth.Claims{})))
	return box
}

// peer returns one that is closed when the test ends.
func (s *setting) peer(ctx context.Context, t *testing.T) *Process {
	t.Helper()
	p, err := s.sandbox(ctx, t).StartPeer(ctx)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the peer printed:\n%s", p.Log())
		}
		must(t, p.Close())
	})
	return p
}

// options adds to args what the peer needs to reach the broker.
func (s *setting) options(t *testing.T, args Args) Args {
	t.Helper()
	all := Args{
		"bootstrap_servers": s.kafka.Addrs()[0],
		"instance_name":     s.instance,
		"ca_cert_path":      s.caFile(t),
	}
	maps.Copy(all, args)
	return all
}

// cluster is the broker, for somebody with a token of these claims.
func (s *setting) cluster(t *testing.T, claims testauth.Claims) gracedb.Cluster {
	t.Helper()
	return gracedb.Cluster{
		Brokers:    s.kafka.Addrs(),
		ServiceURL: s.grace.URL(),
		Token:      gracedb.StaticToken(s.token(t, claims)),
		CAFile:     s.caFile(t),
	}
}

// client returns one of alice's.
func (s *setting) client(t *testing.T) *gracedb.Client {
	t.Helper()
	c, err := gracedb.NewClient(gracedb.ClientConfig{
		ServiceURL: s.grace.URL(),
		Token:      gracedb.StaticToken(s.token(t, testauth.Claims{})),
		CAFile:     s.caFile(t),
	})
	must(t, err)
	return c
}

// producer returns one of alice's, with a default topic or "".
func (s *setting) producer(ctx context.Context, t *testing.T, topic string) *gracedb.Producer {
	t.Helper()
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topic: topic})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// consumer returns one of alice's, in position.
func (s *setting) consumer(ctx context.Context, t *testing.T, topics ...string) *gracedb.Consumer {
	t.Helper()
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: topics})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func (s *setting) token(t *testing.T, claims testauth.Claims) string {
	t.Helper()
	token, err := s.kafka.Issuer.Token(claims)
	must(t, err)
	return token
}

// caFile returns a file with the authority that signs for broker and server.
func (s *setting) caFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(file, s.kafka.Authority.PEM(), 0o600))
	return file
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
