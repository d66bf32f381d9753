package gracedb_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// withoutGroups are the rights of a subject that may read the topic, as a member of no group.
func withoutGroups() []kfake.ACL {
	var acls []kfake.ACL
	for _, op := range []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationDescribe} {
		acls = append(acls, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: testTopic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true})
	}
	return acls
}

// A group that may not be used is named, and who may not use it: by the constructor, and by
// Poll and Check of a Consumer that was made without a broker.
func TestGroupNotAllowed(t *testing.T) {
	virtually(t, kafkatest.Config{Subjects: map[string][]kfake.ACL{"alice": withoutGroups()}}, func(t *testing.T, c *kafkatest.Cluster) {
		cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "alice"), Topics: []string{"test"}, GroupID: "my-follow-up"}
		want := func(err error) {
			t.Helper()
			wantErr(t, err, kinds(gracedb.ErrConsumer, kerr.GroupAuthorizationFailed), kinds(gracedb.ErrTopic, gracedb.ErrConnection), "my-follow-up", "alice")
		}
		start := time.Now()
		_, err := gracedb.NewConsumer(t.Context(), cfg)
		want(err)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("NewConsumer took %v", took)
		}
		cfg.Lazy = true
		toldAgain(t, newConsumer(t, cfg), want)
	})
}

// toldAgain checks that Poll says what want wants at once and then once a minute, and Check
// each time.
func toldAgain(t *testing.T, con *gracedb.Consumer, want func(error)) {
	t.Helper()
	var told []time.Duration
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	for {
		_, err := con.Poll(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		told = append(told, time.Since(start))
		want(err)
		want(con.Check(within(t, 5*time.Second)))
	}
	if len(told) != 3 || told[0] > 5*time.Second || told[1]-told[0] < time.Minute || told[1]-told[0] > 65*time.Second {
		t.Errorf("Poll told of it after %v", told)
	}
	want(con.Check(within(t, 5*time.Second)))
}

// A stranger shares out partitions as no Consumer does.
type stranger struct{ kgo.GroupBalancer }

func (stranger) ProtocolName() string { return "strange" }

// A group that consumers of another kind use is told as that, for as long as they do; when
// they leave, what came meanwhile is read.
func TestGroupOfAnotherKind(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		raw, err := c.Client(kgo.ConsumerGroup("g"), kgo.ConsumeTopics(testTopic), kgo.Balancers(stranger{kgo.RangeBalancer()}))
		if err != nil {
			t.Fatal(err)
		}
		gone := sync.OnceFunc(raw.Close)
		defer gone()
		raw.PollFetches(within(t, 3*time.Second))
		con := newConsumer(t, gracedb.ConsumerConfig{Cluster: withoutAutoCommit(clusterFor(t, c, "alice")), Topics: []string{"test"}, GroupID: "g"})
		produceRaw(t, c, record(testTopic, 0, "meanwhile"))
		toldAgain(t, con, func(err error) {
			t.Helper()
			wantErr(t, err, kinds(gracedb.ErrConsumer, kerr.InconsistentGroupProtocol), kinds(gracedb.ErrConnection), "group g", "another GroupID")
		})
		gone()
		if m := poll(t, con); string(m.Value) != "meanwhile" {
			t.Errorf("read %q", m.Value)
		}
		if err := con.Check(within(t, 5*time.Second)); err != nil {
			t.Errorf("Check when the others have left: %v", err)
		}
	})
}

// A group that has no position logs where it starts, once, whether it is new or has members.
func TestGroupLogsItsStart(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		produceRaw(t, c, record(testTopic, 0, "before"), record(testTopic, 0, "before"))
		var mu sync.Mutex
		var said strings.Builder
		cluster := clusterFor(t, c, "alice")
		cluster.Logger = slog.New(slog.NewTextHandler(writer(func(b []byte) {
			mu.Lock()
			defer mu.Unlock()
			said.Write(b)
		}), nil))
		starts := func() (lines []string) {
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(said.String()) {
				if strings.Contains(line, "has no position") {
					lines = append(lines, line)
				}
			}
			said.Reset()
			return lines
		}
		cfg := gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: "g"}
		for _, new := range []bool{true, false} {
			con, err := gracedb.NewConsumer(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = con.Poll(within(t, 5*time.Second))
			_ = con.Close()
			switch got := starts(); {
			case !new && len(got) > 0:
				t.Errorf("a group with a position says %q", got)
			case new && (len(got) != 1 || !strings.Contains(got[0], "0 at 2") || !strings.Contains(got[0], testTopic) || !strings.Contains(got[0], "group=g")):
				t.Errorf("a new group says %q", got)
			}
		}
	})
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

// At rest a member asks each broker twice a second for messages, and its coordinator once
// whether all is well; a Consumer without a group asks each broker every 5 seconds.
func TestConsumerAtRest(t *testing.T) {
	for group, want := range map[string]map[kmsg.Key]int{
		"":  {kmsg.Fetch: 12, kmsg.Metadata: 60},
		"g": {kmsg.Fetch: 120, kmsg.Metadata: 60, kmsg.Heartbeat: 60, kmsg.OffsetCommit: 0},
	} {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "alice"), Topics: []string{"test"}, GroupID: group})
				_, _ = con.Poll(within(t, 10*time.Second))
				before := c.Requests()
				in, out := c.Bytes()
				_, _ = con.Poll(within(t, time.Minute))
				in2, out2 := c.Bytes()
				total := 0
				for key, n := range c.Requests() {
					n -= before[key]
					total += n
					if n > want[key]+5 {
						t.Errorf("%d requests %v in a minute, want %d", n, kmsg.NameForKey(key.Int16()), want[key])
					}
				}
				t.Logf("%d requests, %d bytes in a minute", total, in2-in+out2-out)
			})
		})
	}
}

// A position that the broker cannot tell yet is not taken for one that there is not, and is
// not written over.
func TestConsumerWaitsForPosition(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
		cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g"}
		c := newConsumer(t, cfg)
		pollAll(t, c, 3*time.Second)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		produceRaw(t, cl, record(testTopic, 0, "meanwhile"))
		cl.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.OffsetFetch}, Count: 1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
			for _, g := range resp.(*kmsg.OffsetFetchResponse).Groups {
				for _, t := range g.Topics {
					for i := range t.Partitions {
						t.Partitions[i].Offset, t.Partitions[i].LeaderEpoch, t.Partitions[i].ErrorCode = -1, -1, kerr.UnstableOffsetCommit.Code
					}
				}
			}
		}})
		c = newConsumer(t, cfg)
		if got, errs := pollAll(t, c, 10*time.Second); fmt.Sprint(got) != "[meanwhile]" || len(errs) != 0 {
			t.Errorf("%v, %v", got, errs)
		}
	})
}
