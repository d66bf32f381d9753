package faults_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testlog"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A topic that is deleted and made anew, however quickly, is told to whoever had not read
// all of it, with what is lost; the new one is read from its beginning, also where groups
// store their position by the topic's name, and something is stored late.
func TestTopicMadeAnew(t *testing.T) {
	type late func(context.Context, *gracedb.Consumer) error
	nothing := func(context.Context, *gracedb.Consumer) error { return nil }
	commit := func(ctx context.Context, c *gracedb.Consumer) error { return c.Commit(ctx) }
	idle := func(ctx context.Context, c *gracedb.Consumer) error {
		time.Sleep(10 * time.Second) // until the Consumer has seen it
		return c.Commit(ctx)
	}
	for _, brokers := range []struct {
		name     string
		versions *kversion.Versions
	}{{"now", nil}, {"3.9", kversion.V3_9_0()}} {
		for _, group := range testrig.Groups {
			for what, late := range map[string]late{"nothing": nothing, "commit": commit, "commit after a while": idle} {
				t.Run(fmt.Sprintf("%s,group=%s,late=%s", brokers.name, group, what), func(t *testing.T) {
					testrig.Virtually(t, kafkatest.Config{Versions: brokers.versions}, func(t *testing.T, c *kafkatest.Cluster) {
						var log testlog.Log
						cluster := testrig.WithoutAutoCommit(testrig.ClusterFor(t, c, "bob"))
						cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
						con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: group})
						testrig.ProduceRaw(t, c, records("old", 30)...)
						for i := range 3 {
							if got := testrig.Poll(t, con); string(got.Value) != fmt.Sprint("old ", i) {
								t.Fatalf("got %s", got.Value)
							}
						}
						makeAnew(t, c, testrig.Topic)
						testrig.ProduceRaw(t, c, records("new", 5)...)
						if err := late(t.Context(), con); err != nil {
							t.Logf("late: %v", err)
						}
						if what == "commit after a while" && group != "" {
							if at := groupOffset(t, c, group); at > 0 {
								t.Errorf("the group's position is %d", at)
							}
						}
						// Without a group, what the Consumer has already is not lost.
						next := 3
						var err error
						for err == nil {
							var m gracedb.Message
							if m, err = con.Poll(testrig.Within(t, 20*time.Second)); err == nil {
								if string(m.Value) != fmt.Sprint("old ", next) {
									t.Fatalf("got %s, want old %d or what is lost", m.Value, next)
								}
								next++
							}
						}
						testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConsumer), testrig.Kinds(gracedb.ErrTopic), fmt.Sprintf(
							"topic %s was deleted and made anew; what was not read of the old one, from offset %d, is lost; continuing at the beginning", testrig.Topic, next))
						wantNew(t, con, "new", 5)
						for _, untrue := range []string{"do not adopt the new ID", "unable to commit offset", "could not be stored"} {
							if text := log.String(); strings.Contains(text, untrue) {
								t.Errorf("logged: %s", text)
							}
						}
						if group == "" {
							return
						}
						if err := con.Close(); err != nil {
							t.Error(err)
						}
						con = testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: group})
						wantRead(t, con, "new 4") // it was the last, and so not done
					})
				})
			}
		}
	}
}

// What a member stores last, of a topic that has just been made anew, is not a position in
// the new one either.
func TestTopicMadeAnewBeforeClose(t *testing.T) {
	for name, versions := range map[string]*kversion.Versions{"now": nil, "3.9": kversion.V3_9_0()} {
		t.Run(name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Versions: versions}, func(t *testing.T, c *kafkatest.Cluster) {
				cfg := gracedb.ConsumerConfig{Cluster: testrig.WithoutAutoCommit(testrig.ClusterFor(t, c, "bob")), Topics: []string{"test"}, GroupID: "g"}
				con, err := gracedb.NewConsumer(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				testrig.ProduceRaw(t, c, records("old", 30)...)
				for range 4 {
					testrig.Poll(t, con)
				}
				makeAnew(t, c, testrig.Topic)
				testrig.ProduceRaw(t, c, records("new", 5)...)
				if err := con.Close(); err != nil {
					t.Fatal(err)
				}
				wantNew(t, testrig.NewConsumer(t, cfg), "new", 5)
			})
		})
	}
}

