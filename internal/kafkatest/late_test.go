package kafkatest

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A request that was read is appended long after its client has gone, if nothing that
// was appended meanwhile forbids it.
func TestHoldRequest(t *testing.T) {
	for _, tt := range []struct {
		name      string
		meanwhile []sent
		want      int // records in the log
		moved     bool
		cut       bool // at the broker's end, too
	}{
		{"alone", nil, 2, false, false},
		{"alone, cut off", nil, 2, false, true},
		{"sent again", []sent{one(7, 0, 0)}, 2, false, false},
		{"sent again, and more", []sent{one(7, 0, 0), one(7, 0, 1)}, 3, false, false},
		{"given up under a new epoch", []sent{one(7, 1, 0)}, 2, false, false},
		{"given up, the same numbers", []sent{{producer: 7, records: 2}}, 3, false, false},
		{"given up, nobody remembers", []sent{one(8, 0, 0)}, 3, false, false},
		{"moved meanwhile", nil, 1, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, Config{Brokers: 2}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
				if err := c.MoveLeader(topic, 0, 0); err != nil {
					t.Fatal(err)
				}
				i := c.Inject(Fault{Do: HoldRequest, Delay: time.Minute, Keys: produces})
				other := client(t, c, as(c, testauth.Claims{}), kgo.RequestTimeoutOverhead(time.Second))
				if _, err := other.Broker(0).Request(t.Context(), one(7, 0, 0).request(t, c)); err == nil {
					t.Fatal("answered")
				}
				other.Close()
				if tt.cut {
					c.Drop(RST)
					time.Sleep(time.Second)
				}
				if i.Hits() != 1 {
					t.Fatal("not held")
				}
				if len(values(t, c, topic)) != 1 {
					t.Error("appended before it was let go")
				}
				for _, s := range tt.meanwhile {
					if p := s.to(t, c, cl, 0); p.ErrorCode != 0 {
						t.Error(kerr.ErrorForCode(p.ErrorCode))
					}
				}
				if tt.moved {
					if err := c.MoveLeader(topic, 0, 1); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				if n := len(values(t, c, topic)); n != tt.want {
					t.Errorf("%d records, want %d", n, tt.want)
				}
			})
		})
	}
}

// The leader that has appended waits for its followers, and is another before they have
// it, or the request's time is over: the batch is in the log all the same.
func TestAwaitReplicas(t *testing.T) {
	bubble(t, Config{Brokers: 2}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		move := func(node int32) {
			t.Helper()
			if err := c.MoveLeader(topic, 0, node); err != nil {
				t.Error(err)
			}
		}
		move(0)
		for n, tt := range []struct {
			delay, after time.Duration
			do           func()
			want         *kerr.Error
		}{
			{300 * time.Millisecond, 300 * time.Millisecond, nil, nil},
			{5 * time.Second, time.Second, nil, kerr.RequestTimedOut}, // sent says 1 s
			{500 * time.Millisecond, 200 * time.Millisecond, func() { move(1) }, kerr.NotLeaderForPartition},
		} {
			c.Inject(Fault{Do: AwaitReplicas, Delay: tt.delay, Keys: produces})
			if tt.do != nil {
				time.AfterFunc(tt.after, tt.do)
			}
			begin := time.Now()
			p := one(7, 0, int32(n)).to(t, c, cl, 0)
			wantCode(t, "appended", p, tt.want, int64(1+n))
			if d := time.Since(begin); d < tt.after || d > tt.after+2*replicaPoll {
				t.Errorf("answered after %v, want %v", d, tt.after)
			}
			if tt.want == kerr.NotLeaderForPartition && p.CurrentLeader.LeaderID != 1 {
				t.Errorf("the leader is %d", p.CurrentLeader.LeaderID)
			}
		}
		wantCode(t, "again at the new leader", one(7, 0, 2).to(t, c, cl, 1), nil, 3)
		c.Inject(Fault{Do: AwaitReplicas, Delay: 500 * time.Millisecond, Keys: produces})
		time.AfterFunc(100*time.Millisecond, func() { _ = c.DeleteTopic(topic) })
		wantCode(t, "with the topic", one(7, 0, 3).to(t, c, cl, 1), kerr.UnknownTopicOrPartition, 4)
	})
}

// Who does not lead says who does, if he knows.
func TestHintLeaders(t *testing.T) {
	bubble(t, Config{Brokers: 3}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		if err := c.MoveLeader(topic, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := c.MoveLeader(topic, 0, 2); err != nil {
			t.Fatal(err)
		}
		epoch := c.Kfake().PartitionInfo(topic, 0).Epoch
		check := func(what string, leader, epoch int32, brokers ...int32) {
			t.Helper()
			resp := ask(t, cl, 0, one(7, 0, 0).request(t, c))
			p := resp.Topics[0].Partitions[0]
			wantCode(t, what, p, kerr.NotLeaderForPartition, -1)
			if p.CurrentLeader.LeaderID != leader || p.CurrentLeader.LeaderEpoch != epoch {
				t.Errorf("%s: %+v, want %d in epoch %d", what, p.CurrentLeader, leader, epoch)
			}
			var got []int32
			for _, b := range resp.Brokers {
				got = append(got, b.NodeID)
				if b.Host != "localhost" || b.Port != 9092+b.NodeID {
					t.Errorf("%s: %+v", what, b)
				}
			}
			if len(got) != len(brokers) || len(got) > 0 && got[0] != brokers[0] {
				t.Errorf("%s: brokers %v, want %v", what, got, brokers)
			}
		}
		check("true", 2, epoch, 2)
		c.HintLeaders(NoHints)
		check("none", -1, -1)
		c.HintLeaders(StaleHints)
		check("stale", 0, epoch-1, 0)
		c.HintLeaders(TrueHints)
		if err := c.LoseLeader(topic, 0); err != nil {
			t.Fatal(err)
		}
		check("nobody", -1, epoch+1)
	})
}

