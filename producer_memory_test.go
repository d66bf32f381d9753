package gracedb_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrace"
)

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