// Where a group's position is stored by the topic's name, what is stored before anybody can
// know that the topic was made anew passes for a position in the new one: not for long.
func TestTopicMadeAnewAfterALateCommit(t *testing.T) {
	for _, then := range []string{"goes on", "goes on and stores nothing", "closes"} {
		t.Run(then, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Versions: kversion.V3_9_0()}, func(t *testing.T, c *kafkatest.Cluster) {
				cfg := gracedb.ConsumerConfig{Cluster: testrig.WithoutAutoCommit(testrig.ClusterFor(t, c, "bob")), Topics: []string{"test"}, GroupID: "g"}
				con, err := gracedb.NewConsumer(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer con.Close()
				testrig.ProduceRaw(t, c, records("old", 30)...)
				for range 4 {
					testrig.Poll(t, con)
				}
				unheard := c.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Delay: time.Second, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1})
				makeAnew(t, c, testrig.Topic)
				testrig.ProduceRaw(t, c, records("new", 5)...)
				if err := con.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				if at := groupOffset(t, c, "g"); at != 4 {
					t.Fatalf("the late commit did not land: %d", at)
				}
				unheard.Remove()
				if then == "goes on and stores nothing" {
					defer c.Fail(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress, Count: -1}).Remove()
				}
				if then == "closes" {
					if err := con.Close(); err != nil {
						t.Fatal(err)
					}
					wantNew(t, testrig.NewConsumer(t, cfg), "new", 5)
					return
				}
				for err == nil {
					_, err = con.Poll(testrig.Within(t, 20*time.Second))
				}
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConsumer), nil, "made anew")
				if at := groupOffset(t, c, "g"); at != 0 && then == "goes on" {
					t.Errorf("the group's position is %d", at)
				}
				wantNew(t, con, "new", 5)
			})
		})
	}
}

// groupOffset returns the position that a group has stored in partition 0.
func groupOffset(t testing.TB, c *kafkatest.Cluster, group string) int64 {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	stored, err := kadm.NewClient(cl).FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	at, ok := stored.Lookup(testrig.Topic, 0)
	if !ok {
		return -1
	}
	return at.At
}

// Each member of a group is told of what it had; and the rest goes on.
func TestTopicMadeAnewForMembers(t *testing.T) {
	for name, versions := range map[string]*kversion.Versions{"now": nil, "3.9": kversion.V3_9_0()} {
		t.Run(name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Versions: versions, Topics: map[string]int{testrig.Topic: 2}}, func(t *testing.T, c *kafkatest.Cluster) {
				cfg := gracedb.ConsumerConfig{Cluster: testrig.WithoutAutoCommit(testrig.ClusterFor(t, c, "bob")), Topics: []string{"test"}, GroupID: "g"}
				members := []*gracedb.Consumer{testrig.NewConsumer(t, cfg), testrig.NewConsumer(t, cfg)}
				time.Sleep(10 * time.Second) // they have one partition each
				for i := range 30 {
					testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, fmt.Sprint("old 0/", i)), testrig.Record(testrig.Topic, 1, fmt.Sprint("old 1/", i)))
				}
				for _, con := range members {
					for range 3 {
						testrig.Poll(t, con)
					}
				}
				makeAnewWith(t, c, testrig.Topic, 2)
				for i := range 5 {
					testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, fmt.Sprint("new 0/", i)), testrig.Record(testrig.Topic, 1, fmt.Sprint("new 1/", i)))
				}
				got := make(chan string, 100)
				ctx := testrig.Within(t, 60*time.Second)
				for _, con := range members {
					_ = con.Commit(t.Context())
					go func() {
						for {
							m, err := con.Poll(ctx)
							switch {
							case ctx.Err() != nil:
								return
							case err != nil:
								got <- err.Error()
							default:
								got <- string(m.Value)
							}
						}
					}()
				}
				<-ctx.Done()
				time.Sleep(time.Second)
				close(got)
				seen := map[string]int{}
				for text := range got {
					seen[text]++
				}
				for p := range 2 {
					read := 3
					for seen[fmt.Sprintf("old %d/%d", p, read)] > 0 {
						read++
					}
					told := fmt.Sprintf("gracedb: kafka: topic %s was deleted and made anew; what was not read of the old one, from offset %d of partition %d, is lost; continuing at the beginning", testrig.Topic, read, p)
					if seen[told] != 1 {
						t.Errorf("partition %d: the loss from offset %d on was told %d times: %v", p, read, seen[told], seen)
					}
					for i := range 5 {
						if n := seen[fmt.Sprintf("new %d/%d", p, i)]; n == 0 {
							t.Errorf("new %d/%d did not come", p, i)
						}
					}
				}
			})
		})
	}
}

func records(text string, n int) []*kgo.Record {
	var out []*kgo.Record
	for i := range n {
		out = append(out, testrig.Record(testrig.Topic, 0, fmt.Sprint(text, " ", i)))
	}
	return out
}

func makeAnew(t testing.TB, c *kafkatest.Cluster, topic string) {
	t.Helper()
	makeAnewWith(t, c, topic, 1)
}

func makeAnewWith(t testing.TB, c *kafkatest.Cluster, topic string, partitions int) {
	t.Helper()
	if err := c.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(topic, partitions, nil); err != nil {
		t.Fatal(err)
	}
}

func wantNew(t testing.TB, con *gracedb.Consumer, text string, n int) {
	t.Helper()
	for i := range n {
		if got := testrig.Poll(t, con); string(got.Value) != fmt.Sprint(text, " ", i) {
			t.Errorf("got %s, want %s %d", got.Value, text, i)
		}
	}
}