// A topic that is deleted and made anew: by its id a batch does not get to the new one,
// by its name it does, and as the first of its producer there.
func TestRemadeTopic(t *testing.T) {
	for name, versions := range map[string]*kversion.Versions{"now": nil, "3.9": kversion.V3_9_0()} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{Versions: versions}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
				want := func(offset int64, byID *kerr.Error, byName *kerr.Error) (*kerr.Error, int64) {
					if versions == nil {
						return byID, -1
					}
					return byName, offset
				}
				old := one(7, 0, 0).request(t, c)
				next := one(7, 0, 1).request(t, c)
				wantCode(t, "before", ask(t, cl, 0, old).Topics[0].Partitions[0], nil, 1)
				if err := c.DeleteTopic(topic); err != nil {
					t.Fatal(err)
				}
				err, offset := want(-1, kerr.UnknownTopicID, kerr.UnknownTopicOrPartition)
				wantCode(t, "without the topic", ask(t, cl, 0, next).Topics[0].Partitions[0], err, offset)
				if err := c.CreateTopic(topic, 1, nil); err != nil {
					t.Fatal(err)
				}
				err, offset = want(0, kerr.UnknownTopicID, nil)
				wantCode(t, "next, to the old one", ask(t, cl, 0, next).Topics[0].Partitions[0], err, offset)
				err, offset = want(-1, kerr.UnknownTopicID, kerr.OutOfOrderSequenceNumber)
				wantCode(t, "again, to the old one", ask(t, cl, 0, old).Topics[0].Partitions[0], err, offset)
			})
		})
	}
}

// A node whose metadata lag behind tells of a topic as it was: by its name, by the id
// that it had, and with all others; it knows nothing of the new id.
func TestLagMetadata(t *testing.T) {
	bubble(t, Config{Brokers: 2, Topics: map[string]int{topic: 1, "other": 1}}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		told := func(node int, name *string, id [16]byte) kmsg.MetadataResponseTopic {
			t.Helper()
			req := kmsg.NewPtrMetadataRequest()
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic, rt.TopicID = name, id
			if name != nil || id != [16]byte{} {
				req.Topics = append(req.Topics, rt)
			}
			resp, err := cl.Broker(node).Request(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range resp.(*kmsg.MetadataResponse).Topics {
				if m.Topic == nil || *m.Topic == topic {
					return m
				}
			}
			return kmsg.MetadataResponseTopic{ErrorCode: -1}
		}
		if err := c.LagMetadata("nonsense", 1); err == nil {
			t.Error("no such topic lags")
		}
		if err := c.MoveLeader(topic, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := c.LagMetadata(topic, 1); err != nil {
			t.Fatal(err)
		}
		before := told(0, new(topic), [16]byte{})
		check := func(what string, got kmsg.MetadataResponseTopic, id [16]byte, code *kerr.Error) {
			t.Helper()
			if err := kerr.ErrorForCode(got.ErrorCode); got.TopicID != id || !errors.Is(err, code) && (code != nil || err != nil) {
				t.Errorf("%s: %+v", what, got)
			}
		}
		if err := c.DeleteTopic(topic); err != nil {
			t.Fatal(err)
		}
		check("deleted, by name", told(1, new(topic), [16]byte{}), before.TopicID, nil)
		check("deleted, by id", told(1, nil, before.TopicID), before.TopicID, nil)
		check("deleted, among all", told(1, nil, [16]byte{}), before.TopicID, nil)
		if err := c.CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.MoveLeader(topic, 0, 1); err != nil {
			t.Fatal(err)
		}
		after := told(0, new(topic), [16]byte{})
		if after.TopicID == before.TopicID {
			t.Error("the same topic")
		}
		late := told(1, new(topic), [16]byte{})
		check("made anew, by name", late, before.TopicID, nil)
		if p := late.Partitions[0]; p.Leader != 0 || p.LeaderEpoch != before.Partitions[0].LeaderEpoch {
			t.Errorf("leader %d, epoch %d", p.Leader, p.LeaderEpoch)
		}
		check("made anew, by the old id", told(1, nil, before.TopicID), before.TopicID, nil)
		check("made anew, by the new id", told(1, nil, after.TopicID), after.TopicID, kerr.UnknownTopicID)
		check("made anew, among all", told(1, nil, [16]byte{}), before.TopicID, nil)
		c.CatchUp(1)
		check("caught up", told(1, new(topic), [16]byte{}), after.TopicID, nil)
	})
}
