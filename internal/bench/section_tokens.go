package main

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
)

// tokensSection looks one token up, in BEARER_TOKEN_FILE, a few times in turn.
func tokensSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	t, err := rig.processes(ctx, ours, peer)
	if err != nil {
		return r, err
	}
	defer t.end()
	kafka, rest := make(map[string][]float64), make(map[string][]float64)
	for round := range 1 + b.count(40, 3) {
		if err := t.inTurn(round, func(c *child) error {
			var took struct{ Kafka, REST, Fresh []float64 }
			err := c.do(ctx, "token", args{"n": 50}, &took)
			if round > 0 { // the first warms caches
				kafka[c.who] = append(kafka[c.who], scaled(took.Kafka, 1e6)...)
				rest[c.who] = append(rest[c.who], scaled(took.REST, 1e6)...)
			}
			return err
		}); err != nil {
			return r, err
		}
	}
	r.Text = "`FindToken`, which ours calls for each new connection, beside the peer's `get_scitoken_for_kafka` and, for HTTP, `find_token`. " +
		"Both read the file and check the claims; the peer also checks the signature, with its key cache filled, which is its best case."
	for i, name := range []string{"for Kafka", "for HTTP"} {
		f := newFigure("a token "+name, "µs", []map[string][]float64{kafka, rest}[i])
		f.timesBetter(peer, 8)
		r.Figures = append(r.Figures, f)
		if err := explain(ctx, rig, &r, &f, func(c *child) error { return c.do(ctx, "token", args{"n": 20_000}, nil) }); err != nil {
			return r, err
		}
	}
	fresh, err := freshToken(ctx, rig)
	r.After += fmt.Sprintf("\n`ReloadToken` while its token is fresh: %d ns and %d allocations a call.", fresh.NsPerOp(), fresh.AllocsPerOp())
	return r, err
}

// freshToken measures what a connection pays as a rule.
func freshToken(ctx context.Context, rig *rig) (testing.BenchmarkResult, error) {
	token, err := os.ReadFile(rig.box.Dir + "/token")
	if err != nil {
		return testing.BenchmarkResult{}, err
	}
	reload := gracedb.ReloadToken(gracedb.StaticToken(string(token[:len(token)-1])), 5*time.Minute)
	return testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, err = reload(ctx); err != nil {
				return
			}
		}
	}), err
}
