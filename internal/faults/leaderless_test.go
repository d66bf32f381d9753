package faults_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testlog"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A partition without a leader keeps nobody from starting. What is published to it once it
// has one is read from its position: from where it ended, or from its beginning.
func TestPartitionWithoutLeader(t *testing.T) {
	const dead = 2
	topics := map[string]int{testrig.Topic: 3, "gracedb-test.gstlal": 1}
	for _, group := range testrig.Groups {
		for _, beginning := range []bool{false, true} {
			for _, subscribe := range []bool{false, true} {
				t.Run(fmt.Sprintf("group=%s,beginning=%v,subscribe=%v", group, beginning, subscribe), func(t *testing.T) {
					testrig.Virtually(t, kafkatest.Config{Brokers: 3, Topics: topics}, func(t *testing.T, c *kafkatest.Cluster) {
						testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, dead, "old 0"), testrig.Record(testrig.Topic, dead, "old 1"), testrig.Record(testrig.Topic, 0, "old 2"))
						loseLeader(t, c, testrig.Topic, dead)
						var log testlog.Log
						cluster := testrig.ClusterFor(t, c, "alice")
						cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
						cfg := gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test", "gstlal"}, GroupID: group, FromBeginning: beginning}
						if subscribe {
							cfg.Topics = []string{"gstlal"}
						}
						start := time.Now()
						con := testrig.NewConsumer(t, cfg)
						if subscribe {
							if err := con.Subscribe(t.Context(), "test"); err != nil {
								t.Fatal(err)
							}
						}
						if took := time.Since(start); took > time.Second {
							t.Errorf("ready after %v", took)
						}
						if text := log.String(); !strings.Contains(text, "topic="+testrig.Topic+" partitions=2") {
							t.Errorf("the log does not name the partition: %s", text)
						}
						testrig.WantErr(t, con.Check(t.Context()), testrig.Kinds(gracedb.ErrConnection, gracedb.ErrConsumer, kerr.LeaderNotAvailable), nil, testrig.Topic, "partition 2")

						testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "a"), testrig.Record("gracedb-test.gstlal", 0, "b"))
						want := []string{"a", "b"}
						if beginning {
							want = append(want, "old 2")
						}
						wantRead(t, con, want...)

						electLeader(t, c, testrig.Topic, dead, 0)
						// Before the consumer can have heard of the leader.
						testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, dead, "c"))
						want = []string{"c"}
						if beginning {
							want = []string{"old 0", "old 1", "c"}
						}
						wantRead(t, con, want...)
						if err := con.Check(t.Context()); err != nil {
							t.Error(err)
						}
					})
				})
			}
		}
	}
}

// A group that began while a partition had no leader begins there where the partition
// ended, whoever reads it in the end: a member that came later, or after a restart.
func TestPartitionWithoutLeaderInAGroup(t *testing.T) {
	for _, later := range []string{"while it has none", "when it has one"} {
		t.Run(later, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Topics: map[string]int{testrig.Topic: 2}}, func(t *testing.T, c *kafkatest.Cluster) {
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 1, "old"), testrig.Record(testrig.Topic, 1, "old"))
				loseLeader(t, c, testrig.Topic, 1)
				cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topics: []string{"test"}, GroupID: "g"}
				first, err := gracedb.NewConsumer(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "a"))
				wantRead(t, first, "a")
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				if later == "while it has none" {
					second := testrig.NewConsumer(t, cfg)
					electLeader(t, c, testrig.Topic, 1, 0)
					testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 1, "b"))
					wantRead(t, second, "b")
					return
				}
				electLeader(t, c, testrig.Topic, 1, 0)
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 1, "b"))
				second := testrig.NewConsumer(t, cfg)
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 1, "c"))
				wantRead(t, second, "b", "c")
			})
		})
	}
}

