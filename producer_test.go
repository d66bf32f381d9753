package gracedb_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// What is wrong with a ProducerConfig is named.
func TestProducerConfig(t *testing.T) {
	for _, tt := range []struct {
		field  string
		change func(*gracedb.ProducerConfig)
		is     []error
	}{
		{"FlushTimeout", func(c *gracedb.ProducerConfig) { c.FlushTimeout = -1 }, nil},
		{"MaxMessageBytes", func(c *gracedb.ProducerConfig) { c.MaxMessageBytes = -1 }, nil},
		{"MaxMessageBytes", func(c *gracedb.ProducerConfig) { c.MaxMessageBytes = 1 << 30 }, nil},
		{"MaxBufferedBytes", func(c *gracedb.ProducerConfig) { c.MaxBufferedBytes = -1 }, nil},
		{"gst lal", func(c *gracedb.ProducerConfig) { c.Topic = "gst lal" }, kinds(gracedb.ErrTopic)},
	} {
		t.Run(tt.field, func(t *testing.T) {
			cfg := gracedb.ProducerConfig{Cluster: gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "gracedb-test"}}
			tt.change(&cfg)
			_, err := gracedb.NewProducer(t.Context(), cfg)
			wantErr(t, err, append(kinds(gracedb.ErrConfig), tt.is...), kinds(gracedb.ErrConnection), tt.field)
		})
	}
}

// A message arrives as it was sent, on the topic that it names.
func TestProduceSync(t *testing.T) {
	c := startCluster(t, kafkatest.Config{Topics: map[string]int{testTopic: 1, "gracedb-test.gstlal": 4}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	when := time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)
	for _, tt := range []struct {
		name string
		m    gracedb.Message
		want string
	}{
		{"the default topic", gracedb.Message{Value: []byte("a")}, testTopic},
		{"a pipeline", gracedb.Message{Topic: "gstlal", Key: []byte("G1"), Value: []byte("b")}, "gracedb-test.gstlal"},
		{"a full name", gracedb.Message{Topic: "gracedb-test.gstlal", Value: []byte{}}, "gracedb-test.gstlal"},
		{"all fields", gracedb.Message{
			Topic: "gstlal", Key: []byte("G2"), Value: []byte{0, 255}, Time: when,
			Headers: []gracedb.Header{{"a", []byte("1")}, {"a", nil}, {"", []byte{0}}},
		}, "gracedb-test.gstlal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := time.Now().Truncate(time.Millisecond)
			got, err := p.ProduceSync(t.Context(), tt.m)
			if err != nil {
				t.Fatal(err)
			}
			if got.Time.Before(before) != !tt.m.Time.IsZero() {
				t.Errorf("time %v", got.Time)
			}
			want := tt.m
			want.Topic, want.Partition, want.Offset, want.Time = tt.want, got.Partition, got.Offset, got.Time
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			records, err := c.Records(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Partition == got.Partition && r.Offset == got.Offset })
			if i < 0 {
				t.Fatal("not in the log")
			}
			r := records[i]
			if !bytes.Equal(r.Key, tt.m.Key) || !bytes.Equal(r.Value, tt.m.Value) || len(r.Headers) != len(tt.m.Headers) {
				t.Errorf("in the log: %+v", r)
			}
			for i, h := range tt.m.Headers {
				if r.Headers[i].Key != h.Key || !bytes.Equal(r.Headers[i].Value, h.Value) {
					t.Errorf("header %d: %+v", i, r.Headers[i])
				}
			}
			if !tt.m.Time.IsZero() && !r.Timestamp.Equal(tt.m.Time) {
				t.Errorf("timestamp %v", r.Timestamp)
			}
		})
	}
}

