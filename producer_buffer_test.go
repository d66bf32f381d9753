package gracedb_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrace"
)

// A done that blocks keeps Close waiting for a second, and no longer, also where Close itself
// withdraws the message: whoever waits for what done tells may be who closes.
func TestCloseBesideABlockedDone(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		const flush = 2 * time.Second
		p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", FlushTimeout: flush})
		c.Refuse()
		c.Drop(kafkatest.RST)
		release := make(chan struct{})
		watchdog := time.AfterFunc(time.Minute, func() { close(release) }) // or the test would not end
		err := p.Produce(context.Background(), gracedb.Message{Value: []byte("x")}, func(gracedb.Message, error) { <-release })
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = p.Close()
		if took := time.Since(began); took > flush+3*time.Second {
			t.Errorf("Close took %v", took)
		}
		wantErr(t, err, kinds(gracedb.ErrDelivery), nil, "closed with 1 message(s) failed")
		if watchdog.Stop() {
			close(release)
		}
	})
}

// Close tells each of very many messages that fail for one reason what became of it, and
// counts them all.
func TestCloseTellsMany(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice"), Topic: "test", FlushTimeout: time.Second})
	c.Refuse()
	c.Drop(kafkatest.RST)
	const n = 50_000
	var told atomic.Int64
	for range n {
		done := func(gracedb.Message, error) { told.Add(1) }
		if err := p.Produce(context.Background(), gracedb.Message{Value: []byte("x")}, done); err != nil {
			t.Fatal(err)
		}
	}
	err := p.Close()
	if got := told.Load(); got != n {
		t.Errorf("told of %d messages when Close returned, want %d", got, n)
	}
	wantErr(t, err, kinds(gracedb.ErrDelivery), nil, "closed with 50000 message(s) failed")
}

// What brokers answer for longer than a leader takes to move is in the log, once a minute,
// and the message is there when they take it.
func TestProducerTellsWhatMessagesWaitFor(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		var log lockedBuffer
		cluster := clusterFor(t, c, "alice")
		cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		for _, tt := range []struct {
			lasting time.Duration
			lines   int
		}{{300 * time.Millisecond, 0}, {90 * time.Second, 2}} {
			before := strings.Count(log.String(), "takes no messages for now")
			fault := c.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Err: kerr.NotEnoughReplicas, Keys: []kmsg.Key{kmsg.Produce}, Count: -1})
			time.AfterFunc(tt.lasting, fault.Remove)
			if _, err := p.ProduceSync(t.Context(), gracedb.Message{Value: []byte("x")}); err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), "takes no messages for now") - before; n != tt.lines || n > 0 && !strings.Contains(log.String(), "NOT_ENOUGH_REPLICAS") {
				t.Errorf("%v: %d lines, want %d: %s", tt.lasting, n, tt.lines, log.String())
			}
		}
	})
}

// MaxBufferedBytes bounds what messages take in memory, however small they are and whatever
// they consist of, and not by far more than that.
func TestMessageOverhead(t *testing.T) {
	heap := func() int {
		runtime.GC()
		runtime.GC() // what pools kept over the first
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for _, headers := range []int{0, 1, 10} {
		t.Run(fmt.Sprintf("headers=%d", headers), func(t *testing.T) {
			const n, limit = 200_000, 24 << 20
			c := startCluster(t, kafkatest.Config{})
			p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{
				Cluster: clusterFor(t, c, "alice"), Topic: "test", MaxBufferedBytes: limit, FlushTimeout: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = p.Close() }() // which tells that they were not sent
			c.Freeze()
			before := heap()
			filling := make(chan struct{})
			go func() {
				defer close(filling)
				shared := make([]gracedb.Header, headers) // what the caller gives is the caller's
				for range n {
					if p.Produce(t.Context(), gracedb.Message{Headers: shared}, func(gracedb.Message, error) {}) != nil {
						return // closed
					}
				}
			}()
			for last := -1; last < 1000 || p.Pending() > last; {
				last = p.Pending()
				after := heap()
				if used := after - before; used > limit*11/10 {
					t.Fatalf("%d messages take %d bytes, %d each", last, used, used/last)
				}
			}
			used := heap() - before
			if used < limit*strconv.IntSize/128 { // pointers are half as long where an int has 32 bits
				t.Errorf("%d messages fill the buffer of %d bytes, and take %d", p.Pending(), limit, used)
			}
			t.Logf("%d messages take %d bytes of %d", p.Pending(), used, limit)
			if err := p.Close(); err == nil {
				t.Error("nothing was dropped")
			}
			<-filling
		})
	}
}

// A message that is queued is one allocation, if its topic is known: the place in which it
// waits. Its batch and request are few beside that.
func TestProduceAllocations(t *testing.T) {
	if testrace.Enabled {
		t.Skip("the race detector allocates")
	}
	c := startCluster(t, kafkatest.Config{})
	p := newProducer(t, gracedb.ProducerConfig{Cluster: clusterFor(t, c, "alice")})
	c.Freeze()
	m := gracedb.Message{Topic: "test", Value: make([]byte, 400)}
	if got := testing.AllocsPerRun(5000, func() {
		if err := p.Produce(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
	}); got != 1 {
		t.Errorf("%v allocations, want 1", got)
	}
	c.Thaw()
	if err := p.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}
