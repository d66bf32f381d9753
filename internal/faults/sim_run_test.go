// Half of what a TLS handshake costs is ML-KEM, which proves nothing here.
//
//go:debug tlsmlkem=0

package faults

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	judge "github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

var (
	simSeeds  = flag.Int("sim.seeds", usualSeeds(), "how many seeds TestSimulation runs; a tenth with -short")
	simFirst  = flag.Uint64("sim.first", 1, "the first of them")
	simSeed   = flag.Uint64("sim.seed", 0, "run this one alone, and print its plan")
	simReport = flag.String("sim.report", "", "write the summary to this file, too, as a Markdown table")
	simStrict = flag.Bool("sim.strict", false, "fail if messages fail for others in their batch, or because their topic was made anew")
	simBare   = flag.Bool("sim.bare", false, "publish with franz-go alone; what goes wrong is counted, and fails nothing")
)

// usualSeeds is how many seeds run in every go test: fewer with -race, which makes
// each take ten times as long.
func usualSeeds() int {
	if raced {
		return 50
	}
	return 200
}

// TestSimulation lets a random mix of all faults happen, for each seed another.
func TestSimulation(t *testing.T) {
	first, count := *simFirst, *simSeeds
	if testing.Short() {
		count /= 10
	}
	if *simSeed != 0 {
		first, count = *simSeed, 1
	}
	sum := newTally()
	began := time.Now()
	// Half of the time that go test has left is for the other tests.
	over := func() bool { return false }
	if deadline, ok := t.Deadline(); ok {
		share := time.Until(deadline) / 2
		over = func() bool { return time.Since(began) > share }
	}
	// A test holds on to those in it until it has ended.
	const atOnce = 100
	for last := first + uint64(count); first < last; first += atOnce {
		t.Run(fmt.Sprintf("from_%05d", first), func(t *testing.T) {
			for seed := first; seed < min(first+atOnce, last); seed++ {
				t.Run(fmt.Sprintf("seed_%05d", seed), func(t *testing.T) {
					t.Parallel()
					if !over() {
						simulateSeed(t, seed, sum)
					}
				})
			}
		})
	}
	sum.report(t, count, time.Since(began))
}

func simulateSeed(t *testing.T, seed uint64, sum *tally) {
	simulatePlan(t, planOf(seed), sum)
}

func simulatePlan(t *testing.T, p *plan, sum *tally, edit ...func(*simulation)) {
	var s *simulation
	defer func() {
		if t.Failed() || *simSeed != 0 {
			t.Logf("to run it again: -sim.seed %d\n%s%s", p.seed, p, strings.Join(s.notes, "\n"))
		}
	}()
	start := time.Now()
	synctest.Test(t, func(t *testing.T) {
		s = newSimulation(t, p, sum)
		for _, f := range edit {
			f(s)
		}
		s.run()
	})
	sum.took(p.seed, time.Since(start))
}

// A simulation is a plan that is carried out.
type simulation struct {
	*rig
	t      *testing.T
	plan   *plan
	outs   []outlet                 // of producers
	outlet func(*simulation) outlet // if not nil, what to publish with
	broken *[]string                // if not nil, where promises that are broken are noted; they fail nothing
	sum    *tally

	began      time.Time
	other      atomic.Bool  // tokens are another principal's
	latency    atomic.Int64 // of the network, there and back
	partitions atomic.Int32 // how many there are
	busy       atomic.Bool  // an episode is on
	healthy    atomic.Int64 // since when no fault is on, nor what it has begun; negative if one is
	silent     time.Time    // until when a connection may be that nobody has noticed

	looking chan struct{} // has something in it while the log is looked at and then changed

	mu        sync.Mutex
	spans     []span      // of faults
	gone      []judge.Log // of topics that were deleted
	trimmed   []*kgo.Record
	trimmedTo map[int32]int64
	later     []func() error
	readers   []*reader
	notes     []string // what has happened, printed if it went wrong
}

func newSimulation(t *testing.T, p *plan, sum *tally) *simulation {
	cfg := kafkatest.Config{
		Brokers: p.brokers, Topics: map[string]int{}, MaxSession: p.session, Virtual: true,
	}
	if p.acl {
		cfg.Subjects = map[string][]kfake.ACL{"alice": writeRights(), "carol": writeRights(), "bob": readRights()}
	}
	s := &simulation{rig: newRig(t, cfg), t: t, plan: p, sum: sum, began: time.Now(), looking: make(chan struct{}, 1), trimmedTo: make(map[int32]int64)}
	s.tokens.life = p.tokenLife
	s.partitions.Store(int32(p.partitions))
	s.createTopic(p.partitions)
	if p.others > 0 {
		s.takeIDs(p.others)
	}
	return s
}

