// Package gracedbtest is a Kafka broker, a GraceDB with its supervisor, and an issuer of tokens
// in the process, for tests of programs that use package gracedb. They speak what the real ones
// speak, over TLS, on the loopback interface, and fail on request:
//
//	s := gracedbtest.Start(t, gracedbtest.Config{})
//	err := run(t.Context(), s.Client(), s.Cluster()) // your program's own function
//	if events := s.Events(); err != nil || len(events) != 1 || events[0].Pipeline != "gstlal" {
//		t.Error(err, events)
//	}
//
// It brings the embedded broker (franz-go's kfake) into tests only: import it in files that end
// in _test.go. The services work on a real network, and so not inside testing/synctest.
package gracedbtest

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// instance is that of the services, after the host of their URL.
const instance = "localhost"

// A Config configures Services.
type Config struct {
	// Topics are pipelines that have a topic, such as "gstlal". If empty, those of GraceDB,
	// and "test".
	Topics []string
}

// Services are a broker, a GraceDB and an issuer of tokens, which trust each other. Their methods
// may be called at any time from any goroutine.
type Services struct {
	tb      testing.TB
	kafka   *kafkatest.Cluster
	gracedb *gracetest.Server
	url     string
	topics  []string // full names
	token   string
	warn    atomic.Bool // CreatedWithWarnings

	mu   sync.Mutex
	lost *kafkatest.Injection // of AcknowledgementLost; guarded by mu
}

// Start starts a broker, a GraceDB and an issuer of tokens on the loopback interface, and
// returns when they are ready. tb's Cleanup ends them. What fails is Fatal to tb.
func Start(tb testing.TB, cfg Config) *Services {
	tb.Helper()
	s := &Services{tb: tb}
	if len(cfg.Topics) == 0 {
		cfg.Topics = strings.Fields("test gstlal pycbc mbta spiir aframe mly cwb cwb2g olib")
	}
	partitions := make(map[string]int)
	for _, pipeline := range cfg.Topics {
		topic := gracedb.MakeTopicName(instance, pipeline)
		if partitions[topic] == 0 {
			s.topics = append(s.topics, topic)
		}
		partitions[topic] = 1
	}
	check := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal("gracedbtest: ", err)
		}
	}
	authority, err := testauth.NewAuthority()
	check(err)
	issuer, err := testauth.NewIssuer("https://issuer.test")
	check(err)
	s.token, err = issuer.Token(testauth.Claims{Subject: "albert.einstein@ligo.org"})
	check(err)
	s.kafka, err = kafkatest.Start(kafkatest.Config{Authority: authority, Issuer: issuer, Topics: partitions})
	check(err)
	tb.Cleanup(s.kafka.Close)
	s.gracedb, err = gracetest.Start(gracetest.Config{Authority: authority, Issuer: issuer, Warnings: s.warnings})
	check(err)
	tb.Cleanup(s.gracedb.Close)
	s.url = strings.Replace(s.gracedb.URL(), "127.0.0.1", instance, 1)
	check(s.supervise())
	return s
}

// supervise begins to upload to GraceDB what comes over Kafka, until tb ends.
func (s *Services) supervise() error {
	ctx, cancel := context.WithCancel(context.Background())
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: s.Cluster(), Topics: s.topics})
	if err != nil {
		cancel()
		return err
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		for ctx.Err() == nil { // a fault ends the stream, and not the supervisor
			_ = s.gracedb.Supervise(ctx, consumer.Stream(ctx))
		}
	})
	s.tb.Cleanup(func() {
		cancel()
		ended.Wait()
		_ = consumer.Close()
	})
	return nil
}

// Cluster returns a configuration that reaches the broker, with a good token.
func (s *Services) Cluster() gracedb.Cluster {
	return gracedb.Cluster{
		Brokers: s.kafka.Addrs(), ServiceURL: s.url, CAFile: s.kafka.CAFile(), Token: gracedb.StaticToken(s.token),
	}
}

// Client returns a configuration that reaches GraceDB, with a good token.
func (s *Services) Client() gracedb.ClientConfig {
	return gracedb.ClientConfig{ServiceURL: s.url, CAFile: s.kafka.CAFile(), Token: gracedb.StaticToken(s.token)}
}

// An Event is one that GraceDB has the data of, however they came.
type Event struct {
	GraceID, Submitter      string   // Submitter is who reserved or created it
	Group, Pipeline, Search string   // as the server was told
	Labels                  []string // that were set with the upload, or later
	Offline                 bool     // as Event's
	Filename                string   // as the server stores it
	Data                    []byte   // contents of the file
	Kafka                   bool     // it came over Kafka, and the supervisor has uploaded it; else over HTTP
}

// Events returns the events that GraceDB has the data of, in the order of their graceids. What
// was published over Kafka is among them once the supervisor has uploaded it, for which
// [gracedb.Client.WaitUploaded] waits.
func (s *Services) Events() []Event {
	var events []Event
	for _, e := range s.gracedb.Events() {
		events = append(events, Event{
			GraceID: e.GraceID, Submitter: e.Submitter, Group: e.Group, Pipeline: e.Pipeline, Search: e.Search,
			Labels: e.Labels, Offline: e.Offline, Filename: e.Filename, Data: e.Data, Kafka: e.KafkaTopic != "",
		})
	}
	return events
}

// Reserved returns the graceids that were reserved, whether GraceDB has their data or not.
func (s *Services) Reserved() []string {
	var ids []string
	for _, e := range s.gracedb.Reservations() {
		ids = append(ids, e.GraceID)
	}
	return ids
}

// Messages returns all that is in a topic, a pipeline or a full name, in its order, even while
// the broker is away. A topic that does not exist is Fatal.
func (s *Services) Messages(topic string) []gracedb.Message {
	s.tb.Helper()
	if !strings.Contains(topic, ".") {
		topic = gracedb.MakeTopicName(instance, topic)
	}
	records, err := s.kafka.Records(topic)
	if err != nil {
		s.tb.Fatal("gracedbtest: ", err)
	}
	messages := make([]gracedb.Message, len(records))
	for i, r := range records {
		messages[i] = gracedb.Message{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: r.Timestamp,
		}
		for _, h := range r.Headers {
			messages[i].Headers = append(messages[i].Headers, gracedb.Header(h))
		}
	}
	return messages
}
