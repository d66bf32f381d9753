package faults

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/gracedb-go/gracedb"
	judge "github.com/gracedb-go/gracedb/internal/history"
)

// An outlet is what a simulation publishes with.
type outlet struct {
	sync  func(context.Context, gracedb.Message) (gracedb.Message, error)
	async func(context.Context, gracedb.Message, func(gracedb.Message, error)) error
	flush func(context.Context) error
	close func() error
}

// open connects an outlet.
func (s *simulation) open() outlet {
	if s.outlet != nil {
		return s.outlet(s)
	}
	if *simBare {
		return s.bare()
	}
	cfg := gracedb.ProducerConfig{Cluster: s.cluster("alice"), Topic: "test", AuthGrace: s.plan.grace, FlushTimeout: flushTimeout}
	p, err := gracedb.NewProducer(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return outlet{p.ProduceSync, p.Produce, p.Flush, p.Close}
}

// bare publishes as a program does that uses franz-go as it comes: an error says
// that a message was not delivered.
func (s *simulation) bare() outlet {
	client := s.kgoClient()
	async := func(ctx context.Context, m gracedb.Message, done func(gracedb.Message, error)) error {
		client.Produce(ctx, &kgo.Record{Key: m.Key, Value: m.Value}, func(r *kgo.Record, err error) {
			if err != nil {
				err = fmt.Errorf("%w: %w", gracedb.ErrDelivery, err)
			}
			done(gracedb.Message{Partition: r.Partition, Offset: r.Offset}, err)
		})
		return nil
	}
	return outlet{
		async: async,
		sync: func(ctx context.Context, m gracedb.Message) (got gracedb.Message, err error) {
			told := make(chan struct{})
			_ = async(ctx, m, func(g gracedb.Message, e error) { got, err = g, e; close(told) })
			<-told
			return got, err
		},
		flush: client.Flush,
		close: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
			defer cancel()
			err := client.Flush(ctx)
			client.Close()
			return err
		},
	}
}

// kgoClient returns a client of franz-go, which connects as the library does.
func (s *simulation) kgoClient(opts ...kgo.Opt) *kgo.Client {
	cluster := s.cluster("alice")
	conf := &tls.Config{ServerName: "localhost", RootCAs: s.Authority().Pool(), MinVersion: tls.VersionTLS12}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(cluster.Brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := cluster.Dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			secure := tls.Client(conn, conf)
			if err := secure.HandshakeContext(ctx); err != nil {
				_ = conn.Close()
				return nil, err
			}
			return secure, nil
		}),
		kgo.SASL(oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			token, err := cluster.Token(ctx)
			return oauth.Auth{Token: token}, err
		})),
	}, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// A tally is what all simulations of a run have seen.
type tally struct {
	mu       sync.Mutex
	faults   map[string]int
	outcomes map[outcome]int
	failures map[string]int // by reason
	unknowns map[string]int // by the faults that were on
	overdue  time.Duration  // the longest that a call has outlasted its ctx
	lost     int            // acknowledged, and not in the log
	doubled  int
	untrue   int                             // failed, and in the log
	others   int                             // other promises broken: bounds, order, consumers
	reports  int                             // errors that consumers told of
	worst    map[time.Duration]time.Duration // until all works again, by bound
	late     int
	far      time.Duration // the most that far brokers were past their bound and 10 round trips
	behind   time.Duration // of consumers, at the end
	virtual  time.Duration
	seeds    map[uint64]time.Duration
}

func newTally() *tally {
	return &tally{
		faults: make(map[string]int), failures: make(map[string]int), unknowns: make(map[string]int), outcomes: make(map[outcome]int), worst: make(map[time.Duration]time.Duration), seeds: make(map[uint64]time.Duration),
	}
}

func (y *tally) add(f func()) {
	y.mu.Lock()
	defer y.mu.Unlock()
	f()
}

func (y *tally) fault(kind string) { y.add(func() { y.faults[kind]++ }) }
func (y *tally) breach()           { y.add(func() { y.others++ }) }
func (y *tally) told(error)        { y.add(func() { y.reports++ }) }

func (y *tally) took(seed uint64, d time.Duration) { y.add(func() { y.seeds[seed] = d }) }
func (y *tally) lasted(d time.Duration)            { y.add(func() { y.virtual += d }) }
func (y *tally) caughtUp(d time.Duration)          { y.add(func() { y.behind = max(y.behind, d) }) }

func (y *tally) outlasted(d time.Duration) { y.add(func() { y.overdue = max(y.overdue, d) }) }

func (y *tally) recovered(bound, took time.Duration, far bool) {
	y.add(func() {
		if far {
			y.far = max(y.far, took-bound)
		} else {
			y.worst[bound] = max(y.worst[bound], took)
		}
		if took > bound {
			y.late++
		}
	})
}