func (s *simulation) run() {
	p := s.plan
	for range p.producers {
		s.outs = append(s.outs, s.open())
	}
	ctx, stop := context.WithCancel(s.t.Context())
	var consuming sync.WaitGroup
	s.consume(ctx, &consuming)
	sending, stopSending := context.WithCancel(s.t.Context())
	var senders sync.WaitGroup
	for i, load := range p.senders {
		senders.Go(func() { s.send(sending, i, load) })
	}
	for i, e := range p.episodes {
		last := i == len(p.episodes)-1
		s.episode(e, last && p.closeEarly)
		if !last || !p.closeEarly {
			time.Sleep(e.quiet)
		}
	}
	stopSending()
	senders.Wait()
	s.settle()
	s.judgeReaders()
	stop()
	consuming.Wait()
	s.judge()
}

// end notes the outcome of a message.
func (s *simulation) end(sent, got gracedb.Message, err error) {
	if wrong := s.shared.End(sent, got, err); wrong != "" {
		s.breach("%s", wrong)
	}
}

func (s *simulation) note(format string, args ...any) {
	note := fmt.Sprintf("%v: %s", time.Since(s.began), fmt.Sprintf(format, args...))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, note)
}

// cluster is how clients of the simulation connect.
func (s *simulation) cluster(subject string) gracedb.Cluster {
	c := s.rig.cluster(subject)
	c.Brokers, c.Dial, c.SkipHostnameVerification = s.names(), s.dial, true
	c.Opts = []kgo.Opt{unasked{kgo.WithCompressor(uncompressed{})}}
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return near{conn}, nil
	}
	if s.plan.rtt+s.plan.latency > 0 {
		half := func() time.Duration { return (s.plan.rtt + time.Duration(s.latency.Load())) / 2 }
		c.Dial = (&shape{dial: c.Dial, latency: half}).Dial
	}
	alice, carol := s.source(subject), s.source("carol")
	c.Token = func(ctx context.Context) (string, error) {
		if subject == "alice" && s.other.Load() {
			return carol(ctx)
		}
		return alice(ctx)
	}
	return c
}

// near is a connection to a broker in the next rack. Time has to pass while the engine
// asks brokers that contradict each other for as long as they do: it asks at once.
type near struct{ net.Conn }

func (c near) Write(b []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return c.Conn.Write(b)
}

// uncompressed leaves batches as they are: zstd's decoders are kept for later use,
// and have channels, which must not leave the bubble that they were made in.
type uncompressed struct{}

func (uncompressed) Compress(_ *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return src, kgo.CodecNone
}

// episode does the steps of e, and measures how soon all works again.
func (s *simulation) episode(e episode, closeAmid bool) {
	s.busy.Store(true)
	s.healthy.Store(-1)
	began, bound := time.Now(), soon
	var wg sync.WaitGroup
	amid := make(chan struct{})
	for _, st := range e.steps {
		bound = max(bound, kindOf(st.kind).bound)
		s.sum.fault(st.kind)
		wg.Go(func() {
			time.Sleep(st.at)
			s.note("%s", st)
			start := time.Now()
			defer func() { s.spent(st.kind, start) }()
			lift := kindOf(st.kind).begin(s, st)
			if lift == nil {
				return
			}
			if closeAmid {
				<-amid
			} else {
				time.Sleep(st.lasting - time.Since(start))
			}
			lift()
			s.note("over: %s", st.kind)
		})
	}
	if closeAmid {
		time.Sleep(e.lasting() / 2)
		s.close(0)
		time.Sleep(e.lasting() / 2)
		close(amid)
	}
	wg.Wait()
	s.restore()
	// A leader may have moved to where a connection has been silent for longer.
	allowed := max(bound, time.Until(s.silent))
	// Who is far away greets a broker, logs in and asks for leaders first.
	away := 10 * s.plan.rtt
	if bound == silence {
		s.silent = time.Now().Add(silence)
	}
	outs := s.outs
	if closeAmid {
		outs = outs[1:]
	}
	if len(outs) > 0 {
		took := s.recovered(outs, allowed+away)
		s.note("all works again after %v", took)
		if allowed > bound {
			bound = silence
		}
		s.sum.recovered(bound, took-away, s.plan.rtt > 0)
		if took > allowed+away {
			s.breach("%v after the end of the faults not all partitions have acknowledged a message, want at most %v", took, allowed+away)
		}
	}
	for _, st := range e.steps {
		if st.kind == "token refused, code 58" {
			// All partitions work: who leads one is logged in at again, and fails nothing
			// that is queued. As in T2, another may think the refusal over for 100 ms.
			s.unordered(began.Add(st.at-inFlight), time.Now().Add(inFlight))
		}
	}
	s.busy.Store(false)
	s.healthy.Store(int64(time.Since(s.began)))
}

// A span is when a fault was on.
type span struct {
	kind     string
	from, to time.Time
}

func (s *simulation) spent(kind string, from time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spans = append(s.spans, span{kind, from, time.Now()})
}

// atEnd makes f be called when the faults are over.
func (s *simulation) atEnd(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later = append(s.later, f)
}

func (s *simulation) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.later {
		if err := f(); err != nil {
			s.t.Error(err)
		}
	}
	s.later = nil
}