// A key has its partition: that of librdkafka's CRC32, so that an event stays on
// its partition whichever package sends it.
func TestProducePartition(t *testing.T) {
	c := startCluster(t, kafkatest.Config{Topics: map[string]int{testTopic: 8}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	for key, want := range map[string]int32{ // crc32 mod 8
		"123456789": 0xcbf43926 % 8, // the check value of CRC-32
		"G1":        0xaf3fcb07 % 8,
	} {
		for range 3 {
			m, err := p.ProduceSync(t.Context(), gracedb.Message{Key: []byte(key)})
			if err != nil {
				t.Fatal(err)
			}
			if m.Partition != want {
				t.Errorf("key %s: partition %d, want %d", key, m.Partition, want)
			}
		}
	}
}

// A message that no broker could take is refused before anything is sent.
func TestProduceRefused(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), MaxMessageBytes: 1000})
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		m     gracedb.Message
		is    []error
		names []string
	}{
		{"no topic", t.Context(), gracedb.Message{}, kinds(gracedb.ErrTopic), []string{"ProducerConfig.Topic"}},
		{"bad topic", t.Context(), gracedb.Message{Topic: "a b"}, kinds(gracedb.ErrTopic), []string{"a b"}},
		{"too large", t.Context(), gracedb.Message{Topic: "test", Key: []byte("k"), Value: make([]byte, 1000)}, kinds(gracedb.ErrTooLarge), []string{"1001", "1000", "MaxMessageBytes", testTopic}},
		{"too large by headers", t.Context(), gracedb.Message{Topic: "test", Headers: []gracedb.Header{{"k", make([]byte, 1000)}}}, kinds(gracedb.ErrTooLarge), nil},
		{"ctx done", done, gracedb.Message{Topic: "test"}, kinds(context.Canceled), []string{testTopic}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := append(kinds(gracedb.ErrDelivery, gracedb.ErrProducer, gracedb.ErrKafka), tt.is...)
			_, err := p.ProduceSync(tt.ctx, tt.m)
			wantErr(t, err, is, kinds(gracedb.ErrOutcomeUnknown), tt.names...)
			err = p.Produce(tt.ctx, tt.m, func(gracedb.Message, error) { t.Error("done is called") })
			wantErr(t, err, is, kinds(gracedb.ErrOutcomeUnknown), tt.names...)
			if n := p.Pending(); n != 0 {
				t.Errorf("%d pending", n)
			}
		})
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Errorf("Flush reports what was returned: %v", err)
	}
	if got := values(t, c, testTopic); len(got) != 0 {
		t.Errorf("in the log: %q", got)
	}
}

// done is called exactly once for each message that is accepted, and may produce.
func TestProduceDone(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	const n = 500
	var calls [n]atomic.Int32
	var again sync.WaitGroup
	for i := range n {
		value := []byte(fmt.Sprint(i))
		if i%10 == 0 {
			again.Add(1)
		}
		err := p.Produce(t.Context(), gracedb.Message{Value: value}, func(m gracedb.Message, err error) {
			if err != nil || !bytes.Equal(m.Value, value) || m.Topic != testTopic {
				t.Errorf("%+v, %v", m, err)
			}
			calls[i].Add(1)
			if i%10 == 0 {
				if err := p.Produce(context.Background(), gracedb.Message{Value: []byte("again")}, func(gracedb.Message, error) { again.Done() }); err != nil {
					t.Error(err)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if got := calls[i].Load(); got != 1 {
			t.Errorf("done %d called %d times", i, got)
		}
	}
	again.Wait()
	var order []string
	for _, v := range values(t, c, testTopic) {
		if v != "again" {
			order = append(order, v)
		}
	}
	for i := range n {
		if order[i] != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, order[i])
		}
	}
}

// While done has not returned the message counts as not settled, so that Flush
// covers what done does.
func TestFlushWaitsForDone(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	hold, called := make(chan struct{}), make(chan struct{})
	if err := p.Produce(t.Context(), gracedb.Message{}, func(gracedb.Message, error) { close(called); <-hold }); err != nil {
		t.Fatal(err)
	}
	<-called
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush(context.Background()) }()
	select {
	case err := <-flushed:
		t.Errorf("flushed: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if got := p.Pending(); got != 1 {
		t.Errorf("%d pending", got)
	}
	close(hold)
	if err := <-flushed; err != nil {
		t.Error(err)
	}
	if got := p.Pending(); got != 0 {
		t.Errorf("%d pending", got)
	}
}

// Flush says, once, how many of those without a done failed, and why.
func TestFlushReports(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	for i := range 7 {
		topic := "nosuch"
		if i%2 == 1 {
			topic = "test"
		}
		if err := p.Produce(t.Context(), gracedb.Message{Topic: topic, Value: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	var told error
	if err := p.Produce(t.Context(), gracedb.Message{Topic: "neither"}, func(_ gracedb.Message, err error) { told = err }); err != nil {
		t.Fatal(err)
	}
	err := p.Flush(t.Context())
	wantErr(t, err, kinds(gracedb.ErrDelivery, gracedb.ErrTopic, kerr.UnknownTopicOrPartition), kinds(gracedb.ErrOutcomeUnknown), "4 message", "gracedb-test.nosuch")
	wantErr(t, told, kinds(gracedb.ErrDelivery, gracedb.ErrTopic), nil, "gracedb-test.neither")
	t.Log(err)
	if err := p.Flush(t.Context()); err != nil {
		t.Errorf("reported again: %v", err)
	}
	if got := values(t, c, testTopic); len(got) != 3 {
		t.Errorf("in the log: %q", got)
	}
	send(t, p, "works on")
}

// Flush does not wait for, nor report, what comes after it.
func TestFlushIsOnlyForWhatIsQueued(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		slow := c.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Delay: time.Second, Keys: []kmsg.Key{kmsg.Produce}})
		if err := p.Produce(t.Context(), gracedb.Message{Value: []byte("1")}, nil); err != nil {
			t.Fatal(err)
		}
		_ = slow.Wait(t.Context(), 1)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // there is always something queued
			for i := 2; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					if err := p.Produce(context.Background(), gracedb.Message{Value: fmt.Append(nil, i)}, nil); err != nil {
						t.Error(err)
					}
				}
			}
		})
		start := time.Now()
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("Flush took %v", took)
		}
		close(stop)
		wg.Wait()
	})
}

