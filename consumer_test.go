package gracedb_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

func TestConsumerConfig(t *testing.T) {
	cluster := gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "gracedb-test"}
	_, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test", "a b"}})
	wantErr(t, err, kinds(gracedb.ErrConfig, gracedb.ErrTopic, gracedb.ErrConsumer), kinds(gracedb.ErrProducer, gracedb.ErrConnection), "a b")
}

// What is published after NewConsumer returned is received, with and without a
// group, and nothing from before.
func TestConsumerInPosition(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			c := startCluster(t, kafkatest.Config{Topics: map[string]int{testTopic: 3}})
			p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
			for i := range 20 {
				send(t, p, fmt.Sprintf("before %d", i))
				g := group
				if g != "" {
					g = fmt.Sprint(g, i) // a new group
				}
				con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: g})
				want := fmt.Sprintf("after %d", i)
				sent := send(t, p, want)
				got := poll(t, con)
				if string(got.Value) != want || got.Topic != testTopic || got.Partition != sent.Partition || got.Offset != sent.Offset {
					t.Fatalf("got %+v, want %+v", got, sent)
				}
			}
		})
	}
}

// A message is received as it was sent.
func TestConsumerMessage(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	want := gracedb.Message{
		Topic: "gracedb-test.test", Key: []byte("k"), Value: []byte("v"),
		Headers: []gracedb.Header{{"a", []byte("1")}, {"b", nil}}, Time: time.UnixMilli(1_700_000_000_123),
	}
	if _, err := p.ProduceSync(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got := poll(t, con)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FromBeginning starts at the oldest message, unless the group has a position.
func TestConsumerFromBeginning(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			c := startCluster(t, kafkatest.Config{})
			p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
			send(t, p, "0")
			send(t, p, "1")
			cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: group, FromBeginning: true}
			con := newConsumer(t, cfg)
			for _, want := range []string{"0", "1"} {
				if got := poll(t, con); string(got.Value) != want {
					t.Errorf("got %s, want %s", got.Value, want)
				}
			}
			if err := con.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := con.Close(); err != nil {
				t.Fatal(err)
			}
			send(t, p, "2")
			want := "2"
			if group == "" {
				want = "0"
			}
			if got := poll(t, newConsumer(t, cfg)); string(got.Value) != want {
				t.Errorf("got %s, want %s", got.Value, want)
			}
		})
	}
}

// When a message counts as done: the next consumer of the group gets the first that
// does not.
func TestConsumerCommit(t *testing.T) {
	background := context.Background()
	// stream takes n messages and leaves the loop.
	stream := func(c *gracedb.Consumer, n int) error {
		for _, err := range c.Stream(background) {
			if err != nil {
				return err
			}
			if n--; n == 0 {
				return nil
			}
		}
		return errors.New("the stream has ended")
	}
	for _, tt := range []struct {
		name string
		use  func(*gracedb.Consumer) error
		want string
	}{
		{"nothing is asked for", func(*gracedb.Consumer) error { return nil }, "m0"},
		{"break at m0", func(c *gracedb.Consumer) error { return stream(c, 1) }, "m0"},
		{"break at m2", func(c *gracedb.Consumer) error { return stream(c, 3) }, "m2"},
		{"break at m2, Commit", func(c *gracedb.Consumer) error { return errors.Join(stream(c, 3), c.Commit(background)) }, "m3"},
		{"panic at m2, deferred Close", func(c *gracedb.Consumer) error {
			defer func() { _ = recover() }()
			defer func() { _ = c.Close() }()
			i := 0
			for range c.Stream(background) {
				if i++; i == 3 {
					panic("at m2")
				}
			}
			return nil
		}, "m2"},
		{"Poll m0 m1 m2", func(c *gracedb.Consumer) error {
			for range 3 {
				if _, err := c.Poll(background); err != nil {
					return err
				}
			}
			return nil
		}, "m2"},
		{"break at m2, range again", func(c *gracedb.Consumer) error { return errors.Join(stream(c, 3), stream(c, 1)) }, "m3"},
		{"ctx ends in the body of m2", func(c *gracedb.Consumer) error {
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			i := 0
			for _, err := range c.Stream(ctx) {
				if err != nil {
					return err
				}
				if i++; i == 3 {
					cancel()
				}
			}
			return nil
		}, "m3"},
		{"Poll with ctx done counts as asking", func(c *gracedb.Consumer) error {
			if err := stream(c, 3); err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(background)
			cancel()
			_, err := c.Poll(ctx)
			if !errors.Is(err, context.Canceled) {
				return fmt.Errorf("Poll: %w", err)
			}
			return nil
		}, "m3"},
		{"Commit twice", func(c *gracedb.Consumer) error {
			return errors.Join(stream(c, 1), c.Commit(background), c.Commit(background))
		}, "m1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				for i := range 6 {
					produceRaw(t, c, record(testTopic, 0, fmt.Sprint("m", i)))
				}
				cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: "g", FromBeginning: true}
				con := newConsumer(t, cfg)
				if err := tt.use(con); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if err := con.Close(); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > time.Second {
					t.Errorf("Close took %v", took)
				}
				if got := poll(t, newConsumer(t, cfg)); string(got.Value) != tt.want {
					t.Errorf("the next consumer got %s, want %s", got.Value, tt.want)
				}
			})
		})
	}
}

