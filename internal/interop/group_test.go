//go:build unix

package interop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A shared is a group that Consumers and the Python package's are in at once, and what
// they have read of a topic to which somebody sends all the time.
type shared struct {
	*setting
	pipeline, group string

	mu   sync.Mutex
	sent map[slot]bool
	read map[slot][]string // by whom
}

// A slot is the place of a message in its topic.
type slot struct {
	partition int32
	offset    int64
}

func (s *shared) note(who string, partition int32, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slot{partition, offset}
	s.read[at] = append(s.read[at], who)
}

// count returns how many messages one has read.
func (s *shared) count(who string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, by := range s.read {
		for _, reader := range by {
			if reader == who {
				n++
			}
		}
	}
	return n
}

// send sends until ctx ends.
func (s *shared) send(ctx context.Context, t *testing.T, p *gracedb.Producer) {
	for i := 0; ctx.Err() == nil; i++ {
		m, err := p.ProduceSync(context.WithoutCancel(ctx), gracedb.Message{Key: fmt.Append(nil, i), Value: []byte("{}")})
		if err != nil {
			t.Error(err)
			return
		}
		s.mu.Lock()
		s.sent[slot{m.Partition, m.Offset}] = true
		s.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

// consume reads as a member until ctx ends; the member is in the group when it returns.
func (s *shared) consume(ctx context.Context, t *testing.T, who string) (leave func()) {
	t.Helper()
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{s.pipeline}, GroupID: s.group})
	must(t, err)
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			m, err := c.Poll(ctx)
			if errors.Is(err, context.Canceled) {
				return
			}
			if err != nil {
				t.Errorf("%s: %v", who, err)
				continue
			}
			s.note(who, m.Partition, m.Offset)
			if err := c.Commit(ctx); err != nil && ctx.Err() == nil {
				t.Logf("%s: %v", who, err) // the group is changing; it comes again
			}
		}
	})
	return func() {
		cancel()
		reading.Wait()
		must(t, c.Close())
	}
}

// python does the same with the Python package.
func (s *shared) python(ctx context.Context, t *testing.T, who string) (leave func()) {
	t.Helper()
	peer := s.peer(ctx, t)
	must(t, peer.Do(ctx, "open_consumer", s.options(t, Args{"topics": s.pipeline, "group_id": s.group}), nil))
	var stop sync.Once
	stopping := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stopping:
				return
			default:
			}
			var came [][2]int64
			if err := peer.Do(ctx, "listen", Args{"seconds": 0.5}, &came); err != nil {
				t.Errorf("%s: %v", who, err)
				return
			}
			for _, at := range came {
				s.note(who, int32(at[0]), at[1])
			}
		}
	})
	return func() {
		stop.Do(func() { close(stopping) })
		reading.Wait()
		must(t, peer.Do(ctx, "close_consumer", nil, nil))
	}
}

// both waits until each of these has read something more.
func (s *shared) all(ctx context.Context, t *testing.T, readers ...string) {
	t.Helper()
	began := time.Now()
	before := make(map[string]int)
	for _, who := range readers {
		before[who] = s.count(who)
	}
	for _, who := range readers {
		for s.count(who) < before[who]+5 {
			select {
			case <-ctx.Done():
				t.Fatalf("%s reads nothing beside %v", who, readers)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	t.Logf("%v read after %v", readers, time.Since(began).Round(100*time.Millisecond))
}

// Consumers and the Python package's share a group, whoever is there first: each gets
// partitions, and no message is missed while they come and go.
func TestGroupOfBothSides(t *testing.T) {
	for _, first := range []string{"go", "python"} {
		t.Run(first+" first", func(t *testing.T) {
			ctx, setting := need(t)
			s := &shared{
				setting: setting, pipeline: "shared-by-" + first, group: "shared-by-" + first,
				sent: make(map[slot]bool), read: make(map[slot][]string),
			}
			setting.create(ctx, t, 4, s.pipeline)
			p := setting.producer(ctx, t, s.pipeline)
			join := map[string]func(context.Context, *testing.T, string) func(){"go": s.consume, "python": s.python}
			second := map[string]string{"go": "python", "python": "go"}[first]

			// The position is stored before anything is sent, so that it is all theirs.
			c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{s.pipeline}, GroupID: s.group})
			must(t, err)
			must(t, c.Close())
			sending, stopSending := context.WithCancel(ctx)
			var sender sync.WaitGroup
			sender.Go(func() { s.send(sending, t, p) })

			leaveFirst := join[first](ctx, t, first)
			s.all(ctx, t, first)
			leaveSecond := join[second](ctx, t, second)
			s.all(ctx, t, first, second)
			leaveThird := s.consume(ctx, t, "third")
			s.all(ctx, t, first, second, "third")
			leaveFirst()
			s.all(ctx, t, second, "third")
			leaveFirst = join[first](ctx, t, first)
			s.all(ctx, t, first, second, "third")
			leaveSecond()
			s.all(ctx, t, first, "third")
			stopSending()
			sender.Wait()
			for ctx.Err() == nil && s.missing() > 0 {
				time.Sleep(100 * time.Millisecond)
			}
			leaveFirst()
			leaveThird()
			twice := 0
			for _, by := range s.read {
				if len(by) > 1 {
					twice++
				}
			}
			t.Logf("%d messages sent, %d missed, %d read more than once", len(s.sent), s.missing(), twice)
			if n := s.missing(); n > 0 {
				t.Errorf("%d of %d messages were missed", n, len(s.sent))
			}
		})
	}
}

// missing returns how many messages that were sent nobody has read.
func (s *shared) missing() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range s.sent {
		if len(s.read[at]) == 0 {
			n++
		}
	}
	return n
}