// A Flush that ends with its ctx says how much is left, and can be repeated.
func TestFlushTimeout(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		c.Freeze()
		for range 3 {
			if err := p.Produce(t.Context(), gracedb.Message{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := p.Flush(ctx)
		if took := time.Since(start); took != time.Second {
			t.Errorf("Flush took %v", took)
		}
		wantErr(t, err, kinds(gracedb.ErrProducer, context.DeadlineExceeded, gracedb.ErrOutcomeUnknown), kinds(gracedb.ErrDelivery), "3 message")
		c.Thaw()
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if got := values(t, c, testTopic); len(got) != 3 {
			t.Errorf("%d in the log", len(got))
		}
	})
}

// Beyond MaxBufferedBytes Produce waits, as long as ctx allows.
func TestProduceBufferBound(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", MaxBufferedBytes: 11_000})
		c.Freeze()
		big := func(i int) gracedb.Message {
			return gracedb.Message{Value: append(fmt.Append(nil, i, " "), make([]byte, 3000)...)}
		}
		for i := range 3 {
			if err := p.Produce(t.Context(), big(i), nil); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := p.Produce(ctx, big(9), func(gracedb.Message, error) { t.Error("done is called") })
		if took := time.Since(start); took != time.Second {
			t.Errorf("Produce took %v", took)
		}
		wantErr(t, err, kinds(gracedb.ErrDelivery, context.DeadlineExceeded), kinds(gracedb.ErrOutcomeUnknown), "11000")
		var wg sync.WaitGroup
		for i := 3; i < 8; i++ {
			wg.Go(func() {
				if err := p.Produce(t.Context(), big(i), nil); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if got := p.Pending(); got != 3 {
			t.Errorf("%d pending", got)
		}
		c.Thaw()
		wg.Wait()
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if got := values(t, c, testTopic); len(got) != 8 {
			t.Errorf("%d in the log", len(got))
		}
	})
}

// A message larger than the buffer passes, alone.
func TestProduceLargerThanBuffer(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", MaxBufferedBytes: 100})
	for range 3 {
		if err := p.Produce(t.Context(), gracedb.Message{Value: make([]byte, 1000)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// ctx ends Produce's wait for room and withdraws what was not sent, nothing else.
func TestProduceWithdrawn(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		c.Refuse()
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", Lazy: true})
		ctx, cancel := context.WithCancel(t.Context())
		outcome := make(chan error, 1)
		if err := p.Produce(ctx, gracedb.Message{Value: []byte("withdrawn")}, func(_ gracedb.Message, err error) { outcome <- err }); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := p.Produce(t.Context(), gracedb.Message{Value: fmt.Append(nil, i)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		cancel()
		time.Sleep(time.Second)
		c.Accept()
		wantErr(t, <-outcome, kinds(gracedb.ErrDelivery, context.Canceled), kinds(gracedb.ErrOutcomeUnknown), testTopic)
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if diff := gocmp.Diff([]string{"0", "1", "2"}, values(t, c, testTopic)); diff != "" {
			t.Error(diff)
		}
	})
}

// Close delivers what is queued.
func TestProducerClose(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := p.Produce(t.Context(), gracedb.Message{Value: fmt.Append(nil, i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := values(t, c, testTopic); len(got) != 100 {
		t.Errorf("%d in the log", len(got))
	}
	for name, call := range map[string]func() error{
		"Produce":     func() error { return p.Produce(t.Context(), gracedb.Message{}, nil) },
		"ProduceSync": func() error { _, err := p.ProduceSync(t.Context(), gracedb.Message{}); return err },
		"Ping":        func() error { _, err := p.Ping(t.Context(), ""); return err },
		"Check":       func() error { return p.Check(t.Context()) },
	} {
		wantErr(t, call(), kinds(gracedb.ErrClosed, gracedb.ErrProducer), kinds(gracedb.ErrOutcomeUnknown), "closed")
		if name != "Check" {
			wantIs(t, call(), gracedb.ErrDelivery)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Errorf("Flush: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if got := p.Pending(); got != 0 {
		t.Errorf("%d pending", got)
	}
}

// Close gives up after FlushTimeout, calls every done, and says what was not
// delivered. Who waits for room, or in Flush, is let go.
func TestProducerCloseUndelivered(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{
			Cluster: clusterFor(t, c, "alice"), Topic: "test", FlushTimeout: 2 * time.Second, MaxBufferedBytes: 10_000,
		})
		if err != nil {
			t.Fatal(err)
		}
		send(t, p, "delivered")
		c.Freeze()
		var mu sync.Mutex
		outcomes := make(map[string]error)
		for i := range 4 {
			name := fmt.Sprint(i)
			if err := p.Produce(t.Context(), gracedb.Message{Value: append([]byte(name), make([]byte, 2000)...)}, func(_ gracedb.Message, err error) {
				mu.Lock()
				defer mu.Unlock()
				if _, twice := outcomes[name]; twice {
					t.Error("done is called twice")
				}
				outcomes[name] = err
			}); err != nil {
				t.Fatal(err)
			}
		}
		waiting, flushing := make(chan error, 1), make(chan error, 1)
		go func() { waiting <- p.Produce(context.Background(), gracedb.Message{Value: make([]byte, 9000)}, nil) }()
		go func() { flushing <- p.Flush(context.Background()) }()
		synctest.Wait()
		start := time.Now()
		err = p.Close()
		if took := time.Since(start); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
		wantErr(t, err, kinds(gracedb.ErrProducer), nil, "4 message")
		wantErr(t, <-waiting, kinds(gracedb.ErrClosed, gracedb.ErrDelivery), kinds(gracedb.ErrOutcomeUnknown))
		if err := <-flushing; err != nil {
			t.Logf("Flush: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(outcomes) != 4 {
			t.Errorf("%d of 4 done called", len(outcomes))
		}
		for name, err := range outcomes {
			if err == nil || errors.Is(err, gracedb.ErrDelivery) == errors.Is(err, gracedb.ErrOutcomeUnknown) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// Close may race with everything.
func TestProducerCloseWhileProducing(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	for range 20 {
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		if err != nil {
			t.Fatal(err)
		}
		var accepted, called atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					err := p.Produce(context.Background(), gracedb.Message{Value: []byte("x")}, func(_ gracedb.Message, err error) {
						called.Add(1)
						if err != nil {
							t.Error(err)
						}
					})
					if err != nil {
						if !errors.Is(err, gracedb.ErrClosed) {
							t.Error(err)
						}
						return
					}
					accepted.Add(1)
				}
			})
		}
		wg.Go(func() {
			for p.Flush(context.Background()) == nil && p.Check(context.Background()) == nil {
			}
		})
		time.Sleep(2 * time.Millisecond)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if accepted.Load() != called.Load() {
			t.Errorf("accepted %d, done called %d times", accepted.Load(), called.Load())
		}
	}
}

// A broker's limit counts the compressed batch: what it refuses is sent once more,
// compressed, and who waits behind is unharmed.
func TestProduceTooLargeForBroker(t *testing.T) {
	c := startCluster(t, kafkatest.Config{TopicMaxMessageBytes: map[string]int{testTopic: 100_000}})
	// The limit cannot be read: this package finds it out by the refusal.
	c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.DescribeConfigs}, Count: -1, Rewrite: func(_ kmsg.Request, r kmsg.Response) {
		r.(*kmsg.DescribeConfigsResponse).Resources = nil
	}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	random := make([]byte, 300_000)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	outcomes := make(map[int]error)
	for i := range 20 {
		m := gracedb.Message{Value: fmt.Append(nil, i)}
		switch i {
		case 5:
			m.Value = make([]byte, 500_000) // compresses well
		case 11:
			m.Value = random
		}
		if err := p.Produce(t.Context(), m, func(_ gracedb.Message, err error) {
			mu.Lock()
			defer mu.Unlock()
			outcomes[i] = err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	for i := range 20 {
		err, told := outcomes[i]
		switch {
		case !told:
			t.Errorf("message %d has no outcome", i)
		case i == 11:
			wantErr(t, err, kinds(gracedb.ErrTooLarge, gracedb.ErrDelivery, kerr.MessageTooLarge), kinds(gracedb.ErrOutcomeUnknown), "300000", testTopic)
		case err != nil:
			t.Errorf("message %d: %v", i, err)
		}
	}
	if got := values(t, c, testTopic); len(got) != 19 {
		t.Errorf("%d in the log", len(got))
	}
}

// The limit is read where that is allowed: a batch over it is compressed at once.
func TestProduceLimitIsRead(t *testing.T) {
	c := startCluster(t, kafkatest.Config{TopicMaxMessageBytes: map[string]int{testTopic: 100_000}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	produces := c.Requests()[kmsg.Produce]
	if _, err := p.ProduceSync(t.Context(), gracedb.Message{Value: make([]byte, 500_000)}); err != nil {
		t.Fatal(err)
	}
	if got := c.Requests()[kmsg.Produce] - produces; got != 1 {
		t.Errorf("%d requests", got)
	}
}

// A ping is a message that consumers can tell from an event.
func TestPing(t *testing.T) {
	c := startCluster(t, kafkatest.Config{Topics: map[string]int{testTopic: 1, "gracedb-test.gstlal": 1}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice")})
	for _, tt := range []struct{ topic, want string }{{"", testTopic}, {"gstlal", "gracedb-test.gstlal"}} {
		m, err := p.Ping(t.Context(), tt.topic)
		if err != nil {
			t.Fatal(err)
		}
		if m.Topic != tt.want || string(m.Key) != "ping/alice" {
			t.Errorf("topic %s, want %s; key %q", m.Topic, tt.want, m.Key)
		}
		var ping map[string]any
		if err := json.Unmarshal(m.Value, &ping); err != nil || ping["type"] != "ping" || ping["sub"] != "alice" {
			t.Errorf("%s, %v", m.Value, err)
		}
		if _, err := m.Upload(); !errors.Is(err, gracedb.ErrNotUpload) {
			t.Errorf("Upload: %v", err)
		}
	}
	_, err := p.Ping(t.Context(), "nosuch")
	wantErr(t, err, kinds(gracedb.ErrTopic, gracedb.ErrDelivery), nil, "gracedb-test.nosuch")
}

// Ping, on a silent broker, waits for FlushTimeout or ctx, whichever is first.
func TestPingBound(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", FlushTimeout: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		c.Freeze()
		for _, want := range []time.Duration{3 * time.Second, time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), min(want, 2*time.Second)*2)
			if want == time.Second {
				ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			}
			start := time.Now()
			_, err := p.Ping(ctx, "")
			cancel()
			if want == time.Second { // it waited behind the first, and was not sent
				wantErr(t, err, kinds(gracedb.ErrDelivery, context.DeadlineExceeded), kinds(gracedb.ErrOutcomeUnknown), testTopic)
			} else {
				wantErr(t, err, kinds(gracedb.ErrOutcomeUnknown, context.DeadlineExceeded), nil, testTopic)
			}
			if took := time.Since(start); took < want || took > want+100*time.Millisecond {
				t.Errorf("after %v, want %v", took, want)
			}
		}
		c.Thaw()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Check says what would stop a message now, and writes nothing.
func TestProducerCheck(t *testing.T) {
	virtually(t, kafkatest.Config{MaxSession: 10 * time.Second}, func(t *testing.T, c *kafkatest.Cluster) {
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		if err != nil {
			t.Fatal(err)
		}
		check := func(timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			return p.Check(ctx)
		}
		if err := check(time.Second); err != nil {
			t.Error(err)
		}

		c.Freeze()
		start := time.Now()
		wantErr(t, check(2*time.Second), kinds(gracedb.ErrConnection, gracedb.ErrProducer, context.DeadlineExceeded), nil, c.Addrs()[0])
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("frozen: %v", took)
		}
		c.Thaw()
		time.Sleep(time.Second)
		if err := check(time.Second); err != nil {
			t.Error(err)
		}

		if err := c.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		wantErr(t, check(3*time.Second), kinds(gracedb.ErrTopic), nil, testTopic)
		if err := c.CreateTopic(testTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		if err := check(3 * time.Second); err != nil {
			t.Error(err)
		}

		c.RefuseTokens(kafkatest.Refusal{})
		time.Sleep(11 * time.Second) // the session ends
		start = time.Now()
		wantErr(t, check(20*time.Second), kinds(gracedb.ErrAuthentication), kinds(gracedb.ErrConnection), "invalid_token")
		if took := time.Since(start); took > time.Second {
			t.Errorf("refused: %v", took)
		}
		c.AcceptTokens()
		time.Sleep(2 * time.Second)
		if err := check(time.Second); err != nil {
			t.Error(err)
		}
		if got := values(t, c, testTopic); len(got) != 0 {
			t.Errorf("in the log: %q", got)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A lazy producer starts without a broker and delivers once there is one; what is
// wrong then shows in its calls.
func TestProducerLazy(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		c.Refuse()
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", Lazy: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.ProduceSync(ctx, gracedb.Message{})
		wantErr(t, err, kinds(gracedb.ErrConnection, gracedb.ErrDelivery, context.DeadlineExceeded), kinds(gracedb.ErrOutcomeUnknown), c.Addrs()[0])
		if err := p.Produce(t.Context(), gracedb.Message{Value: []byte("kept")}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c.Accept()
		start := time.Now()
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("delivered after %v", took)
		}
		if diff := gocmp.Diff([]string{"kept"}, values(t, c, testTopic)); diff != "" {
			t.Error(diff)
		}
	})
}

// When NewProducer has returned, the first message takes one request.
func TestProducerIsWarm(t *testing.T) {
	c := startCluster(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testTopic: 6}})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
	opened, before := c.ConnectionCount(), c.Requests()
	const n = 30
	for i := range n {
		send(t, p, fmt.Sprint(i))
	}
	if got := c.ConnectionCount(); got != opened {
		t.Errorf("%d new connections", got-opened)
	}
	for key, count := range c.Requests() {
		if made := count - before[key]; key == kmsg.Produce && made != n || key != kmsg.Produce && made != 0 {
			t.Errorf("%d requests %v", made, key)
		}
	}
}

// A producer that is idle for an hour keeps its connections and session, and the
// next message takes one request.
func TestKeepWarm(t *testing.T) {
	virtually(t, kafkatest.Config{MaxSession: 10 * time.Minute}, func(t *testing.T, c *kafkatest.Cluster) {
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test"})
		send(t, p, "before")
		opened := c.ConnectionCount()
		in, out := c.Bytes()
		time.Sleep(time.Hour + 7*time.Second) // between two ticks
		in2, out2 := c.Bytes()
		t.Logf("%d bytes a minute", (in2-in+out2-out)/60)
		if perMinute := (in2 - in + out2 - out) / 60; perMinute > 3000 {
			t.Errorf("%d bytes a minute", perMinute)
		}
		accepted, _ := c.LoginCounts()
		requests := c.Requests()
		send(t, p, "after")
		if got := c.ConnectionCount(); got != opened {
			t.Errorf("%d new connections in an idle hour", got-opened)
		}
		if again, _ := c.LoginCounts(); again != accepted {
			t.Error("the message had to wait for a login")
		}
		now := c.Requests()
		for key, n := range now {
			if key != kmsg.Produce && n != requests[key] {
				t.Errorf("the message had to wait for %v", key)
			}
		}
	})
}

// The token source is asked at each connection and re-authentication, and a token
// given by it is used.
func TestTokenSourceIsAsked(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		cluster := clusterFor(t, c, "alice")
		var asked atomic.Int32
		cluster.Token = func(context.Context) (string, error) {
			asked.Add(1)
			return c.Issuer().Token(testauth.Claims{Subject: "alice", Expires: time.Now().Add(10 * time.Minute)})
		}
		p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		for range 60 {
			send(t, p, "x")
			time.Sleep(time.Minute)
		}
		for _, l := range c.Logins() {
			if l.Refused != "" || l.Subject != "alice" {
				t.Errorf("%+v", l)
			}
		}
		if n := asked.Load(); n < 6 || n > 40 {
			t.Errorf("asked %d times in an hour of 10 minute tokens", n)
		}
	})
}