// Marks are stored within a second without anybody asking.
func TestConsumerStoresMarks(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: "g"})
		for i := range 3 {
			produceRaw(t, c, record(testTopic, 0, fmt.Sprint("m", i)))
			poll(t, con)
		}
		time.Sleep(1100 * time.Millisecond)
		if got := committed(t, c, "g", testTopic, 0); got != 2 {
			t.Errorf("stored position %d, want 2", got)
		}
	})
}

// Without a group Commit and Close leave nothing behind at the broker.
func TestConsumerLeavesNothing(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}})
	produceRaw(t, c, record(testTopic, 0, "x"))
	poll(t, con)
	if err := con.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if err := con.Close(); err != nil {
		t.Error(err)
	}
	for _, key := range []kmsg.Key{kmsg.OffsetCommit, kmsg.JoinGroup, kmsg.FindCoordinator, kmsg.OffsetFetch} {
		if n := c.Requests()[key]; n != 0 {
			t.Errorf("%d requests %v", n, key)
		}
	}
}

// ctx is looked at before anything else, is returned as it is by Poll, and ends
// Stream silently; ranging again resumes.
func TestConsumerCtx(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: group})
				for i := range 5 {
					produceRaw(t, c, record(testTopic, 0, fmt.Sprint(i)))
				}
				poll(t, con)
				done, cancel := context.WithCancelCause(t.Context())
				cancel(errors.New("a cause"))
				if m, err := con.Poll(done); err != context.Canceled { //nolint:errorlint // as it is
					t.Errorf("Poll: %s, %v", m.Value, err)
				}
				for m, err := range con.Stream(done) {
					t.Errorf("Stream: %s, %v", m.Value, err)
				}
				if got := poll(t, con); string(got.Value) != "1" {
					t.Errorf("got %s", got.Value)
				}
				seen := 0
				for range con.Stream(t.Context()) {
					if seen++; seen == 3 {
						break
					}
				}

				ctx, cancel2 := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel2()
				start := time.Now()
				if _, err := con.Poll(ctx); err != context.DeadlineExceeded { //nolint:errorlint // as it is
					t.Errorf("Poll: %v", err)
				}
				if took := time.Since(start); took != 3*time.Second {
					t.Errorf("Poll took %v", took)
				}
				for m, err := range con.Stream(ctx) {
					t.Errorf("Stream: %s, %v", m.Value, err)
				}
			})
		})
	}
}

