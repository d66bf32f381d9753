package main

import (
	"context"
	"fmt"
)

// A load is many messages of one size.
type load struct {
	n, size        int
	path, pipeline string // of events to consume
	what           string
	target         float64 // times less than the peer
}

// A reading is when what happened, in seconds since before the constructor.
type reading struct{ Opened, First, Last float64 }

// bulkSection produces many messages, and consumes many.
func bulkSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	r.Text = "Each message is made anew from a struct (a dict), queued, and all are waited for. Consumed are events that bare, with zstd as the " +
		"peer's producers use it, has written: a group from the beginning, each file decoded; bare uses encoding/json. " +
		"The peer's constructor sleeps for a second: \"after the constructor\" leaves that out, and for bare, whose constructor does nothing, " +
		"holds its start-up too. Memory is the most that each process has had: for producing the one that produced 20,000 before."
	if err := produceAll(ctx, b, rig, &r); err != nil {
		return r, err
	}
	produced := len(r.Figures)
	if err := consumeAll(ctx, b, rig, &r); err != nil {
		return r, err
	}
	c := chart{Name: "bulk", Title: "Many messages, both ways (median)", Y: "ms", Groups: []string{"20,000 out", "500 x 500 kB out", "20,000 in", "300 x 500 kB in"}}
	for _, who := range []string{ours, bare, peer} {
		c.Series = append(c.Series, series{Name: who, Y: []float64{
			r.Figures[0].By[who].Median, r.Figures[1].By[who].Median, r.Figures[produced+1].By[who].Median, r.Figures[produced+3].By[who].Median,
		}})
	}
	r.Charts = append(r.Charts, c)
	return r, nil
}

func produceAll(ctx context.Context, b *bench, rig *rig, r *result) error {
	t, err := rig.startAll(ctx, everybody...)
	if err != nil {
		return err
	}
	defer t.end()
	var peaks []figure
	for _, l := range []load{
		{n: 20_000, size: 400, what: "produce 20,000 x 400 B", target: 4},
		{n: b.count(500, 50), size: 500_000, what: fmt.Sprintf("produce %d x 500 kB", b.count(500, 50)), target: 1.4},
	} {
		order := args{"path": rig.sample(800_000), "pipeline": "bulk", "n": l.n, "size": l.size}
		values := make(map[string][]float64)
		for round := range 1 + b.count(7, 1) {
			if err := t.inTurn(round, func(c *child) error {
				var took float64
				err := c.do(ctx, "produce", order, &took)
				if round > 0 {
					values[c.who] = append(values[c.who], 1000*took)
				}
				return err
			}); err != nil {
				return err
			}
		}
		f := newFigure(l.what, "ms", values)
		f.timesBetter(peer, l.target)
		r.Figures = append(r.Figures, f)
		if err := explain(ctx, rig, r, &f, func(c *child) error {
			return c.do(ctx, "produce", order, nil)
		}); err != nil {
			return err
		}
		peak, err := peakOf(l.what, t)
		if err != nil {
			return err
		}
		peaks = append(peaks, peak)
	}
	peaks[1].atMost(110)
	r.Figures = append(r.Figures, peaks...)
	return nil
}

// peakOf is the most memory that each has taken so far.
func peakOf(what string, children team) (figure, error) {
	peaks := make(map[string][]float64)
	for _, c := range children {
		u, err := c.usage()
		if err != nil {
			return figure{}, err
		}
		peaks[c.who] = []float64{u.Peak}
	}
	return newFigure("memory at its peak, "+what, "MB", peaks), nil
}

func consumeAll(ctx context.Context, b *bench, rig *rig, r *result) error {
	loads := []load{
		{20_000, 0, rig.sample(200), "small", "consume 20,000 x 0.6 kB", 2.5},
		{b.count(300, 30), 0, rig.sample(375_000), "large", fmt.Sprintf("consume %d x 500 kB", b.count(300, 30)), 1.2},
	}
	writer, err := rig.startAll(ctx, bare)
	if err != nil {
		return err
	}
	defer writer.end()
	var peaks []figure
	for _, l := range loads {
		if err := writer[0].do(ctx, "fill", args{"path": l.path, "pipeline": l.pipeline, "n": l.n}, nil); err != nil {
			return err
		}
		order := args{"topics": []string{l.pipeline}, "n": l.n, "decode": true}
		whole, after := make(map[string][]float64), make(map[string][]float64)
		t, err := rig.processes(ctx, ours, before, bare, peer)
		if err != nil {
			return err
		}
		defer t.end()
		for round := range 1 + b.count(7, 1) {
			if err := t.inTurn(round, func(c *child) error {
				var took reading
				err := c.do(ctx, "consume", order, &took)
				if round > 0 {
					whole[c.who] = append(whole[c.who], 1000*took.Last)
					after[c.who] = append(after[c.who], 1000*(took.Last-took.Opened))
				}
				return err
			}); err != nil {
				return err
			}
		}
		f := newFigure(l.what+", after the constructor", "ms", after)
		f.timesBetter(peer, l.target)
		r.Figures = append(r.Figures, newFigure(l.what+", whole", "ms", whole), f)
		if err := explain(ctx, rig, r, &f, func(c *child) error {
			return c.do(ctx, "consume", order, nil)
		}); err != nil {
			return err
		}
		peak, err := peakOf(l.what, t)
		if err != nil {
			return err
		}
		peaks = append(peaks, peak)
	}
	peaks[1].atMost(90)
	r.Figures = append(r.Figures, peaks...)
	return nil
}

// latencySection sends one message at a time and waits until it is back.
func latencySection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	t, err := rig.startAll(ctx, ours, before, bare, peer)
	if err != nil {
		return r, err
	}
	defer t.end()
	values := make(map[string][]float64)
	for round := range b.count(10, 2) {
		if err := t.inTurn(round, func(c *child) error {
			var took []float64
			n := b.count(60, 15)
			err := c.do(ctx, "latency", args{"pipeline": "latency-" + c.who, "n": n}, &took)
			values[c.who] = append(values[c.who], scaled(took[min(5, len(took)):], 1000)...)
			return err
		}); err != nil {
			return r, err
		}
	}
	r.Text = "From handing a small message to the producer until it is acknowledged and the consumer beside it, in the same process, " +
		"has returned it; one at a time. The peer's producer is flushed, as `create_event` does it: it would linger for 5 ms. " +
		"Broker and scheduler decide: no target."
	r.Figures = append(r.Figures, newFigure("produce to received", "ms", values))
	return r, nil
}
