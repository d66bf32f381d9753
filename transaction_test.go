package gracedb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// transact publishes values in one transaction, and ends it if end says how.
func transact(t testing.TB, cl *kafkatest.Cluster, id string, end *kgo.TransactionEndTry, values ...string) {
	t.Helper()
	client, err := cl.Client(kgo.TransactionalID(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, value := range values {
		if err := client.ProduceSync(t.Context(), record(testTopic, 0, value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if end == nil {
		return
	}
	if err := client.EndTransaction(t.Context(), *end); err != nil {
		t.Fatal(err)
	}
}

// What a transaction has taken back is not handed over, and the places of what is not are
// not told as lost, not even when they are deleted.
func TestConsumerReadsCommitted(t *testing.T) {
	withGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group})
		transact(t, cl, "a", new(kgo.TryAbort), "aborted 1", "aborted 2")
		transact(t, cl, "b", new(kgo.TryCommit), "committed")
		got, errs := pollAll(t, c, 5*time.Second)
		if fmt.Sprint(got) != "[committed]" || len(errs) != 0 {
			t.Fatalf("%v, %v", got, errs)
		}
		transact(t, cl, "c", new(kgo.TryAbort), "aborted 3", "aborted 4")
		if got, errs := pollAll(t, c, 5*time.Second); len(got)+len(errs) != 0 {
			t.Errorf("%v, %v", got, errs)
		}
		const all = 8 // five messages, and an end of each transaction
		if err := cl.Trim(testTopic, 0, all); err != nil {
			t.Fatal(err)
		}
		produceRaw(t, cl, record(testTopic, 0, "after"))
		got, errs = pollAll(t, c, 5*time.Second)
		if fmt.Sprint(got) != "[after]" || len(errs) != 0 {
			t.Errorf("%v, %v", got, errs)
		}
	})
}

// An open transaction holds back what is behind it; an option reads all the same.
func TestConsumerOpenTransaction(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint("all=", all), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
				cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}}
				want := "[]"
				if all {
					cfg.Cluster.Opts = append(cfg.Cluster.Opts, kgo.FetchIsolationLevel(kgo.ReadUncommitted()))
					want = "[open behind]"
				}
				c := newConsumer(t, cfg)
				transact(t, cl, "a", nil, "open")
				produceRaw(t, cl, record(testTopic, 0, "behind"))
				if got, errs := pollAll(t, c, 5*time.Second); fmt.Sprint(got) != want || len(errs) != 0 {
					t.Errorf("%v, %v", got, errs)
				}
			})
		})
	}
}