// Subscribe adds topics, in position: also in a group, also in a live one. Without
// any topic Poll waits.
func TestSubscribe(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, kafkatest.Config{Topics: map[string]int{"gracedb-test.a": 2, "gracedb-test.b": 2}}, func(t *testing.T, c *kafkatest.Cluster) {
				p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "a"})
				to := func(topic, text string) {
					if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: topic, Value: []byte(text)}); err != nil {
						t.Fatal(err)
					}
				}
				con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), GroupID: group})
				to("a", "early")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := con.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Poll without topics: %v", err)
				}
				if err := con.Subscribe(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				to("a", "a1")
				if got := poll(t, con); string(got.Value) != "a1" {
					t.Errorf("got %s", got.Value)
				}
				to("b", "early")
				if err := con.Subscribe(t.Context(), "gracedb-test.b", "a"); err != nil {
					t.Fatal(err)
				}
				to("b", "b1")
				if got := poll(t, con); string(got.Value) != "b1" {
					t.Errorf("got %s", got.Value)
				}
				to("a", "a2")
				if got := poll(t, con); string(got.Value) != "a2" {
					t.Errorf("got %s", got.Value)
				}
				wantErr(t, con.Subscribe(t.Context(), "nosuch"), kinds(gracedb.ErrTopic, gracedb.ErrConsumer), nil, "gracedb-test.nosuch", "a, b")
				wantErr(t, con.Subscribe(t.Context(), "no such"), kinds(gracedb.ErrTopic, gracedb.ErrConsumer, gracedb.ErrConfig), nil, "no such")
			})
		})
	}
}

// New partitions are read from their first message, within 5 seconds.
func TestConsumerNewPartitions(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: group})
				produceRaw(t, c, record(testTopic, 0, "before"))
				poll(t, con)
				for partition := int32(1); partition < 4; partition++ {
					time.Sleep(1700 * time.Millisecond)
					if err := c.AddPartitions(testTopic, int(partition)+1); err != nil {
						t.Fatal(err)
					}
					want := fmt.Sprint("on ", partition)
					produceRaw(t, c, record(testTopic, partition, want))
					start := time.Now()
					if got := poll(t, con); string(got.Value) != want {
						t.Errorf("got %s, want %s", got.Value, want)
					}
					if took := time.Since(start); took > 5*time.Second {
						t.Errorf("received after %v", took)
					}
					t.Logf("received after %v", time.Since(start))
				}
			})
		})
	}
}

// A lazy consumer starts without a broker and takes position as soon as it can;
// a topic that is missing then is reported once, and read from its beginning when
// it is made.
func TestConsumerLazy(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				produceRaw(t, c, record(testTopic, 0, "early"))
				c.Refuse()
				con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test", "later"}, GroupID: group, Lazy: true})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := con.Poll(ctx); err != context.DeadlineExceeded { //nolint:errorlint // as it is
					t.Errorf("Poll: %v", err)
				}
				c.Accept()
				start := time.Now()
				_, err := con.Poll(t.Context())
				wantErr(t, err, kinds(gracedb.ErrTopic, gracedb.ErrConsumer), kinds(gracedb.ErrProducer), "gracedb-test.later")
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("reported after %v", took)
				}
				time.Sleep(5 * time.Second)
				produceRaw(t, c, record(testTopic, 0, "after"))
				if got := poll(t, con); string(got.Value) != "after" {
					t.Errorf("got %s", got.Value)
				}
				if err := c.CreateTopic("gracedb-test.later", 2, nil); err != nil {
					t.Fatal(err)
				}
				produceRaw(t, c, record("gracedb-test.later", 1, "its first"))
				start = time.Now()
				if got := poll(t, con); string(got.Value) != "its first" {
					t.Errorf("got %s", got.Value)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("received after %v", took)
				}
			})
		})
	}
}