// A Producer starts beside a partition without a leader, and sends to the others.
func TestProducerPartitionWithoutLeader(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		t.Run(fmt.Sprint("of ", partitions), func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testrig.Topic: partitions}}, func(t *testing.T, c *kafkatest.Cluster) {
				dead := int32(partitions - 1)
				loseLeader(t, c, testrig.Topic, dead)
				var log testlog.Log
				cluster := testrig.ClusterFor(t, c, "alice")
				cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
				start := time.Now()
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
				if took := time.Since(start); took > time.Second {
					t.Errorf("ready after %v", took)
				}
				if text := log.String(); !strings.Contains(text, fmt.Sprintf("topic=%s partitions=%d", testrig.Topic, dead)) {
					t.Errorf("the log does not name the partition: %s", text)
				}
				testrig.WantErr(t, p.Check(t.Context()), testrig.Kinds(gracedb.ErrConnection, gracedb.ErrProducer, kerr.LeaderNotAvailable), nil, testrig.Topic, fmt.Sprint("partition ", dead))
				if partitions > 1 {
					if _, err := p.ProduceSync(t.Context(), gracedb.Message{Value: []byte("without a key")}); err != nil {
						t.Error(err)
					}
				}
				electLeader(t, c, testrig.Topic, dead, 0)
				for i := range 20 {
					testrig.Send(t, p, fmt.Sprint(i))
				}
				if err := p.Check(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A partition loses its leader while a message is unanswered. All are written when it has
// one again.
func TestLeaderlessWhileUnanswered(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{Brokers: 2}, func(t *testing.T, c *kafkatest.Cluster) {
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "bob"), Topic: "test"})
		testrig.Send(t, p, "first")
		want := []string{"first"}
		told := make(chan error, 100)
		produce := func(text string, padding int) {
			m := gracedb.Message{Key: []byte("k"), Value: []byte(text + strings.Repeat(" ", padding))}
			if err := p.Produce(t.Context(), m, func(_ gracedb.Message, err error) { told <- err }); err != nil {
				t.Fatal(err)
			}
			want = append(want, text)
		}
		c.LoseProduces(1, kafkatest.DropRequest)
		produce("unanswered", 0)
		time.Sleep(10 * time.Millisecond)
		loseLeader(t, c, testrig.Topic, 0)
		if err := p.Check(testrig.Within(t, time.Second)); err == nil { // asks who leads it
			t.Error("Check is content without a leader")
		}
		for i := range 3 {
			produce(fmt.Sprint("behind it ", i), 600_000) // each a batch of its own
		}
		time.Sleep(15 * time.Second)
		electLeader(t, c, testrig.Topic, 0, 1)
		produce("after the election", 0)
		time.Sleep(time.Minute)
		if n := len(told); n != len(want)-1 {
			t.Fatalf("a minute after the election %d of %d messages are settled", n, len(want)-1)
		}
		for range len(want) - 1 {
			if err := <-told; err != nil {
				t.Error(err)
			}
		}
		got := testrig.Values(t, c, testrig.Topic)
		for i := range got {
			got[i] = strings.TrimRight(got[i], " ")
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// What brokers keep answering is told at the end of a wait, not that there was no answer.
func TestWaitedInVainForAnAnswer(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		c.Fail(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: testrig.Topic, Err: kerr.LeaderNotAvailable, Count: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topics: []string{"test"}})
		testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConsumer, context.DeadlineExceeded, kerr.LeaderNotAvailable), nil, testrig.Topic, "partition 0")
		if err != nil && strings.Contains(err.Error(), "no answer") {
			t.Error(err)
		}
	})
}

func loseLeader(t testing.TB, c *kafkatest.Cluster, topic string, partition int32) {
	t.Helper()
	if err := c.LoseLeader(topic, partition); err != nil {
		t.Fatal(err)
	}
}

func electLeader(t testing.TB, c *kafkatest.Cluster, topic string, partition, node int32) {
	t.Helper()
	if err := c.ElectLeader(topic, partition, node); err != nil {
		t.Fatal(err)
	}
}

// wantRead checks that these come next, in any order, and nothing else.
func wantRead(t testing.TB, con *gracedb.Consumer, want ...string) {
	t.Helper()
	missing := map[string]int{}
	for _, text := range want {
		missing[text]++
	}
	for range want {
		m := testrig.Poll(t, con)
		if missing[string(m.Value)]--; missing[string(m.Value)] < 0 {
			t.Errorf("%s@%d of partition %d came, not wanted: %v", m.Value, m.Offset, m.Partition, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if m, err := con.Poll(ctx); err != context.DeadlineExceeded { //nolint:errorlint // as it is
		t.Errorf("also %s@%d: %v", m.Value, m.Offset, err)
	}
}