// recovered returns how long it takes until a message of each of several keys that
// is sent now by each producer is acknowledged, or something longer than bound.
func (s *simulation) recovered(outs []outlet, bound time.Duration) time.Duration {
	start := time.Now()
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(s.t.Context(), bound+time.Minute)
	defer cancel()
	for n, out := range outs {
		for i := range s.partitions.Load() {
			wg.Go(func() { s.probe(ctx, out, fmt.Sprintf("probe%d-%d", n, i)) })
		}
	}
	wg.Wait()
	return time.Since(start)
}

// probe sends messages of a key until one is acknowledged.
func (s *simulation) probe(ctx context.Context, out outlet, key string) {
	start := time.Now()
	acked := make(chan struct{})
	var once sync.Once
	for {
		s.queue(ctx, out, s.begin(key), func(err error) {
			if err == nil {
				once.Do(func() { close(acked) })
			}
		})
		select {
		case <-acked:
			return
		case <-ctx.Done():
			return
		case <-time.After(50*time.Millisecond + time.Since(start)/10):
		}
	}
}

// send sends messages until ctx is done.
func (s *simulation) send(ctx context.Context, i int, load sender) {
	out := s.outs[load.producer]
	r := rand.New(rand.NewPCG(s.plan.seed, uint64(i)))
	for {
		pause := load.slow
		if s.busy.Load() {
			pause = load.fast
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + time.Duration(r.Int64N(int64(pause)))):
		}
		if load.burst > 0 {
			s.burst(r, out, i, load)
			continue
		}
		m := s.padded(r, s.begin(fmt.Sprint("sender", i)), load)
		timeout := time.Duration(1 + r.Int64N(int64(load.timeout)))
		switch {
		case r.IntN(10) < load.sync:
			s.wait(out, m, timeout)
		case r.IntN(3) == 0:
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			s.queue(ctx, out, m, func(error) { cancel() })
		default:
			s.queue(context.Background(), out, m, nil)
		}
	}
}

// burst sends several messages, most of which outlast any fault.
func (s *simulation) burst(r *rand.Rand, out outlet, i int, load sender) {
	all := r.IntN(10) >= load.unkeyed
	for n := range load.burst {
		keyed := all
		if s.plan.compacted {
			keyed = r.IntN(10) > 0
		}
		if n > 0 {
			time.Sleep(load.gap)
		}
		begin := s.begin
		if !keyed {
			begin = func(name string) gracedb.Message { return s.beginUnkeyed("unkeyed-" + name) }
		}
		m := begin(fmt.Sprint("sender", i))
		if !keyed && s.plan.compacted {
			s.shared.Refuse(m)
		}
		ctx, cancel := context.Background(), func() {}
		if r.IntN(5) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(1+r.Int64N(int64(load.timeout))))
		}
		s.queue(ctx, out, s.padded(r, m, load), func(error) { cancel() })
	}
}

func (s *simulation) padded(r *rand.Rand, m gracedb.Message, load sender) gracedb.Message {
	size := r.IntN(500)
	if r.IntN(100) < load.large {
		size = r.IntN(200_000)
	}
	m.Value = append(append(m.Value, ' '), bytes.Repeat([]byte{'.'}, size)...)
	if load.spoiled > 0 && r.IntN(100) < load.spoiled {
		if m.Time = time.Now().Add(2 * time.Hour); s.plan.compacted && r.IntN(2) == 0 {
			m.Time, m.Key = time.Time{}, nil
		}
		s.shared.Refuse(m)
	}
	return m
}

// wait sends m and waits for its outcome.
func (s *simulation) wait(out outlet, m gracedb.Message, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	start := time.Now()
	got, err := out.sync(ctx, m)
	s.end(m, got, err)
	over := time.Since(start) - timeout
	s.sum.outlasted(over)
	if over > 100*time.Millisecond {
		s.breach("ProduceSync has outlasted its ctx by %v: %v", over, err)
	}
}

// queue sends m without waiting; told, if not nil, is called with its outcome.
func (s *simulation) queue(ctx context.Context, out outlet, m gracedb.Message, told func(error)) {
	if told == nil {
		told = func(error) {}
	}
	start := time.Now()
	err := out.async(ctx, m, func(got gracedb.Message, err error) {
		s.end(m, got, err)
		told(err)
	})
	if err != nil {
		s.end(m, gracedb.Message{}, err)
		told(err)
	}
	if deadline, ok := ctx.Deadline(); ok && time.Now().After(deadline.Add(100*time.Millisecond)) || time.Since(start) > time.Minute {
		s.breach("Produce took %v: %v", time.Since(start), err)
	}
}

// allowedReports are the errors that a consumer may tell of, by what has happened.
func (s *simulation) allowedReport(err error) bool {
	switch {
	case strings.Contains(err.Error(), "lost"):
		return s.plan.has("trimmed")
	case errors.Is(err, gracedb.ErrAuthentication):
		return s.plan.has("no token", "token refused", "token refused, code 58")
	case errors.Is(err, gracedb.ErrConnection), strings.Contains(err.Error(), "fetching from"), strings.Contains(err.Error(), "group g:"):
		return s.plan.has("lost frame, cut") // bytes that are no frame
	}
	return false
}
