package faults_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// at is a time of the messages in these tests: second s of an hour.
func at(s int) time.Time {
	return time.UnixMilli(1_700_000_000_000).Add(time.Duration(s) * time.Second)
}

// produceAt publishes a message for each time to a partition, each in a batch of its own, with the
// number of the second as value.
func produceAt(t *testing.T, cl *kafkatest.Cluster, partition int32, seconds ...int) {
	t.Helper()
	for _, s := range seconds {
		r := testrig.Record(testrig.Topic, partition, fmt.Sprint(s))
		r.Timestamp = at(s)
		testrig.ProduceRaw(t, cl, r)
	}
}

func wantPolled(t *testing.T, c *gracedb.Consumer, want string) {
	t.Helper()
	got, errs := testrig.PollAll(t, c, 10*time.Second)
	if strings.Join(got, " ") != want || len(errs) > 0 {
		t.Errorf("polled %v, want [%s]; %v", got, want, errs)
	}
}

// Since begins at the first message that is not before it, whatever comes behind that one.
func TestConsumerSince(t *testing.T) {
	for _, tt := range []struct {
		name  string
		since time.Time
		want  string
	}{
		{"before 1970", time.Unix(-1, 0), "10 30 20 40 15"},
		{"far back", time.Date(-5_000_000, 1, 1, 0, 0, 0, 0, time.UTC), "10 30 20 40 15"},
		{"the first", at(10), "10 30 20 40 15"},
		{"behind the first by less than a millisecond", at(10).Add(1), "30 20 40 15"},
		{"out of order", at(20), "30 20 40 15"},
		{"the last", at(40), "40 15"},
		{"behind the last", at(41), "15"},
		{"far ahead", time.Unix(1<<60, 0), "15"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testrig.WithGroups(t, 2, func(t *testing.T, cl *kafkatest.Cluster, group string) {
				produceAt(t, cl, 0, 10, 30, 20, 40)
				cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, Since: tt.since}
				c := testrig.NewConsumer(t, cfg)
				produceAt(t, cl, 0, 15)
				wantPolled(t, c, tt.want)
				if group == "" {
					return
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				produceAt(t, cl, 0, 5)
				wantPolled(t, testrig.NewConsumer(t, cfg), "5") // the group has a position, and goes on there
			})
		})
	}
}

// Since holds for topics that are subscribed later, and for a Consumer that starts without a broker.
func TestConsumerSinceLater(t *testing.T) {
	testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		produceAt(t, cl, 0, 10, 20, 30)
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Since: at(20)}
		if cfg.GroupID = group; group != "" {
			cfg.GroupID = "subscribed"
		}
		c := testrig.NewConsumer(t, cfg)
		if err := c.Subscribe(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		wantPolled(t, c, "20 30")
		cfg.GroupID, cfg.Lazy, cfg.Topics = group, true, []string{"test"}
		wantPolled(t, testrig.NewConsumer(t, cfg), "20 30")
	})
}

func TestConsumerSinceAndFromBeginning(t *testing.T) {
	cluster := gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "gracedb-test"}
	_, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, FromBeginning: true, Since: at(1)})
	testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConfig, gracedb.ErrConsumer), testrig.Kinds(gracedb.ErrConnection), "Since", "FromBeginning")
}

// Messages of an open transaction are found by their time, and what is older than Since and before
// them is not read.
func TestConsumerSinceTransaction(t *testing.T) {
	testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		testrig.Transact(t, cl, "a", nil, "open") // now, which is before Since
		time.Sleep(10 * time.Second)              // less than the transaction may take
		since := time.Now()
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, Since: since}
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "behind"))
		c := testrig.NewConsumer(t, cfg)
		wantPolled(t, c, "")
		testrig.Transact(t, cl, "a", new(kgo.TryCommit), "later") // the open one is aborted
		wantPolled(t, c, "behind later")
	})
}

// Since and Seek find what is left of a log whose beginning is deleted.
func TestConsumerSinceTrimmed(t *testing.T) {
	testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		produceAt(t, cl, 0, 10, 20, 30)
		if err := cl.Trim(testrig.Topic, 0, 2); err != nil {
			t.Fatal(err)
		}
		c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, Since: at(10)})
		wantPolled(t, c, "30")
		for _, to := range []time.Time{{}, at(20)} {
			if err := c.Seek(t.Context(), to); err != nil {
				t.Fatal(err)
			}
			wantPolled(t, c, "30")
		}
	})
}

// Seek moves back and forth. What was fetched is not returned, and a group stays where it was put,
// also if nothing was polled since.
func TestConsumerSeek(t *testing.T) {
	testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		produceAt(t, cl, 0, 10, 20, 30, 40)
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true}
		c := testrig.NewConsumer(t, cfg)
		seek := func(to time.Time) {
			t.Helper()
			if err := c.Seek(t.Context(), to); err != nil {
				t.Fatal(err)
			}
		}
		testrig.Poll(t, c)
		testrig.Poll(t, c) // 30 and 40 are fetched
		seek(at(40))
		wantPolled(t, c, "40")
		seek(time.Time{})
		wantPolled(t, c, "10 20 30 40")
		seek(at(50))
		produceAt(t, cl, 0, 5)
		wantPolled(t, c, "5")
		seek(at(11))
		if group == "" {
			wantPolled(t, c, "20 30 40 5")
			return
		}
		if at := testrig.Committed(t, cl, group, testrig.Topic, 0); at != 1 {
			t.Errorf("Seek has stored %d", at)
		}
		time.Sleep(5 * time.Second) // whatever marks there were are committed
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if at := testrig.Committed(t, cl, group, testrig.Topic, 0); at != 1 {
			t.Errorf("after Close %d is stored", at)
		}
		c = testrig.NewConsumer(t, cfg)
		wantPolled(t, c, "20 30 40 5")
	})
}

