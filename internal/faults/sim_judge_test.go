package faults

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
)

// A reader is a consumer of the simulation and what it has seen.
type reader struct {
	name  string
	group bool
	*gracedb.Consumer

	mu    sync.Mutex
	start map[int32]int64 // from where on it must see all
	next  map[int32]int64 // behind the last message
	least map[int32]int64 // of a member: nothing before this comes any more
	seen  map[int32]map[int64]int
}

// A witness tells a member's reader what it is assigned. It asks what the group has
// committed before the member does: what the member is told is not less.
type witness struct {
	kgo.GroupBalancer
	s    *simulation
	r    *reader
	kept []int32 // what it had when it joined, and reads on where it is
}

func (w *witness) JoinGroupMetadata(interests []string, current map[string][]int32, generation int32) []byte {
	w.kept = slices.Clone(current[topic])
	return w.GroupBalancer.JoinGroupMetadata(interests, current, generation)
}

func (w *witness) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	assigned, err := w.GroupBalancer.ParseSyncAssignment(assignment)
	if err != nil || w.s.t.Context().Err() != nil { // a broker that is closed never answers
		return assigned, err
	}
	group := w.s.Kfake().GroupInfo("g")
	if group == nil {
		return assigned, nil
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	for _, p := range assigned[topic] {
		if !slices.Contains(w.kept, p) {
			// If its commit failed the member itself knows what it had done: all but
			// the last message, perhaps.
			w.r.least[p] = max(group.Commits[topic][p].Offset, w.r.next[p]-1)
		}
	}
	return assigned, nil
}

func (s *simulation) breach(format string, args ...any) {
	if *simBare {
		s.sum.breach()
		return
	}
	if s.broken != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		*s.broken = append(*s.broken, fmt.Sprintf("%v: %s", time.Since(s.began), fmt.Sprintf(format, args...)))
		return
	}
	s.t.Helper()
	s.t.Errorf("%v: %s", time.Since(s.began), fmt.Sprintf(format, args...))
}

// consume starts the consumers.
func (s *simulation) consume(ctx context.Context, wg *sync.WaitGroup) {
	for i := range s.plan.direct {
		r := s.reader(ctx, fmt.Sprint("consumer ", i), "", s.dialOf(s.t.Context()))
		wg.Go(func() { s.read(ctx, r, 0); s.leave(r) })
	}
	for i, m := range s.plan.members {
		name := fmt.Sprint("member ", i)
		var first *reader
		if i == 0 { // pins the position before anything is sent
			first = s.reader(ctx, name, "g", s.dialOf(s.t.Context()))
		}
		wg.Go(func() { s.join(ctx, name, m, first) })
	}
}

// join is the life of a member.
func (s *simulation) join(ctx context.Context, name string, m member, r *reader) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(m.at):
	}
	life, dead := ctx, context.CancelFunc(func() {})
	if m.life > 0 {
		life, dead = context.WithTimeout(ctx, m.life)
	}
	defer dead()
	if r == nil {
		crash := s.t.Context()
		if m.crash {
			crash = life
		}
		if r = s.reader(life, name, "g", s.dialOf(crash)); r == nil {
			return
		}
	}
	s.read(life, r, m.pause)
	s.leave(r)
}

type dialFunc = func(context.Context, string, string) (net.Conn, error)

// dialOf returns a dial whose connections last until ctx is done.
func (s *simulation) dialOf(ctx context.Context) func(dialFunc) dialFunc {
	return func(dial dialFunc) dialFunc {
		return func(dialing context.Context, network, addr string) (net.Conn, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			conn, err := dial(dialing, network, addr)
			if err != nil {
				return nil, err
			}
			c := &endingConn{Conn: conn}
			c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
			return c, nil
		}
	}
}

type endingConn struct {
	net.Conn
	stop func() bool
}

func (c *endingConn) Close() error { c.stop(); return c.Conn.Close() }

