package kafkatest

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A partition without a leader is told as Apache Kafka tells it, and where it ended is
// known by the epoch that had none.
func TestLeaderless(t *testing.T) {
	c := start(t, Config{Topics: map[string]int{topic: 2}})
	cl := client(t, c, as(c, testauth.Claims{}), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordRetries(1))
	send := func() error { return cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: 1}).FirstErr() }
	state := func() kmsg.MetadataResponseTopicPartition {
		t.Helper()
		req := kmsg.NewPtrMetadataRequest()
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = new(topic)
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range resp.Topics[0].Partitions {
			if p.Partition == 1 {
				return p
			}
		}
		t.Fatal("no such partition")
		panic("unreachable")
	}
	end := func(epoch int32) kmsg.OffsetForLeaderEpochResponseTopicPartition {
		t.Helper()
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.Partition, rp.LeaderEpoch = 1, epoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		resp, err := cl.Broker(0).Request(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0]
	}
	for range 2 {
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	before := state()
	if err := c.LoseLeader(topic, 1); err != nil {
		t.Fatal(err)
	}
	now := state()
	if now.Leader != -1 || now.ErrorCode != kerr.LeaderNotAvailable.Code || now.LeaderEpoch != before.LeaderEpoch+1 {
		t.Errorf("leader %d, epoch %d after %d, error %d", now.Leader, now.LeaderEpoch, before.LeaderEpoch, now.ErrorCode)
	}
	if p := end(now.LeaderEpoch); p.ErrorCode != kerr.NotLeaderForPartition.Code {
		t.Errorf("the end of the epoch is told by who does not lead: %+v", p)
	}
	if err := send(); !errors.Is(err, kerr.NotLeaderForPartition) && !errors.Is(err, kerr.LeaderNotAvailable) && !errors.Is(err, kgo.ErrRecordRetries) {
		t.Errorf("sending: %v", err)
	}
	if err := c.ElectLeader(topic, 1, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // before and after something is written in the new epoch
		if p := end(now.LeaderEpoch); p.EndOffset != 2 || p.ErrorCode != 0 {
			t.Errorf("the epoch without a leader ended at %d, error %d", p.EndOffset, p.ErrorCode)
		}
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	if after := state(); after.Leader != 0 || after.ErrorCode != 0 || after.LeaderEpoch != now.LeaderEpoch+1 {
		t.Errorf("leader %d, epoch %d, error %d", after.Leader, after.LeaderEpoch, after.ErrorCode)
	}
}
