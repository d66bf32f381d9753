package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// The findings about ligo-gracedb 2.16.1 that concern the consumer, by their numbers:
// what happens there must not happen here.

// 9: the message being handled is lost when its handler fails.
func TestPeerFinding_09_HandlerFails(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		for i := range 10 {
			testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, fmt.Sprint("m", i)))
		}
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: "g", FromBeginning: true}
		handle := func() (err error) {
			con, err := gracedb.NewConsumer(t.Context(), cfg)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, con.Close()) }()
			for m, err := range con.Stream(t.Context()) {
				if err != nil || string(m.Value) == "m4" {
					return errors.Join(err, errors.New("the handler of m4 fails"))
				}
			}
			return nil
		}
		if err := handle(); err == nil {
			t.Fatal("it did not")
		}
		if got := testrig.Committed(t, c, "g", testrig.Topic, 0); got != 4 {
			t.Errorf("stored position %d, want 4", got)
		}
		if got := testrig.Poll(t, testrig.NewConsumer(t, cfg)); string(got.Value) != "m4" {
			t.Errorf("the next consumer gets %s", got.Value)
		}
	})
}

// 10: what is published after the constructor has returned, and before the first
// poll, is missed.
func TestPeerFinding_10_BeforeFirstPoll(t *testing.T) {
	for _, group := range testrig.Groups {
		t.Run("group="+group, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "before"))
				con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: group})
				start := time.Now()
				after := []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, time.Minute}
				for _, at := range after {
					time.Sleep(time.Until(start.Add(at)))
					testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, at.String()))
				}
				for _, at := range after {
					if got := testrig.Poll(t, con); string(got.Value) != at.String() {
						t.Errorf("got %s, want that of %v", got.Value, at)
					}
				}
			})
		})
	}
}

// later calls f when d has passed; the test does not end before f has.
func later(t *testing.T, d time.Duration, f func()) {
	done := make(chan struct{})
	time.AfterFunc(d, func() { defer close(done); f() })
	t.Cleanup(func() { <-done })
}

// 10b: a broker that is away for longer than the session, before the first commit:
// what is published in the outage is skipped.
func TestPeerFinding_10b_Outage(t *testing.T) {
	for _, group := range testrig.Groups {
		for name, how := range map[string]struct {
			begin, end func(*testing.T, *kafkatest.Cluster)
		}{
			"away":   {func(_ *testing.T, c *kafkatest.Cluster) { away(c) }, func(t *testing.T, c *kafkatest.Cluster) { back(t, c) }},
			"frozen": {func(_ *testing.T, c *kafkatest.Cluster) { c.Freeze() }, func(_ *testing.T, c *kafkatest.Cluster) { c.Thaw() }},
			"killed": {func(t *testing.T, c *kafkatest.Cluster) {
				if err := c.Kill(0); err != nil {
					t.Fatal(err)
				}
			}, func(t *testing.T, c *kafkatest.Cluster) {
				if err := c.Restart(0); err != nil {
					t.Fatal(err)
				}
			}},
		} {
			t.Run(name+"/group="+group, func(t *testing.T) {
				testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
					testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "before"))
					con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.WithoutAutoCommit(testrig.ClusterFor(t, c, "bob")), Topics: []string{"test"}, GroupID: group})
					if _, err := con.Poll(testrig.Within(t, 2*time.Second)); err != context.DeadlineExceeded { //nolint:errorlint // as it is
						t.Error(err)
					}
					how.begin(t, c)
					later(t, 10*time.Second, func() {
						testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "0"), testrig.Record(testrig.Topic, 0, "1"), testrig.Record(testrig.Topic, 0, "2"))
					})
					if _, err := con.Poll(testrig.Within(t, time.Minute)); err != context.DeadlineExceeded { //nolint:errorlint // as it is
						t.Error(err)
					}
					how.end(t, c)
					later(t, 5*time.Second, func() { testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "3")) })
					for i := range 4 {
						if got := testrig.Poll(t, con); string(got.Value) != fmt.Sprint(i) {
							t.Fatalf("got %s, want %d", got.Value, i)
						}
					}
				})
			})
		}
	}
}

// 11: a message that does not parse ends the loop, and is skipped.
func TestPeerFinding_11_Poison(t *testing.T) {
	poison := []string{
		strings.Repeat("9", 5000), `{"type": ` + strings.Repeat("9", 5000) + `}`,
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000), strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000),
		"", "null", "\x00\xff", "{", `{"type": "upload"}`,
	}
	for _, group := range testrig.Groups {
		t.Run("group="+group, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: group})
				all := append(slices.Clone(poison), `{"good": true}`)
				for _, value := range all {
					testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, value))
				}
				next := 0
				for m, err := range con.Stream(testrig.Within(t, time.Minute)) {
					if err != nil {
						t.Fatal(err)
					}
					if string(m.Value) != all[next] {
						t.Fatalf("message %d is %.40q", next, m.Value)
					}
					if _, err := m.Upload(); err == nil {
						t.Errorf("%.40q is an upload", m.Value)
					}
					var v map[string]any
					if err := m.Decode(&v); err != nil {
						testrig.WantErr(t, err, nil, nil, testrig.Topic, fmt.Sprint("offset ", next))
					}
					if next++; next == len(all) {
						break
					}
				}
				if next != len(all) {
					t.Errorf("%d of %d", next, len(all))
				}
			})
		})
	}
}