// A topic that goes away is reported once; if it comes back it is read from its
// beginning.
func TestConsumerTopicGone(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				con := newConsumer(t, gracedb.ConsumerConfig{Cluster: withoutAutoCommit(clusterFor(t, c, "bob")), Topics: []string{"test"}, GroupID: group})
				produceRaw(t, c, record(testTopic, 0, "old 0"), record(testTopic, 0, "old 1"))
				poll(t, con)
				poll(t, con)
				if err := c.DeleteTopic(testTopic); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := con.Poll(ctx)
				wantErr(t, err, kinds(gracedb.ErrTopic, gracedb.ErrConsumer), nil, testTopic)
				for range 2 {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					if _, err := con.Poll(ctx); err != context.DeadlineExceeded { //nolint:errorlint // as it is
						t.Errorf("reported again: %v", err)
					}
					cancel()
				}
				if err := c.CreateTopic(testTopic, 1, nil); err != nil {
					t.Fatal(err)
				}
				for i := range 4 {
					produceRaw(t, c, record(testTopic, 0, fmt.Sprint("new ", i)))
				}
				_, err = con.Poll(within(t, 20*time.Second))
				wantErr(t, err, kinds(gracedb.ErrConsumer), nil, testTopic, "was deleted and made anew", "from offset 2")
				for i := range 4 {
					if got := poll(t, con); string(got.Value) != fmt.Sprint("new ", i) {
						t.Errorf("got %s, want new %d", got.Value, i)
					}
				}
			})
		})
	}
}

// Check tells a silent topic from a dead broker, a refused token and a topic that
// is gone, at any time.
func TestConsumerCheck(t *testing.T) {
	virtually(t, kafkatest.Config{MaxSession: 10 * time.Second}, func(t *testing.T, c *kafkatest.Cluster) {
		con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}})
		polling, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for polling.Err() == nil {
				_, _ = con.Poll(polling)
			}
		})
		check := func(timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			return con.Check(ctx)
		}
		if err := check(time.Second); err != nil {
			t.Error(err)
		}
		c.Freeze()
		wantErr(t, check(2*time.Second), kinds(gracedb.ErrConnection, gracedb.ErrConsumer, context.DeadlineExceeded), nil, c.Addrs()[0])
		c.Thaw()
		time.Sleep(time.Second)
		if err := c.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		wantErr(t, check(3*time.Second), kinds(gracedb.ErrTopic), nil, testTopic)
		if err := c.CreateTopic(testTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		c.RefuseTokens(kafkatest.Refusal{})
		time.Sleep(11 * time.Second)
		wantErr(t, check(time.Second), kinds(gracedb.ErrAuthentication), kinds(gracedb.ErrConnection), "invalid_token")
		c.AcceptTokens()
		time.Sleep(2 * time.Second)
		if err := check(time.Second); err != nil {
			t.Error(err)
		}
		stop()
		wg.Wait()
	})
}

// Close may be called at any time and from anywhere; afterwards all calls say so.
func TestConsumerClose(t *testing.T) {
	for _, group := range groups {
		t.Run("group="+group, func(t *testing.T) {
			c := startCluster(t, kafkatest.Config{})
			con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: group})
			polled := make(chan error, 1)
			go func() { _, err := con.Poll(context.Background()); polled <- err }()
			time.Sleep(20 * time.Millisecond)
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					if err := con.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			closed := kinds(gracedb.ErrClosed, gracedb.ErrConsumer)
			not := kinds(gracedb.ErrProducer)
			wantErr(t, <-polled, closed, not)
			_, err := con.Poll(context.Background())
			wantErr(t, err, closed, not)
			for _, err := range con.Stream(context.Background()) {
				wantErr(t, err, closed, not)
			}
			wantErr(t, con.Subscribe(context.Background(), "test"), closed, not)
			wantErr(t, con.Check(context.Background()), closed, not)
			wantErr(t, con.Commit(context.Background()), closed, not)
		})
	}
}

