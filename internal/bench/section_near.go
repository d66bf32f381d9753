package main

import (
	"context"
	"errors"
)

// nearSection publishes within one process, where nothing but what the two libraries do
// takes time.
func nearSection(ctx context.Context, b *bench) (r result, err error) {
	g, err := buildGoBench(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	all, err := g.run(ctx, "^BenchmarkPublish$", b.count(20, 2), "100ms")
	if err != nil {
		return r, err
	}
	t := table{Title: "Allocations of all together, the broker's and GraceDB's among them:", Head: []string{"event", "ours", "kB", "floor", "kB"}}
	for _, size := range []string{"0kB", "360kB"} {
		us, err := need(all, "Publish/"+size+"/gracedb")
		if err != nil {
			return r, err
		}
		least, err := need(all, "Publish/"+size+"/post_and_produce")
		if err != nil {
			return r, err
		}
		f := newFigure(map[string]string{"0kB": "0.2 kB", "360kB": "360 kB"}[size], "ms",
			map[string][]float64{ours: scaled(us.ns, 1e-6), floor: scaled(least.ns, 1e-6)})
		if size == "0kB" {
			f.atMostTimes(floor, 1.3)
		}
		r.Figures = append(r.Figures, f)
		t.row(f.What, us.allocs[0], us.bytes[0]/1e3, least.allocs[0], least.bytes[0]/1e3)
	}
	r.Tables = append(r.Tables, t)
	r.Text = "`PublishEvent` to an embedded broker and an embedded GraceDB in the same process, without TLS: `go test -bench Publish .` many times. " +
		"The floor is one POST with net/http and one record that is ready, through the engine's own producer, to the same two."
	return r, nil
}