// 27: a consumer never reports that its broker cannot be reached.
func TestPeerFinding_27_Unreachable(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{Brokers: 2}, func(t *testing.T, c *kafkatest.Cluster) {
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "bob"), Topics: []string{"test"}}
		con := testrig.NewConsumer(t, cfg)
		away(c)
		start := time.Now()
		_, err := gracedb.NewConsumer(t.Context(), cfg)
		testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConnection, gracedb.ErrConsumer), nil, c.Addrs()[0], c.Addrs()[1], "refused")
		testrig.WantErr(t, con.Check(t.Context()), testrig.Kinds(gracedb.ErrConnection, gracedb.ErrConsumer), nil, c.Addrs()[0], c.Addrs()[1], "refused")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("told after %v", took)
		}
		if _, err := con.Poll(testrig.Within(t, time.Minute)); err != context.DeadlineExceeded { //nolint:errorlint // as it is
			t.Errorf("Poll: %v", err)
		}
		testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "meanwhile"))
		back(t, c)
		if got := testrig.Poll(t, con); string(got.Value) != "meanwhile" {
			t.Errorf("got %s", got.Value)
		}
	})
}

// 28: closing a consumer after a refused token takes 45 seconds.
func TestPeerFinding_28_CloseAfterRefusal(t *testing.T) {
	for _, group := range testrig.Groups {
		t.Run("group="+group, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.WithoutAutoCommit(testrig.ClusterFor(t, c, "bob")), Topics: []string{"test"}, GroupID: group})
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "a"))
				testrig.Poll(t, con)
				c.RefuseTokens(kafkatest.Refusal{})
				c.Drop(kafkatest.RST)
				_, err := con.Poll(testrig.Within(t, time.Minute))
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrAuthentication, gracedb.ErrConsumer), nil, "invalid_token")
				start := time.Now()
				if err := con.Close(); err != nil {
					t.Error(err)
				}
				took := time.Since(start)
				t.Logf("Close took %v", took)
				if took > 3*time.Second {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

// 30: stream takes signals over: a loop's body cannot be interrupted.
func TestPeerFinding_30_Signals(t *testing.T) {
	const env = "GRACEDB_TEST_SIGNALLED_CHILD"
	if arg := strings.Fields(os.Getenv(env)); len(arg) > 0 {
		con, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Topics: []string{"test"}, FromBeginning: true, Cluster: gracedb.Cluster{
			Brokers: arg[:1], Instance: "gracedb-test", CAFile: arg[1], Token: gracedb.StaticToken(arg[2]),
		}})
		if err != nil {
			t.Fatal(err)
		}
		for range con.Stream(t.Context()) {
			fmt.Println("in the body")
			time.Sleep(time.Hour)
		}
	}
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted there")
	}
	c := testrig.StartCluster(t, kafkatest.Config{})
	testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, "a"))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPeerFinding_30_Signals$")
	cmd.Env = append(os.Environ(), env+"="+strings.Join([]string{c.Addrs()[0], c.CAFile(), testrig.Mint(t, c, testauth.Claims{})}, " "))
	_, out := startChild(t, cmd)
	if line, err := out.ReadString('\n'); line != "in the body\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	start := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // how it ended is looked at
	if cmd.ProcessState.Exited() || time.Since(start) > 10*time.Second {
		t.Errorf("not ended by the signal: %v after %v", cmd.ProcessState, time.Since(start))
	}
}

// 31: a message that is fetched while an authentication error is pending is thrown
// away.
func TestPeerFinding_31_ErrorPending(t *testing.T) {
	// Node 0 refuses; node 1, whose session goes on, delivers.
	testrig.Virtually(t, kafkatest.Config{Brokers: 2, Topics: map[string]int{testrig.Topic: 2}}, func(t *testing.T, c *kafkatest.Cluster) {
		for partition := range int32(2) {
			if err := c.MoveLeader(testrig.Topic, partition, partition); err != nil {
				t.Fatal(err)
			}
		}
		con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "bob"), Topics: []string{"test"}})
		write := func(from, to int) {
			for i := from; i < to; i++ {
				testrig.ProduceRaw(t, c, testrig.Record(testrig.Topic, 0, fmt.Sprint("0 ", i)), testrig.Record(testrig.Topic, 1, fmt.Sprint("1 ", i)))
			}
		}
		write(0, 3)
		next := [2]int64{}
		take := func(d time.Duration) (said int) {
			for ctx := testrig.Within(t, d); ; {
				m, err := con.Poll(ctx)
				switch {
				case err == nil && m.Offset != next[m.Partition]:
					t.Fatalf("got %d of partition %d, want %d", m.Offset, m.Partition, next[m.Partition])
				case err == nil:
					next[m.Partition]++
				case ctx.Err() != nil:
					return said
				default:
					testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrAuthentication, gracedb.ErrConsumer), nil)
					said++
				}
			}
		}
		take(time.Second)
		c.RefuseTokens(kafkatest.Refusal{})
		c.Drop(kafkatest.RST, 0)
		write(3, 6)
		time.Sleep(10 * time.Second) // past the grace: the error is pending, and so are messages
		write(6, 9)
		if said := take(10 * time.Second); said != 1 {
			t.Errorf("said %d times", said)
		}
		t.Logf("while refused: %v", next)
		if next[1] < 6 {
			t.Error("nothing was fetched while the error was pending")
		}
		write(9, 12)
		c.AcceptTokens()
		if said := take(10 * time.Second); said != 0 || next != [2]int64{12, 12} {
			t.Errorf("said %d times, received %v of 12", said, next)
		}
	})
}
