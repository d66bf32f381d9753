package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// The findings about ligo-gracedb 2.16.1 that concern the producer, by their numbers:
// what happens there must not happen here.

// queue queues texts, without a done.
func queue(t testing.TB, p *gracedb.Producer, topic string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := p.Produce(t.Context(), gracedb.Message{Topic: topic, Key: []byte("X"), Value: []byte(text)}, nil); err != nil {
			t.Fatalf("queueing %s: %v", text, err)
		}
	}
}

// 1: flush says that all is delivered, when everything has expired or was refused.
func TestPeerFinding_01_SilentLoss(t *testing.T) {
	t.Run("the broker is gone for ever", func(t *testing.T) {
		testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
			p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
			if err != nil {
				t.Fatal(err)
			}
			away(c)
			time.Sleep(time.Second)
			queue(t, p, "", "1", "2", "3")
			for _, timeout := range []time.Duration{30 * time.Second, time.Second, time.Hour} {
				testrig.WantErr(t, p.Flush(testrig.Within(t, timeout)), testrig.Kinds(gracedb.ErrConnection, gracedb.ErrProducer, context.DeadlineExceeded), nil, "3 message", c.Addrs()[0])
			}
			if n := p.Pending(); n != 3 {
				t.Errorf("%d pending: none expires", n)
			}
			testrig.WantErr(t, p.Close(), testrig.Kinds(gracedb.ErrDelivery, gracedb.ErrConnection), testrig.Kinds(gracedb.ErrOutcomeUnknown), "3 message", c.Addrs()[0])
			if got := testrig.Values(t, c, testrig.Topic); len(got) != 0 {
				t.Errorf("not written, and yet in the log: %q", got)
			}
		})
	})
	own := []kfake.ACL{
		testrig.Allow(kmsg.ACLResourceTypeTopic, testrig.Topic, kmsg.ACLOperationWrite),
		testrig.Allow(kmsg.ACLResourceTypeTopic, testrig.Topic, kmsg.ACLOperationDescribe),
	}
	seen := append(own[:2:2], testrig.Allow(kmsg.ACLResourceTypeTopic, "gracedb-test.secret", kmsg.ACLOperationDescribe))
	for _, tt := range []struct {
		name   string
		rights map[string][]kfake.ACL
		topic  string
		cause  error
	}{
		{"a topic that may not be seen", map[string][]kfake.ACL{"alice": own}, "secret", kerr.TopicAuthorizationFailed},
		{"a topic that may not be written", map[string][]kfake.ACL{"alice": seen}, "secret", kerr.TopicAuthorizationFailed},
		{"a topic that does not exist", nil, "nosuch", kerr.UnknownTopicOrPartition},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := kafkatest.Config{Topics: map[string]int{testrig.Topic: 1, "gracedb-test.secret": 1}, Subjects: tt.rights}
			testrig.Virtually(t, cfg, func(t *testing.T, c *kafkatest.Cluster) {
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
				queue(t, p, tt.topic, "1", "2", "3")
				err := p.Flush(testrig.Within(t, 30*time.Second))
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrDelivery, gracedb.ErrTopic, tt.cause), testrig.Kinds(gracedb.ErrConnection), "3 message", "gracedb-test."+tt.topic)
				// What has been reported is not reported again, nor in the way of others.
				queue(t, p, "test", "good")
				if err := p.Flush(testrig.Within(t, time.Second)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// 2: a full queue drops what has expired, and goes on.
func TestPeerFinding_02_FullQueue(t *testing.T) {
	for _, patience := range []time.Duration{4 * time.Second, time.Hour} {
		t.Run(patience.String(), func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test", MaxBufferedBytes: 12_000})
				away(c)
				time.Sleep(time.Second)
				time.AfterFunc(30*time.Second, func() { back(t, c) })
				var mu sync.Mutex
				outcomes := make(map[string]error)
				var written []string
				for i := range 25 {
					text := fmt.Sprintf("%02d %s", i, strings.Repeat("x", 1000))
					settle := func(_ gracedb.Message, err error) {
						mu.Lock()
						defer mu.Unlock()
						if _, twice := outcomes[text]; twice {
							t.Error("told twice")
						}
						if outcomes[text] = err; err == nil {
							written = append(written, text)
						}
					}
					start := time.Now()
					m := gracedb.Message{Key: []byte("X"), Value: []byte(text)}
					if err := p.Produce(testrig.Within(t, patience), m, settle); err != nil {
						settle(m, err)
					}
					if took := time.Since(start); took > patience {
						t.Errorf("Produce took %v", took)
					}
				}
				if err := p.Flush(testrig.Within(t, time.Minute)); err != nil {
					t.Error(err)
				}
				t.Logf("25 produced, %d told, %d arrived", len(outcomes), len(written))
				if len(outcomes) != 25 || patience == time.Hour && len(written) != 25 {
					t.Errorf("%d told, %d arrived", len(outcomes), len(written))
				}
				for _, err := range outcomes {
					if err != nil {
						testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrDelivery, gracedb.ErrProducer), testrig.Kinds(gracedb.ErrOutcomeUnknown))
					}
				}
				if got := testrig.Values(t, c, testrig.Topic); !slices.Equal(got, written) {
					t.Errorf("in the log are %.20q, want %.20q", got, written)
				}
			})
		})
	}
}

