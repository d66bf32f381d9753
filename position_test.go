package gracedb_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// Where the group's position is behind the end of a log that began anew, what is done from
// its beginning is stored all the same.
func TestConsumerStoresBeforeOldPosition(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
		client, err := cl.Client()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.Generation = "g", -1
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = testTopic, topicID(t, cl)
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Offset, rp.LeaderEpoch = 100, 5
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		if _, err := req.RequestWith(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		if at := committed(t, cl, "g", testTopic, 0); at != 100 {
			t.Fatal(at)
		}
		for _, value := range []string{"a", "b", "c"} {
			produceRaw(t, cl, record(testTopic, 0, value))
		}
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g"})
		got, errs := pollAll(t, c, 10*time.Second)
		t.Log(got, errs)
		if err := c.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if at := committed(t, cl, "g", testTopic, 0); len(got) != 3 || at != 3 {
			t.Errorf("stored as done: %d", at)
		}
	})
}

func topicID(t testing.TB, cl *kafkatest.Cluster) [16]byte {
	client, err := cl.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = new(testTopic)
	req.Topics = append(req.Topics, mt)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].TopicID
}