// reader returns a consumer in position, however often that has to be tried; or nil
// if ctx ends.
func (s *simulation) reader(ctx context.Context, name, group string, wrap func(dialFunc) dialFunc) *reader {
	for {
		cluster := s.cluster("bob")
		cluster.Dial = wrap(cluster.Dial)
		r := &reader{
			name: name, group: group != "", start: make(map[int32]int64), next: make(map[int32]int64),
			least: make(map[int32]int64), seen: make(map[int32]map[int64]int),
		}
		if r.group {
			cluster.Opts = append(cluster.Opts, kgo.Balancers(&witness{GroupBalancer: kgo.CooperativeStickyBalancer(), s: s, r: r}))
		}
		timeout, cancel := context.WithTimeout(ctx, 20*time.Second)
		start := time.Now()
		c, err := gracedb.NewConsumer(timeout, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: group})
		cancel()
		if took := time.Since(start); took > 20*time.Second+100*time.Millisecond {
			s.breach("NewConsumer took %v: %v", took, err)
		}
		if err == nil {
			r.Consumer = c
			for _, p := range s.Kfake().PartitionInfos(topic) {
				r.start[p.Partition] = p.HighWatermark
			}
			s.mu.Lock()
			s.readers = append(s.readers, r)
			s.mu.Unlock()
			s.note("%s is there", name)
			return r
		}
		if ctx.Err() != nil {
			return nil
		}
		s.note("%s: %v", name, err)
		if since := s.healthy.Load(); since >= 0 && time.Duration(since) <= start.Sub(s.began) {
			s.breach("NewConsumer: %v", err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// read consumes until ctx is done.
func (s *simulation) read(ctx context.Context, r *reader, pause time.Duration) {
	for ctx.Err() == nil {
		for m, err := range r.Stream(ctx) {
			if err != nil {
				s.note("%s: %v", r.name, err)
				s.sum.told(err)
				if !s.allowedReport(err) {
					s.breach("%s: %v", r.name, err)
				}
				break
			}
			s.saw(r, m)
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}
}

func (s *simulation) saw(r *reader, m gracedb.Message) {
	s.mu.Lock()
	trimmedTo := s.trimmedTo[m.Partition]
	s.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[m.Partition] == nil {
		r.seen[m.Partition] = make(map[int64]int)
	}
	r.seen[m.Partition][m.Offset]++
	if r.group {
		// That another member has handed it out is no breach: it may have been cut off
		// before it could commit, or have gone on until it heard that the partition was
		// not its own any more.
		if least := r.least[m.Partition]; m.Offset < least {
			s.breach("%s: got %d/%d again, where all before %d was committed or handed out", r.name, m.Partition, m.Offset, least)
		}
		r.least[m.Partition], r.next[m.Partition] = m.Offset+1, m.Offset+1
		return
	}
	next, known := r.next[m.Partition]
	if known && m.Offset != next && (m.Offset < next || trimmedTo <= next) {
		s.breach("%s: got %d/%d after %d", r.name, m.Partition, m.Offset, next-1)
	}
	r.next[m.Partition] = m.Offset + 1
}

// leave closes r, within the bound.
func (s *simulation) leave(r *reader) {
	start := time.Now()
	if err := r.Close(); err != nil {
		s.breach("%s: Close: %v", r.name, err)
	}
	if took := time.Since(start); took > 3*time.Second {
		s.breach("%s: Close took %v", r.name, took)
	}
	s.note("%s has left", r.name)
}

// settle ends what has been sent, which all has an outcome soon.
func (s *simulation) settle() {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for i, out := range s.outs {
		if s.plan.closeEarly && i == 0 {
			continue
		}
		if err := out.flush(ctx); err != nil {
			s.breach("Flush: %v", err)
		}
		s.close(i)
	}
}

// close closes a producer, within the bound.
func (s *simulation) close(i int) {
	start := time.Now()
	err := s.outs[i].close()
	took := time.Since(start)
	s.note("Close took %v: %v", took, err)
	if took > flushTimeout+1200*time.Millisecond {
		s.breach("Close took %v: %v", took, err)
	}
	if err != nil && !(s.plan.closeEarly && i == 0) {
		s.breach("Close: %v", err)
	}
}

// judgeReaders waits until the consumers have seen all that is in the log.
func (s *simulation) judgeReaders() {
	// A member that is cut off is waited for until its session ends.
	const bound = 30 * time.Second
	if len(s.plan.members) > 0 { // who stays; the others may be gone
		s.reader(s.t.Context(), "last member", "g", s.dialOf(s.t.Context()))
		last := s.readers[len(s.readers)-1]
		ctx, stop := context.WithCancel(s.t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.read(ctx, last, 0) })
		defer func() {
			stop()
			wg.Wait()
			s.judgeCommit(last)
			s.leave(last)
		}()
	}
	start := time.Now()
	var missing []string
	for time.Since(start) < bound {
		if missing = s.missing(); len(missing) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.sum.caughtUp(time.Since(start))
	s.note("the consumers have seen all after %v", time.Since(start))
	if len(missing) > 0 {
		s.note("the group: %+v", s.Kfake().GroupInfo("g"))
	}
	for _, m := range missing {
		s.breach("%v after the end: %s", bound, m)
	}
}

// missing lists what consumers should have seen and have not.
func (s *simulation) missing() (missing []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[int32]map[int64]int) // of the group
	for _, r := range s.readers {
		r.mu.Lock()
		for part, offsets := range r.seen {
			if all[part] == nil {
				all[part] = make(map[int64]int)
			}
			for offset, n := range offsets {
				if r.group {
					all[part][offset] += n
				}
			}
		}
		r.mu.Unlock()
	}
	for _, p := range s.Kfake().PartitionInfos(topic) {
		look := func(name string, seen map[int64]int, from int64) {
			for at := max(from, p.LogStartOffset); at < p.HighWatermark; at++ {
				if seen[at] == 0 {
					missing = append(missing, fmt.Sprintf("%s has not seen %d/%d of %d", name, p.Partition, at, p.HighWatermark))
					return
				}
			}
		}
		for _, r := range s.readers {
			if !r.group {
				r.mu.Lock()
				look(r.name, r.seen[p.Partition], r.start[p.Partition])
				r.mu.Unlock()
			}
		}
		if len(s.plan.members) > 0 {
			look("the group", all[p.Partition], 0)
		}
	}
	return missing
}

// judgeCommit checks that a member can store the group's position.
func (s *simulation) judgeCommit(r *reader) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Commit(ctx); err != nil {
		s.breach("%s: Commit: %v", r.name, err)
	}
}

// judge holds what callers were told against the log, and looks for what is left.
func (s *simulation) judge() {
	logs := append(s.gone, slices.Concat(s.records(s.t), s.trimmed))
	broken := s.checkLogs(logs...)
	s.sum.history(s.history, logs, s.spans)
	broken = append(broken, s.unfounded()...)
	for i, b := range broken {
		if i == 10 {
			b = fmt.Sprintf("and %d more", len(broken)-i)
		}
		if i <= 10 {
			s.breach("%s", b)
		}
	}
	// The broker may be in a wait of its own, such as of a fetch, and sees only then
	// that the client has gone.
	time.Sleep(10 * time.Second)
	synctest.Wait()
	for _, c := range s.Connections() {
		s.breach("a connection is left: %+v", c)
	}
	s.sum.lasted(time.Since(s.began))
}

// unfounded lists what has failed for no reason of its own.
func (s *simulation) unfounded() (broken []string) {
	if !*simStrict {
		return nil
	}
	for value, sent := range s.sends() {
		why := whyFailed(sent)
		if why == ofNeighbour || why == otherReason || why == ofTopic && !s.plan.has("no right", "other principal") {
			broken = append(broken, fmt.Sprintf("%s failed for no fault of its own: %v", value, sent.Err))
		}
	}
	return broken
}

const flushTimeout = 10 * time.Second
