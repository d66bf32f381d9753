package kafkatest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A topic tells its own limit, or the broker's.
func TestTopicLimit(t *testing.T) {
	c := start(t, Config{Topics: map[string]int{topic: 1, "gracedb-test.small": 1}, TopicMaxMessageBytes: map[string]int{"gracedb-test.small": 1000}})
	cl := client(t, c, as(c, testauth.Claims{}))
	for topic, want := range map[string]string{topic: "10485760", "gracedb-test.small": "1000"} {
		req := kmsg.NewPtrDescribeConfigsRequest()
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, []string{"max.message.bytes"}
		req.Resources = append(req.Resources, r)
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		if got := *resp.Resources[0].Configs[0].Value; got != want {
			t.Errorf("the limit of %s is %s, want %s", topic, got, want)
		}
	}
}

func TestTopics(t *testing.T) {
	c := start(t, Config{Topics: map[string]int{topic: 1, "gracedb-test.small": 1}, TopicMaxMessageBytes: map[string]int{"gracedb-test.small": 1000}})
	cl := client(t, c, as(c, testauth.Claims{}), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(11<<20), kgo.UnknownTopicRetries(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	send := func(topic string, partition int32, size int) error {
		return cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: make([]byte, size)}).FirstErr()
	}
	for _, tt := range []struct {
		topic string
		size  int
		want  error
	}{
		{topic, 10<<20 - 1000, nil},
		{topic, 10 << 20, kerr.MessageTooLarge},
		{"gracedb-test.small", 500, nil},
		{"gracedb-test.small", 1000, kerr.MessageTooLarge},
		{"gracedb-test.none", 1, kerr.UnknownTopicOrPartition},
	} {
		if err := send(tt.topic, 0, tt.size); !errors.Is(err, tt.want) {
			t.Errorf("%d bytes to %s: %v, want %v", tt.size, tt.topic, err, tt.want)
		}
	}
	if err := c.AddPartitions(topic, 4); err != nil {
		t.Fatal(err)
	}
	if n := len(c.Kfake().PartitionInfos(topic)); n != 4 {
		t.Errorf("%d partitions, want 4", n)
	}
	if err := c.AddPartitions(topic, 2); err == nil {
		t.Error("partitions were taken away")
	}
	if err := c.Trim(topic, 0, 1); err != nil {
		t.Fatal(err)
	}
	if got := values(t, c, topic); len(got) != 0 {
		t.Errorf("%d records after Trim", len(got))
	}
	if err := c.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteTopic(topic); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("deleted twice: %v", err)
	}
	if err := c.CreateTopic(topic, 2, nil); err != nil {
		t.Fatal(err)
	}
	inside, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if err := inside.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("inside")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"inside"}, values(t, c, topic)); diff != "" {
		t.Error(diff)
	}
}

func TestDataDir(t *testing.T) {
	cfg := Config{DataDir: t.TempDir(), Topics: map[string]int{topic: 1}}
	var err error
	if cfg.Issuer, err = testauth.NewIssuer("https://issuer.test"); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		c := start(t, cfg)
		produce(t, client(t, c, as(c, testauth.Claims{})), fmt.Sprint(n))
		if got := len(values(t, c, topic)); got != n+1 {
			t.Errorf("%d records, want %d", got, n+1)
		}
		c.Close()
	}
}