// 3: close loses what is queued.
func TestPeerFinding_03_CloseLoses(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
		if err != nil {
			t.Fatal(err)
		}
		away(c)
		time.Sleep(time.Second)
		queue(t, p, "", "1", "2")
		var told error
		if err := p.Produce(t.Context(), gracedb.Message{Value: []byte("3")}, func(_ gracedb.Message, err error) { told = err }); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		testrig.WantErr(t, p.Close(), testrig.Kinds(gracedb.ErrDelivery, gracedb.ErrConnection), testrig.Kinds(gracedb.ErrOutcomeUnknown), "3 message")
		if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+100*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
		testrig.WantErr(t, told, testrig.Kinds(gracedb.ErrDelivery, gracedb.ErrClosed), testrig.Kinds(gracedb.ErrOutcomeUnknown), testrig.Topic)
		back(t, c)
		time.Sleep(time.Minute)
		if got := testrig.Values(t, c, testrig.Topic); len(got) != 0 {
			t.Errorf("not written, and yet in the log: %q", got)
		}
	})
}

// 3: a program that ends without Close, with messages queued. A library cannot do
// anything at the end of a Go program: as there, what is queued is lost, and here
// nothing is promised even if the broker is up. Pending knows of it; Close, deferred
// as in the package's examples, delivers, or says what it could not.
func TestPeerFinding_03_EndsWithoutClose(t *testing.T) {
	const env = "GRACEDB_TEST_ENDING_CHILD"
	if arg := os.Getenv(env); arg != "" {
		os.Exit(endAsChild(strings.Fields(arg)))
	}
	for _, tt := range []struct {
		name    string
		ending  string
		up      bool
		status  int
		arrives []int // how many may
	}{
		{"without Close, broker gone", "exit", false, 0, []int{0, 0}},
		{"without Close, broker there", "exit", true, 0, []int{0, 5}},
		{"with Close, broker gone", "close", false, 1, []int{0, 0}},
		{"with Close, broker there", "close", true, 0, []int{5, 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := testrig.StartCluster(t, kafkatest.Config{})
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPeerFinding_03_EndsWithoutClose$")
			cmd.Env = append(os.Environ(), env+"="+strings.Join([]string{c.Addrs()[0], c.CAFile(), testrig.Mint(t, c, testauth.Claims{}), tt.ending}, " "))
			in, out := startChild(t, cmd)
			if line, err := out.ReadString('\n'); line != "ready\n" {
				t.Fatalf("the child says %q, %v", line, err)
			}
			if !tt.up {
				away(c)
			}
			if _, err := io.WriteString(in, "go\n"); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(out)
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // its status is looked at
			if got := cmd.ProcessState.ExitCode(); got != tt.status {
				t.Errorf("status %d: %s", got, rest)
			}
			if !tt.up && !strings.HasPrefix(string(rest), "5 pending\n") {
				t.Errorf("the child says %q", rest)
			}
			if tt.status == 1 && !strings.Contains(string(rest), "closed with 5 message(s)") {
				t.Errorf("the child says %q", rest)
			}
			got := testrig.Values(t, c, testrig.Topic)
			if len(got) < tt.arrives[0] || len(got) > tt.arrives[1] {
				t.Fatalf("%d arrived", len(got))
			}
			if diff := gocmp.Diff([]string{"0", "1", "2", "3", "4"}[:len(got)], got); diff != "" {
				t.Errorf("not the first of what was sent, once: %s", diff)
			}
			t.Logf("%d arrived, status %d", len(got), tt.status)
		})
	}
}

// endAsChild queues five messages and ends, with or without Close. It returns the
// program's status.
func endAsChild(arg []string) int {
	ctx := context.Background()
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Topic: "test", FlushTimeout: time.Second, Cluster: gracedb.Cluster{
		Brokers: arg[:1], Instance: "gracedb-test", CAFile: arg[1], Token: gracedb.StaticToken(arg[2]),
	}})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	for i := range 5 {
		if err := p.Produce(ctx, gracedb.Message{Key: []byte("X"), Value: fmt.Append(nil, i)}, nil); err != nil {
			fmt.Println(err)
			return 2
		}
	}
	fmt.Println(p.Pending(), "pending")
	if arg[3] == "close" {
		if err := p.Close(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

// startChild starts cmd and returns its input and output.
func startChild(t testing.TB, cmd *exec.Cmd) (io.Writer, *bufio.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, bufio.NewReader(out)
}

// 6: lost acknowledgements double messages.
func TestPeerFinding_06_DoubledRecords(t *testing.T) {
	for name, do := range map[string]kafkatest.Action{"cut": kafkatest.CutResponse, "swallowed": kafkatest.DropResponse} {
		t.Run(name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
				lost := c.LoseAcks(-1, do)
				time.AfterFunc(12*time.Second, lost.Remove)
				queue(t, p, "", "X0", "X1", "X2")
				time.Sleep(time.Second)
				queue(t, p, "", "X3")
				if err := p.Flush(testrig.Within(t, time.Minute)); err != nil {
					t.Error(err)
				}
				if lost.Hits() == 0 {
					t.Error("no acknowledgement was lost")
				}
				if diff := gocmp.Diff([]string{"X0", "X1", "X2", "X3"}, testrig.Values(t, c, testrig.Topic)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}
