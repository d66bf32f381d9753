package faults_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A timedLog keeps the lines at Info and above, and when they were written.
type timedLog struct {
	mu    sync.Mutex
	lines []timedLine
}

type timedLine struct {
	at   time.Time
	text string
}

func (l *timedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, timedLine{time.Now(), string(b)})
	return len(b), nil
}

func (l *timedLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// since returns what was written since then that holds text.
func (l *timedLog) since(at time.Time, text string) []timedLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []timedLine
	for _, line := range l.lines {
		if !line.at.Before(at) && strings.Contains(line.text, text) {
			out = append(out, line)
		}
	}
	return out
}

// In an outage of three minutes, the log of a client tells each change of state once, and
// repeats what lasts once a minute at most; nothing that heals is an error.
func TestLogInAnOutage(t *testing.T) {
	for _, outage := range []struct {
		name        string
		begin, end  func(*kafkatest.Cluster, *gate)
		says        string
		most, first int // lines in all, and in the first minute
	}{
		{"expired token", func(_ *kafkatest.Cluster, g *gate) { g.stale.Store(true) }, func(_ *kafkatest.Cluster, g *gate) { g.stale.Store(false) }, "authentication fails", 5, 3},
		{"no token", func(_ *kafkatest.Cluster, g *gate) { g.none.Store(true) }, func(_ *kafkatest.Cluster, g *gate) { g.none.Store(false) }, "authentication fails", 5, 3},
		{"refused", func(c *kafkatest.Cluster, _ *gate) { c.RefuseTokens(kafkatest.Refusal{}) }, func(c *kafkatest.Cluster, _ *gate) { c.AcceptTokens() }, "authentication fails", 12, 6}, // each broker refuses, and may reset a login in between
		{"brokers away", func(c *kafkatest.Cluster, _ *gate) { c.Refuse() }, func(c *kafkatest.Cluster, _ *gate) { _ = c.Accept() }, "cannot connect", 30, 10},
	} {
		for _, who := range []string{"producer", "busy producer", "consumer", "group"} {
			t.Run(outage.name+"/"+who, func(t *testing.T) {
				testrig.Virtually(t, kafkatest.Config{Plaintext: true, Brokers: 3, MaxSession: 10 * time.Second, Topics: map[string]int{testrig.Topic: 3}}, func(t *testing.T, c *kafkatest.Cluster) {
					var log timedLog
					g := &gate{}
					cluster := testrig.ClusterFor(t, c, "alice")
					cluster.Logger, cluster.Plaintext, cluster.CAFile = log.logger(), true, ""
					cluster.Token = g.source(t, c)
					stop := g.use(t, who, cluster)
					time.Sleep(20 * time.Second)
					start := time.Now()
					outage.begin(c, g)
					c.Drop(kafkatest.RST)
					time.Sleep(3 * time.Minute)
					all, said := log.since(start, ""), log.since(start, outage.says)
					outage.end(c, g)
					healed := time.Now()
					time.Sleep(30 * time.Second)
					stop()

					first, worst := 0, 0
					for i, line := range all {
						if line.at.Sub(start) < time.Minute {
							first++
						}
						n := 0
						for _, later := range all[i:] {
							if later.at.Sub(line.at) < time.Minute {
								n++
							}
						}
						worst = max(worst, n)
					}
					t.Logf("%d lines in 3 minutes, %d in the first, %d in the worst", len(all), first, worst)
					if worst > 30 || first > outage.first || len(all) > outage.most || len(said) == 0 {
						var b strings.Builder
						for _, line := range all[:min(len(all), 40)] {
							fmt.Fprintf(&b, "%v %s", line.at.Sub(start), line.text)
						}
						t.Errorf("%d lines, %d in the first minute, %d in the worst; %d say %q:\n%s", len(all), first, worst, len(said), outage.says, b.String())
					}
					if lines := log.since(healed, "level=ERROR"); len(lines) > 0 {
						t.Errorf("errors after the end: %v", lines)
					}
				})
			})
		}
	}
}

// A gate is a source of tokens that fails on demand.
type gate struct {
	none, stale atomic.Bool
}

func (g *gate) source(t *testing.T, c *kafkatest.Cluster) gracedb.TokenSource {
	old := testrig.Mint(t, c, testauth.Claims{Subject: "alice", IssuedAt: time.Now().Add(-time.Hour), Expires: time.Now()})
	return func(context.Context) (string, error) {
		switch {
		case g.none.Load():
			return "", fmt.Errorf("no token in /tmp/bt_u1000, asked at %s", time.Now().UTC().Format(time.RFC3339))
		case g.stale.Load():
			return old, nil
		}
		return c.Issuer().Token(testauth.Claims{Subject: "alice"})
	}
}

// use runs a client of a kind until stop is called.
func (*gate) use(t *testing.T, who string, cluster gracedb.Cluster) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	switch who {
	case "producer", "busy producer":
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		if who == "busy producer" {
			wg.Go(func() {
				for ctx.Err() == nil {
					once, cancel := context.WithTimeout(ctx, 2*time.Second)
					_, _ = p.ProduceSync(once, gracedb.Message{Value: []byte("x")}) // its outcome is of no interest
					cancel()
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
	default:
		con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.WithoutAutoCommit(cluster), Topics: []string{"test"}, GroupID: map[string]string{"group": "g"}[who]})
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := con.Poll(ctx); err != nil {
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}
