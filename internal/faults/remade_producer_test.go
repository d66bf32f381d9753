package faults_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A topic that is deleted and made anew, at once or after a while, fails no message of a
// Producer that is idle meanwhile, nor of one that is busy, whether brokers know topics by
// their ids or by their names. Each key keeps its order: the new topic has all of it from
// some message on, each once.
func TestProducerTopicMadeAnew(t *testing.T) {
	for _, brokers := range []struct {
		name     string
		versions *kversion.Versions
	}{{"ids", nil}, {"names", kversion.V3_9_0()}} {
		for _, away := range []time.Duration{0, 2 * time.Second} {
			t.Run(fmt.Sprintf("%s,away=%v,idle", brokers.name, away), func(t *testing.T) {
				testrig.Virtually(t, kafkatest.Config{Versions: brokers.versions}, func(t *testing.T, c *kafkatest.Cluster) {
					p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
					for range 3 { // before the Producer has looked at the topic, and after
						testrig.Send(t, p, "old")
						makeAnewLater(t, c, testrig.Topic, 1, away, func() {})
						var want []string
						for i := range 5 {
							testrig.Send(t, p, fmt.Sprint(i))
							want = append(want, fmt.Sprint(i))
						}
						if got := testrig.Values(t, c, testrig.Topic); !slices.Equal(got, want) {
							t.Errorf("in the log are %q", got)
						}
						time.Sleep(30 * time.Second)
					}
				})
			})
			for _, partitions := range []int{1, 3, 5} {
				t.Run(fmt.Sprintf("%s,away=%v,busy,partitions=%d", brokers.name, away, partitions), func(t *testing.T) {
					testrig.Virtually(t, kafkatest.Config{Versions: brokers.versions, Topics: map[string]int{testrig.Topic: 3}}, func(t *testing.T, c *kafkatest.Cluster) {
						busyWhileMadeAnew(t, c, partitions, away)
					})
				})
			}
		}
	}
}

// makeAnewLater deletes a topic and makes it anew with so many partitions, after a while in
// which meanwhile is called.
func makeAnewLater(t *testing.T, c *kafkatest.Cluster, topic string, partitions int, away time.Duration, meanwhile func()) {
	t.Helper()
	if err := c.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	if away > 0 {
		time.AfterFunc(away, func() {
			if err := c.CreateTopic(topic, partitions, nil); err != nil {
				t.Error(err)
			}
		})
	} else if err := c.CreateTopic(topic, partitions, nil); err != nil {
		t.Fatal(err)
	}
	meanwhile()
}

func busyWhileMadeAnew(t *testing.T, c *kafkatest.Cluster, partitions int, away time.Duration) {
	const keys = 4
	p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
	end := make(chan struct{})
	var sent [keys]int
	var wg sync.WaitGroup
	for key := range keys {
		wg.Go(func() {
			tick := time.NewTicker(3 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-end:
					return
				case <-tick.C:
				}
				m := gracedb.Message{Key: fmt.Append(nil, key), Value: fmt.Appendf(nil, "%d %d", key, sent[key])}
				sent[key]++
				if err := p.Produce(t.Context(), m, func(_ gracedb.Message, err error) {
					if err != nil {
						t.Errorf("%s: %v", m.Value, err)
					}
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	time.Sleep(time.Second)
	makeAnewLater(t, c, testrig.Topic, partitions, away, func() { time.Sleep(5 * time.Second) })
	close(end)
	wg.Wait()
	if err := p.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	var next [keys]int
	for key := range next {
		next[key] = -1
	}
	for _, v := range testrig.Values(t, c, testrig.Topic) {
		var key, i int
		if _, err := fmt.Sscanf(v, "%d %d", &key, &i); err != nil {
			t.Fatal(err)
		}
		if next[key] >= 0 && i != next[key] {
			t.Errorf("key %d: %d where %d comes next", key, i, next[key])
		}
		next[key] = i + 1
	}
	if next != sent {
		t.Errorf("sent %v; the log ends with %v", sent, next)
	}
}

// A partition without a leader holds up what is for it, and nothing else: neither messages
// with a key for other partitions, nor those without one. What waits for it is withdrawn
// with its ctx, certainly not written, and arrives in its order when there is a leader.
func TestProducerBesideAPartitionWithoutLeader(t *testing.T) {
	const partitions = 3
	testrig.Virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testrig.Topic: partitions}}, func(t *testing.T, c *kafkatest.Cluster) {
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
		keys := make(map[int32]string) // of each partition
		for i := 0; len(keys) < partitions; i++ {
			m := testrig.Send(t, p, fmt.Sprint("k", i))
			keys[m.Partition] = string(m.Key)
		}
		const dead = 1
		loseLeader(t, c, testrig.Topic, dead)
		var waiting []string
		var mu sync.Mutex
		told := make(map[string]error)
		for i := range 20 {
			value := fmt.Sprint("waits ", i)
			waiting = append(waiting, value)
			if err := p.Produce(t.Context(), gracedb.Message{Key: []byte(keys[dead]), Value: []byte(value)}, func(_ gracedb.Message, err error) {
				mu.Lock()
				defer mu.Unlock()
				told[value] = err
			}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 50 {
			for _, key := range []string{keys[0], keys[2], ""} {
				m := gracedb.Message{Key: []byte(key), Value: []byte("passes")}
				if key == "" {
					m.Key = nil
				}
				start := time.Now()
				got, err := p.ProduceSync(testrig.Within(t, time.Second), m)
				if took := time.Since(start); err != nil || got.Partition == dead || took > 300*time.Millisecond {
					t.Errorf("%d: key %q in partition %d after %v: %v", i, key, got.Partition, took, err)
				}
			}
			time.Sleep(time.Duration(i) * 10 * time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := p.ProduceSync(ctx, gracedb.Message{Key: []byte(keys[dead]), Value: []byte("leaves")})
		testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrDelivery, context.DeadlineExceeded), testrig.Kinds(gracedb.ErrOutcomeUnknown), "was not written")
		if len(told) > 0 {
			t.Errorf("told: %v", slices.Collect(maps.Values(told)))
		}
		electLeader(t, c, testrig.Topic, dead, 2)
		if err := p.Flush(testrig.Within(t, time.Second)); err != nil {
			t.Error(err)
		}
		for _, value := range waiting {
			if err, ok := told[value]; err != nil || !ok {
				t.Errorf("%s: %v, %v", value, ok, err)
			}
		}
		var got []string
		for _, v := range testrig.Values(t, c, testrig.Topic) {
			if len(v) > 5 && v[:5] == "waits" || v == "leaves" {
				got = append(got, v)
			}
		}
		if !slices.Equal(got, waiting) {
			t.Errorf("in the log are %q", got)
		}
	})
}
