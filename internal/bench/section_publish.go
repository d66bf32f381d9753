package main

import (
	"context"
	"fmt"
)

// everybody is who can publish, in the order of the columns.
var everybody = []string{ours, before, bare, bareNone, peer}

func kilobytes(size int) string { return trim(float64(size)/1000) + " kB" }

// steps are what publishing an event took, in seconds.
type steps struct{ Total, Reserve, Encode, Publish float64 }

// publishSection publishes events one after the other, and says where their time
// goes.
func publishSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	t, err := rig.startAll(ctx, everybody...)
	if err != nil {
		return r, err
	}
	defer t.end()
	r.Text = "`PublishEvent`: reserve a graceid over HTTPS, encode, publish, wait for the acknowledgement; the peer's `create_event`. " +
		"The floor is one POST, one round trip to the broker and one copy of the file."
	split := table{Title: "The steps, median, ms. Encode is what is neither reserving nor publishing: checks, SHA-256, base64 and JSON, " +
		"in the peer also the validation of the message.", Head: []string{"event", "who", "reserve", "encode", "publish", "total"}}
	c := chart{Name: "publish", Title: "Publishing an event (median)", Y: "ms", LogX: true, LogY: true, X: "size of the file, kB"}
	lines := make(map[string]*series)
	for _, size := range sizes {
		total, parts, err := publishSize(ctx, b, rig, t, size)
		if err != nil {
			return r, err
		}
		f := newFigure(kilobytes(size), "ms", total)
		f.timesBetter(peer, 5)
		switch {
		case size == 200:
			f.timesBetter(floor, 0.88)
		case size >= 360_000:
			f.atMostTimes(before, 0.8)
		}
		r.Figures = append(r.Figures, f)
		if err := explain(ctx, rig, &r, &f, func(c *child) error {
			for range b.count(200, 20) {
				if err := c.do(ctx, "publish", args{"path": rig.sample(size), "pipeline": "gstlal"}, nil); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return r, err
		}
		for _, who := range rig.present(everybody...) {
			median := func(i int) float64 { return newSpread(parts[who][i]).Median }
			split.row(kilobytes(size), who, median(0), median(1), median(2), f.By[who].Median)
		}
		for who, s := range f.By {
			if lines[who] == nil {
				lines[who] = &series{Name: who}
			}
			lines[who].X, lines[who].Y = append(lines[who].X, float64(size)/1000), append(lines[who].Y, s.Median)
		}
	}
	for _, column := range columns {
		if s := lines[column.who]; s != nil {
			s.Name = column.title
			c.Series = append(c.Series, *s)
		}
	}
	r.Tables, r.Charts = append(r.Tables, split), append(r.Charts, c)
	return r, nil
}

// publishSize returns the totals of each, the floor among them, and reserve, encode
// and publish of each, in ms.
func publishSize(ctx context.Context, b *bench, rig *rig, t team, size int) (total map[string][]float64, parts map[string]*[3][]float64, err error) {
	total, parts = make(map[string][]float64), make(map[string]*[3][]float64)
	rounds, warm := b.count(200, 5), b.count(10, 2)
	if size > 1_000_000 {
		rounds = b.count(60, 5)
	}
	for round := range warm + rounds {
		if err := t.inTurn(round, func(c *child) error {
			var s steps
			if err := c.do(ctx, "publish", args{"path": rig.sample(size), "pipeline": "gstlal"}, &s); err != nil {
				return err
			}
			if round < warm {
				return nil
			}
			total[c.who] = append(total[c.who], 1000*s.Total)
			p := parts[c.who]
			if p == nil {
				p = new([3][]float64)
				parts[c.who] = p
			}
			for i, v := range []float64{s.Reserve, s.Encode, s.Publish} {
				p[i] = append(p[i], 1000*v)
			}
			if c.who != bare {
				return nil
			}
			var least []float64
			err := c.do(ctx, "floor", args{"path": rig.sample(size), "n": 1}, &least)
			total[floor] = append(total[floor], scaled(least, 1000)...)
			return err
		}); err != nil {
			return nil, nil, err
		}
	}
	return total, parts, nil
}

// burstSection publishes a hundred events at once.
func burstSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	t, err := rig.startAll(ctx, everybody...)
	if err != nil {
		return r, err
	}
	defer t.end()
	values := map[int]map[string][]float64{1: {}, 8: {}}
	for round := range 1 + b.count(10, 2) {
		for _, callers := range []int{1, 8} {
			if err := t.inTurn(round, func(c *child) error {
				n := callers
				if c.who == peer {
					n = 1
				}
				var took float64
				err := c.do(ctx, "burst", args{"path": rig.sample(100_000), "pipeline": "gstlal", "n": 100, "callers": n}, &took)
				if round > 0 {
					values[callers][c.who] = append(values[callers][c.who], 1000*took)
				}
				return err
			}); err != nil {
				return r, err
			}
		}
	}
	r.Text = "100 events of 100 kB, by one caller and by 8 at once. The peer's client is not safe for concurrent use: it always has one caller."
	for _, callers := range []int{1, 8} {
		r.Figures = append(r.Figures, newFigure(fmt.Sprintf("%d callers", callers), "ms", values[callers]))
	}
	r.Figures[1].timesBetter(peer, 8)
	return r, explain(ctx, rig, &r, &r.Figures[1], func(c *child) error {
		for range b.count(10, 2) {
			if err := c.do(ctx, "burst", args{"path": rig.sample(100_000), "pipeline": "gstlal", "n": 100, "callers": 8}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}