// Close leaves the group at once, so that the next member does not wait for the
// session to time out; and takes at most 3 seconds if the broker is mute.
func TestConsumerCloseLeaves(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: "g"}
		con := newConsumer(t, cfg)
		produceRaw(t, c, record(testTopic, 0, "a"))
		poll(t, con)
		start := time.Now()
		if err := con.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
		con = newConsumer(t, cfg)
		start = time.Now()
		if got := poll(t, con); string(got.Value) != "a" {
			t.Errorf("got %s", got.Value)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("the next member had to wait for %v", took)
		}
		produceRaw(t, c, record(testTopic, 0, "b"))
		poll(t, con) // there is something to commit
		c.Freeze()
		start = time.Now()
		if err := con.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("Close on a mute broker took %v", took)
		}
		c.Thaw()
	})
}

// What may not be read, or the group that may not be used, is said once.
func TestConsumerNotAllowed(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		refused := c.Inject(kafkatest.Fault{
			Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.OffsetFetch}, Count: -1,
			Rewrite: func(_ kmsg.Request, r kmsg.Response) {
				for i := range r.(*kmsg.OffsetFetchResponse).Groups {
					r.(*kmsg.OffsetFetchResponse).Groups[i].ErrorCode = kerr.GroupAuthorizationFailed.Code
				}
			},
		})
		_, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: "secret"})
		wantErr(t, err, kinds(gracedb.ErrConsumer, kerr.GroupAuthorizationFailed), nil, "secret", "bob")
		refused.Remove()
	})
}

// Where the group's position is behind the end of a log that began anew, what is done from
// its beginning is stored all the same.
func TestConsumerStoresBeforeOldPosition(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
		client, err := cl.Client()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.Generation = "g", -1
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = testTopic, topicID(t, cl)
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Offset, rp.LeaderEpoch = 100, 5
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		if _, err := req.RequestWith(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		if at := committed(t, cl, "g", testTopic, 0); at != 100 {
			t.Fatal(at)
		}
		for _, value := range []string{"a", "b", "c"} {
			produceRaw(t, cl, record(testTopic, 0, value))
		}
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g"})
		got, errs := pollAll(t, c, 10*time.Second)
		t.Log(got, errs)
		if err := c.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if at := committed(t, cl, "g", testTopic, 0); len(got) != 3 || at != 3 {
			t.Errorf("stored as done: %d", at)
		}
	})
}

func topicID(t testing.TB, cl *kafkatest.Cluster) [16]byte {
	client, err := cl.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = new(testTopic)
	req.Topics = append(req.Topics, mt)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].TopicID
}

// A group's coordinator may be missing for seconds: a broker that has never had a
// group first makes its topic of offsets. NewConsumer waits, as for a silent broker.
func TestConsumerWaitsForCoordinator(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		const missing = 5 * time.Second
		there := time.Now().Add(missing)
		c.Kfake().ControlKey(int16(kmsg.FindCoordinator), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.Kfake().KeepControl()
			if time.Now().After(there) {
				return nil, nil, false
			}
			ask := req.(*kmsg.FindCoordinatorRequest)
			resp := ask.ResponseKind().(*kmsg.FindCoordinatorResponse)
			resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
			for _, key := range ask.CoordinatorKeys {
				r := kmsg.NewFindCoordinatorResponseCoordinator()
				r.Key, r.ErrorCode = key, kerr.CoordinatorNotAvailable.Code
				resp.Coordinators = append(resp.Coordinators, r)
			}
			return resp, nil, true
		})
		start := time.Now()
		con := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, c, "bob"), Topics: []string{"test"}, GroupID: "g"})
		if took := time.Since(start); took < missing || took > missing+time.Second {
			t.Errorf("NewConsumer took %v, the coordinator was missing for %v", took, missing)
		}
		produceRaw(t, c, record(testTopic, 0, "x"))
		if got := poll(t, con); string(got.Value) != "x" {
			t.Errorf("got %s", got.Value)
		}
	})
}
