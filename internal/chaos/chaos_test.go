//go:build unix

package chaos

import (
	"context"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
)

var (
	duration = flag.Duration("chaos.duration", 90*time.Second, "how long TestChaos goes on")
	seed     = flag.Uint64("chaos.seed", 0, "schedule of TestChaos; if zero, a random one, which is printed")
	report   = flag.String("chaos.report", "", "file for the sums of TestChaos, as the tables of docs/reliability/runs.md")
	bare     = flag.Bool("chaos.bare", false, "send with plain franz-go, and count instead of judging")
)

const partitions = 3

// Brokers die, halt and move, connections break, tokens go: whatever is
// acknowledged is in the log once and in order, and read by every consumer;
// whatever is said to have failed is not there.
func TestChaos(t *testing.T) {
	r := newRig(t, "chaos", partitions)
	if *seed == 0 {
		*seed = rand.Uint64N(1e6) + 1
	}
	t.Logf("-chaos.seed %d -chaos.duration %v", *seed, *duration)
	sums := newSums()

	direct, group := newReader("consumer", false), newReader("group", true)
	members := r.readers(t, direct, group)
	waitInSync(t, r.kafka, r.topic, offsetsTopic)
	load := newLoad(r.history, *seed)
	t.Cleanup(load.stop)
	var publishers []publisher
	for _, name := range []string{"a", "b", "c"} {
		p, err := r.publisher(t.Context(), name != "c")
		must(t, err)
		publishers = append(publishers, p)
		load.start(name, p, name == "b")
	}
	load.visit(func(ctx context.Context) (publisher, error) { return r.publisher(ctx, true) })

	r.disturb(t, load, members[1:], sums)

	load.stop()
	for _, p := range publishers {
		start := time.Now()
		if err := p.Close(); err != nil && !*bare {
			t.Errorf("Close, with all brokers well: %v", err)
		}
		load.returned("Close, 10 s", time.Since(start)-10*time.Second)
	}
	records := r.records(t)
	sums.judge(t, load, records)
	sums.read(t, records, direct, group)
	for _, m := range members {
		m.stop()
		sums.late("Consumer.Close, 3 s", m.close-3*time.Second)
	}
	sums.called(t, load)
	sums.print(t)
}

// readers starts a consumer and a group of two.
func (r *rig) readers(t *testing.T, direct, group *reader) (members []*member) {
	t.Helper()
	for _, to := range []*reader{direct, group, group} {
		cfg := gracedb.ConsumerConfig{Cluster: r.cluster(), Topics: []string{r.topic}}
		if to == group {
			cfg.GroupID = "chaos"
		}
		m, err := to.read(t.Context(), func(ctx context.Context) (*gracedb.Consumer, error) { return gracedb.NewConsumer(ctx, cfg) })
		must(t, err)
		members = append(members, m)
	}
	return members
}

// publisher returns one that reaches the brokers through the proxy, or past it.
func (r *rig) publisher(ctx context.Context, proxied bool) (publisher, error) {
	cluster := r.cluster()
	if !proxied {
		cluster.Dial = nil
	}
	if *bare {
		return newBare(cluster, r.topic)
	}
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: r.topic})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// disturb lets one step of the plan follow the other. Between them everything is
// well again.
func (r *rig) disturb(t *testing.T, load *load, members []*member, sums *sums) {
	t.Helper()
	plan := newPlan(*seed)
	wait(2 * time.Second)
	for end := time.Now().Add(*duration); time.Now().Before(end); {
		s := plan.next()
		wait(s.after)
		t.Logf("%s: %v", time.Now().Format("15:04:05.000"), s)
		silence := load.listen()
		err := r.together(t.Context(), s, members)
		since := clock()
		if err != nil {
			t.Fatalf("the brokers do not come back: %v\n%s", err, r.kafka.Log(20))
		}
		first, all, last, err := load.recovered(t.Context(), since)
		if err != nil {
			t.Fatalf("after %v: %v", s, err)
		}
		quiet := silence()
		sums.step(s, quiet, first, all)
		t.Logf("    silent for %v, acknowledged again after %v, every sender after %v, the last %s", round(quiet), round(first), round(all), last)
		if all > s.recovery() && !*bare {
			t.Errorf("after %v: %s had an acknowledgement only after %v, want at most %v", s, last, all, s.recovery())
		}
		waitInSync(t, r.kafka, r.topic, offsetsTopic)
	}
}

// listen measures the longest time without any acknowledgement until the returned
// function is called.
func (l *load) listen() (silence func() time.Duration) {
	end, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		worst := int64(0)
		for {
			select {
			case <-tick.C:
				worst = max(worst, clock()-l.acks.Load())
			case <-end:
				longest <- time.Duration(worst)
				return
			}
		}
	}()
	return func() time.Duration { close(end); return <-longest }
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// read waits until the readers have seen all records.
func (s *sums) read(t *testing.T, records []*kgo.Record, readers ...*reader) {
	t.Helper()
	start := time.Now()
	for _, r := range readers {
		for {
			missed, again := r.missing(records)
			if len(missed) == 0 {
				s.again[r.name] = again
				break
			}
			if time.Since(start) > time.Minute {
				t.Errorf("the %s has missed %d of %d records, such as %d/%d %.30q", r.name, len(missed), len(records),
					missed[0].Partition, missed[0].Offset, missed[0].Value)
				s.missed += len(missed)
				break
			}
			wait(100 * time.Millisecond)
		}
		r.mu.Lock()
		r.errors.print(t, r.name)
		for i, wrong := range r.wrong {
			if i == 10 {
				t.Errorf("and %d more", len(r.wrong)-i)
				break
			}
			t.Errorf("the %s: %s", r.name, wrong)
		}
		s.late("Poll, 1 s", r.late)
		r.mu.Unlock()
	}
}
