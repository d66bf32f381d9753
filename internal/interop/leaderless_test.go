//go:build unix

package interop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A partition whose only broker is dead keeps nobody from starting, and is read from where
// it ended, or from its beginning, when the broker is back: by members of the group that
// came later, too.
func TestPartitionOfADeadBroker(t *testing.T) {
	wanted(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	kafka, err := realkafka.Start(ctx, realkafka.Config{Brokers: 3})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(kafka.Log(20))
		}
		must(t, kafka.Close())
	})
	s := &setting{kafka: kafka, instance: "real"}
	must(t, errors.Join(
		kafka.Allow(ctx, "alice", "*", kadm.OpRead, kadm.OpWrite, kadm.OpDescribe), kafka.AllowGroups(ctx, "alice"),
		kafka.CreateTopic(ctx, "real.well", 1, nil),
	))
	one := "1"
	_, err = kafka.Admin().CreateTopic(ctx, 3, 1, map[string]*string{"min.insync.replicas": &one}, "real.single")
	must(t, err)
	cluster := gracedb.Cluster{
		Brokers: kafka.Addrs(), Instance: s.instance, CAFile: s.caFile(t),
		Token: gracedb.StaticToken(s.token(t, testauth.Claims{})),
	}

	opts, err := cluster.ClientOpts()
	must(t, err)
	raw, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	must(t, err)
	defer raw.Close()
	put := func(partition int32, texts ...string) {
		t.Helper()
		for _, text := range texts {
			must(t, raw.ProduceSync(ctx, &kgo.Record{Topic: "real.single", Partition: partition, Value: []byte(text)}).FirstErr())
		}
	}
	for p := range int32(3) {
		put(p, "old", "old")
	}
	begin := func(group string, beginning bool) *gracedb.Consumer {
		t.Helper()
		start := time.Now()
		c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"single", "well"}, GroupID: group, FromBeginning: beginning})
		must(t, err)
		t.Cleanup(func() { must(t, c.Close()) })
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("in position after %v", took)
		}
		return c
	}
	const dead = int32(1)
	broker := leader(ctx, t, kafka, "real.single", dead)
	must(t, kafka.Kill(int(broker)-1))
	for leader(ctx, t, kafka, "real.single", dead) >= 0 {
		time.Sleep(100 * time.Millisecond)
	}

	alone, first := begin("", false), begin("g", false)
	second, oldest := begin("g", false), begin("", true)
	start := time.Now()
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "single"})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("NewProducer took %v", took)
	}
	for who, check := range map[string]func(context.Context) error{"consumer": alone.Check, "member": first.Check, "producer": p.Check} {
		if err := check(ctx); !errors.Is(err, kerr.LeaderNotAvailable) || !strings.Contains(err.Error(), fmt.Sprint("topic real.single partition ", dead)) {
			t.Errorf("Check of the %s: %v", who, err)
		}
	}
	_, err = p.ProduceSync(ctx, gracedb.Message{Topic: "well", Value: []byte("well")})
	must(t, err)

	written := make(chan struct{})
	go func() { // as soon as somebody takes it
		defer close(written)
		put(dead, "first", "next")
	}()
	must(t, kafka.Restart(ctx, int(broker)-1))
	<-written
	put(0, "last")
	all := []string{"well", "first", "next", "last"}
	wantTexts(ctx, t, "without a group", all, alone)
	wantTexts(ctx, t, "group", all, first, second)
	wantTexts(ctx, t, "from the beginning", append(slices.Repeat([]string{"old"}, 6), all...), oldest)
	if err := alone.Check(ctx); err != nil {
		t.Error(err)
	}
}

// leader returns the id of the broker that leads a partition, or -1.
func leader(ctx context.Context, t *testing.T, kafka *realkafka.Cluster, topic string, partition int32) int32 {
	t.Helper()
	topics, err := kafka.Admin().ListTopics(ctx, topic)
	must(t, err)
	p, ok := topics[topic].Partitions[partition]
	if !ok || p.Err != nil {
		return -1
	}
	return p.Leader
}

// wantTexts reads from consumers until all texts have come, and a while longer, in which
// nothing is to come.
func wantTexts(ctx context.Context, t *testing.T, who string, want []string, from ...*gracedb.Consumer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	got := make(chan string)
	for _, c := range from {
		go func() {
			for {
				m, err := c.Poll(ctx)
				text := string(m.Value)
				if err != nil && ctx.Err() == nil {
					text = err.Error()
				}
				select {
				case got <- text:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	missing := slices.Clone(want)
	quiet := time.After(time.Minute)
	for {
		select {
		case text := <-got:
			i := slices.Index(missing, text)
			if i < 0 {
				t.Errorf("%s: also %q", who, text)
				continue
			}
			if missing = slices.Delete(missing, i, i+1); len(missing) == 0 {
				quiet = time.After(3 * time.Second)
			}
		case <-quiet:
			return
		case <-ctx.Done():
			if len(missing) > 0 {
				t.Errorf("%s: %q did not come", who, missing)
			}
			return
		}
	}
}