// history counts what became of the messages of one seed.
func (y *tally) history(h *history, logs []judge.Log, faults []span) {
	seen := make(map[string]int) // most often in one log
	for _, log := range logs {
		here := make(map[string]int)
		for _, r := range log {
			value, _, _ := strings.Cut(string(r.Value), " ")
			here[value]++
			seen[value] = max(seen[value], here[value])
		}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for value, s := range h.sends() {
		y.outcomes[s.Outcome]++
		if s.Outcome == failed {
			y.failures[whyFailed(s)]++
		}
		if s.Outcome == unknown {
			for kind := range during(s, faults) {
				y.unknowns[kind]++
			}
		}
		switch n := seen[value]; {
		case n > 1:
			y.doubled++
		case n > 0 && s.Outcome == failed:
			y.untrue++
		case n == 0 && s.Outcome == delivered:
			y.lost++
		}
	}
}

// during returns the kinds of faults that were on while a message was under way.
func during(s *judge.Sent, faults []span) map[string]bool {
	kinds := make(map[string]bool)
	for _, f := range faults {
		if !f.to.Before(s.Began) && !f.from.After(s.Ended) {
			kinds[f.kind] = true
		}
	}
	if len(kinds) == 0 {
		kinds["none"] = true
	}
	return kinds
}

// Why messages fail.
const (
	ofItself    = "refused as it must be"
	ofNeighbour = "refused for another in its batch"
	ofCtx       = "its ctx ended"
	ofClose     = "closed"
	ofToken     = "no token, or it was refused"
	ofTopic     = "the topic"
	otherReason = "other"
)

// whyFailed says why a message failed, or "" if it did not.
func whyFailed(s *judge.Sent) string {
	is := func(err error) bool { return errors.Is(s.Err, err) }
	switch {
	case s.Outcome != failed:
		return ""
	case s.Refused:
		return ofItself
	case is(kerr.InvalidRecord), is(kerr.InvalidTimestamp):
		return ofNeighbour
	case is(gracedb.ErrClosed):
		return ofClose
	case is(context.DeadlineExceeded), is(context.Canceled):
		return ofCtx
	case is(gracedb.ErrAuthentication):
		return ofToken
	case is(gracedb.ErrTopic):
		return ofTopic
	}
	return otherReason
}

// sorted returns how often what was counted, the most frequent first.
func sorted(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return strings.Join(names, ", ")
}

// report prints the sum, as a table.
func (y *tally) report(t *testing.T, seeds int, took time.Duration) {
	var b strings.Builder
	row := func(what string, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", what, fmt.Sprintf(format, args...))
	}
	sent, all := 0, 0
	for _, n := range y.outcomes {
		sent += n
	}
	for _, n := range y.faults {
		all += n
	}
	ran := fmt.Sprint(seeds)
	if len(y.seeds) < seeds {
		ran = fmt.Sprintf("no time for more than %d of %d", len(y.seeds), seeds)
	}
	row("simulated", "%s seeds, %.1f virtual hours in %v", ran, y.virtual.Hours(), took.Round(time.Second))
	row("faults", "%d: %s", all, sorted(y.faults))
	row("messages sent", "%d", sent)
	row("delivered", "%d", y.outcomes[delivered])
	row("failed", "%d: %s", y.outcomes[failed], sorted(y.failures))
	row("unknown", "%d; with faults that were on meanwhile: %s", y.outcomes[unknown], sorted(y.unknowns))
	row("without an outcome", "%d", y.outcomes[pending])
	row("acknowledged and lost", "%d", y.lost)
	row("twice in the log", "%d", y.doubled)
	row("failed, but in the log", "%d", y.untrue)
	for _, bound := range slices.Sorted(maps.Keys(y.worst)) {
		row(fmt.Sprintf("after faults, until all partitions work; bound %v", bound), "worst %v", y.worst[bound])
	}
	row("recoveries past their bound, with 10 round trips to far brokers", "%d, worst by %v", y.late, max(0, y.far))
	row("calls after the end of their ctx, worst", "%v", y.overdue)
	row("consumers at the end of the log, worst", "%v", y.behind)
	if *simBare {
		row("promises broken, of all kinds", "%d", y.others)
	}
	text := b.String()
	slowest := slices.SortedFunc(maps.Keys(y.seeds), func(a, b uint64) int { return cmp.Compare(y.seeds[b], y.seeds[a]) })
	for _, seed := range slowest[:min(3, len(slowest))] {
		text += fmt.Sprintf("slow: seed %d took %v\n", seed, y.seeds[seed].Round(time.Millisecond))
	}
	t.Log("\n" + text)
	if *simReport != "" {
		if err := os.WriteFile(*simReport, []byte("| | |\n|---|---|\n"+b.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
}
