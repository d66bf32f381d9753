package faults_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// What an error says of a setting or a right that is wrong ends with what to do. TestKafkaHints and
// TestTextsOfHTTP have what broken connections and web servers say.
func TestAdvice(t *testing.T) {
	producer := func(t *testing.T, c gracedb.Cluster) error {
		return closing(gracedb.NewProducer(testrig.Within(t, 5*time.Second), gracedb.ProducerConfig{Cluster: c, Topic: "test"}))
	}
	topicOnly := map[string][]kfake.ACL{"alice": {
		testrig.Allow(kmsg.ACLResourceTypeTopic, testrig.Topic, kmsg.ACLOperationRead),
	}}
	for _, row := range []struct {
		name  string
		kafka kafkatest.Config
		meet  func(*testing.T, *kafkatest.Cluster, gracedb.Cluster) error
		says  []string
	}{
		{"nobody listens on the port", kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster, at gracedb.Cluster) error {
			c.Refuse()
			return producer(t, at)
		}, []string{"refused", "Brokers has a wrong port"}},
		{"a mute broker", kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster, at gracedb.Cluster) error {
			c.Freeze()
			return producer(t, at)
		}, []string{"no answer", "firewall"}},
		{"no right on the group", kafkatest.Config{Subjects: topicOnly}, func(t *testing.T, _ *kafkatest.Cluster, at gracedb.Cluster) error {
			return closing(gracedb.NewConsumer(testrig.Within(t, 5*time.Second), gracedb.ConsumerConfig{Cluster: at, Topics: []string{"test"}, GroupID: "my-group"}))
		}, []string{"my-group", "alice", "READ"}},
		{"no right to write", kafkatest.Config{Subjects: topicOnly}, func(t *testing.T, _ *kafkatest.Cluster, at gracedb.Cluster) error {
			return producer(t, at)
		}, []string{testrig.Topic, "alice", "the right WRITE"}},
		{"a topic in the wrong case", kafkatest.Config{}, func(t *testing.T, _ *kafkatest.Cluster, at gracedb.Cluster) error {
			return closing(gracedb.NewConsumer(testrig.Within(t, 5*time.Second), gracedb.ConsumerConfig{Cluster: at, Topics: []string{"TEST"}}))
		}, []string{`did you mean "test"?`}},
		{"a token that the broker refuses", kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster, at gracedb.Cluster) error {
			c.RefuseTokens(kafkatest.Refusal{Status: "invalid_token"})
			return producer(t, at)
		}, []string{"refused the token", "audience"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			testrig.Virtually(t, row.kafka, func(t *testing.T, c *kafkatest.Cluster) {
				err := row.meet(t, c, testrig.ClusterFor(t, c, "alice"))
				testrig.WantErr(t, err, testrig.Kinds(), nil, row.says...)
				t.Log(err)
			})
		})
	}
}

// An event that is too large for Kafka says what its file may have, since base64 adds a third.
func TestAdviceOnLargeEvents(t *testing.T) {
	testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
		e := testrig.Event()
		e.Data = make([]byte, 9<<20)
		_, err := r.Client.PublishEvent(t.Context(), r.Producer, e, gracedb.PublishOptions{})
		testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrTooLarge), nil, "base64")
		t.Log(err)
	})
}

// Whose token it is that GraceDB does not let in stands in the error.
func TestAdviceOnForbidden(t *testing.T) {
	testrig.InRig(t, testrig.RigConfig{}, func(t *testing.T, r *testrig.Rig) {
		r.Script(gracetest.Fault{Status: 403, Body: `{"detail":"You do not have permission to perform this action."}`})
		_, err := r.Client.Reserve(t.Context(), testrig.Event())
		testrig.WantErr(t, err, testrig.Kinds(), nil, "permission", "alice")
		t.Log(err)
	})
}