// A member that has not joined yet, and one that has joined just now, moves its group all the same.
func TestConsumerSeekAtOnce(t *testing.T) {
	for _, wait := range []time.Duration{0, 10 * time.Millisecond, 3 * time.Second} {
		for _, lazy := range []bool{false, true} {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
				produceAt(t, cl, 0, 10, 20, 30)
				cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g"}
				if err := testrig.NewConsumer(t, cfg).Close(); err != nil {
					t.Fatal(err)
				}
				cfg.Lazy = lazy
				c := testrig.NewConsumer(t, cfg)
				time.Sleep(wait)
				if err := c.Seek(testrig.Within(t, 30*time.Second), at(20)); err != nil {
					t.Fatal(err)
				}
				if at := testrig.Committed(t, cl, "g", testrig.Topic, 0); at != 1 {
					t.Errorf("%v, lazy %v: Seek has stored %d", wait, lazy, at)
				}
				wantPolled(t, c, "20 30")
			})
		}
	}
}

// One member stores the position of its group in all partitions, also of those that it does not have.
func TestConsumerSeekOfAMember(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{Topics: map[string]int{testrig.Topic: 2}}, func(t *testing.T, cl *kafkatest.Cluster) {
		produceAt(t, cl, 0, 10, 20)
		produceAt(t, cl, 1, 10, 20)
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g"}
		a, b := testrig.NewConsumer(t, cfg), testrig.NewConsumer(t, cfg)
		time.Sleep(20 * time.Second)
		lags, err := a.Lag(t.Context())
		if err != nil || len(lags) != 1 {
			t.Fatalf("one of two members has %v, %v", lags, err)
		}
		if err := a.Seek(t.Context(), at(20)); err != nil {
			t.Fatal(err)
		}
		for part := range int32(2) {
			if at := testrig.Committed(t, cl, "g", testrig.Topic, part); at != 1 {
				t.Errorf("partition %d: Seek has stored %d", part, at)
			}
		}
		wantPolled(t, b, "") // it reads on where it was
		wantPolled(t, a, "20")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		wantPolled(t, a, "20") // of the other partition
	})
}

// What Seek cannot do leaves all as it was.
func TestConsumerSeekFails(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
		produceAt(t, cl, 0, 10, 20, 30)
		c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g", FromBeginning: true})
		testrig.Poll(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		testrig.WantErr(t, c.Seek(ctx, time.Time{}), testrig.Kinds(context.Canceled), nil)
		wantPolled(t, c, "20 30")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		testrig.WantErr(t, c.Seek(t.Context(), time.Time{}), testrig.Kinds(gracedb.ErrClosed), nil)
		_, err := c.Lag(t.Context())
		testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrClosed), nil)
	})
}

// Lag counts from the message that is returned next, to where what may be read ends.
func TestConsumerLag(t *testing.T) {
	testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		produceAt(t, cl, 0, 10, 20, 30)
		c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
		time.Sleep(10 * time.Second)
		want := func(position, end int64) {
			t.Helper()
			got, err := c.Lag(t.Context())
			want := []gracedb.PartitionLag{{Topic: testrig.Topic, Position: position, End: end}}
			if diff := gocmp.Diff(want, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
		}
		want(0, 3)
		testrig.Poll(t, c)
		want(1, 3) // though all are fetched
		wantPolled(t, c, "20 30")
		want(3, 3)
		testrig.Transact(t, cl, "a", new(kgo.TryCommit), "committed")
		want(3, 5)
		wantPolled(t, c, "committed")
		want(5, 5) // behind the end of the transaction, which is no message
		testrig.Transact(t, cl, "b", new(kgo.TryAbort), "aborted")
		wantPolled(t, c, "")
		want(7, 7)
		testrig.Transact(t, cl, "c", nil, "open")
		produceAt(t, cl, 0, 50)
		want(7, 7)
		if err := c.Seek(t.Context(), at(20)); err != nil {
			t.Fatal(err)
		}
		want(1, 7)
	})
}

// A partition without a leader is begun at Since when it has one. Seek, which could not move it, says
// so, and Lag knows no end of it.
func TestConsumerSinceWithoutLeader(t *testing.T) {
	for _, group := range testrig.Groups {
		testrig.Virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testrig.Topic: 2}}, func(t *testing.T, cl *kafkatest.Cluster) {
			produceAt(t, cl, 0, 10, 20, 30)
			produceAt(t, cl, 1, 12, 22, 32)
			if err := cl.LoseLeader(testrig.Topic, 1); err != nil {
				t.Fatal(err)
			}
			c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, Since: at(21)})
			wantPolled(t, c, "30")
			lags, err := c.Lag(t.Context())
			want := []gracedb.PartitionLag{{Topic: testrig.Topic, Position: 3, End: 3}, {Topic: testrig.Topic, Partition: 1, Position: -1, End: -1}}
			if diff := gocmp.Diff(want, lags); diff != "" || err != nil {
				t.Error(diff, err)
			}
			testrig.WantErr(t, c.Seek(testrig.Within(t, 10*time.Second), at(10)), testrig.Kinds(gracedb.ErrConsumer, gracedb.ErrConnection), nil, testrig.Topic, "partition 1")
			wantPolled(t, c, "")
			if err := cl.ElectLeader(testrig.Topic, 1, 0); err != nil {
				t.Fatal(err)
			}
			wantPolled(t, c, "22 32")
		})
	}
}
