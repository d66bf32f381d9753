package main

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// A growth is how long something takes while one of its numbers grows.
type growth struct {
	what, axis string
	xs         []int
	prepare    func(x int) error
	measure    func(c *child, x int) (seconds float64, err error)
}

// linear is the slope in log-log up to which a step counts as linear: the rest is
// noise.
const linear = 1.15

// growthSection looks for what gets worse faster than the work grows, on the real
// broker.
func growthSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	r.Text = "On Apache Kafka, ours and bare (not compressed) in turn, the least of a few rounds. The slope is that of the steepest step in a " +
		"log-log chart: 1 is linear, 0 is free. A step may be as steep as " + trim(linear) + "."
	t := table{Head: []string{"what", "grows", "from", "to", "ours, ms", "steepest step, ours", "steepest step, bare", "no worse than linear"}}
	for _, g := range growths(ctx, b, rig) {
		c, err := g.run(ctx, b, rig)
		if err != nil {
			return r, fmt.Errorf("%s: %w", g.axis, err)
		}
		y := c.Series[0].Y
		slope := steepest(c.Series[0])
		t.row(g.what, g.axis, g.xs[0], g.xs[len(g.xs)-1], trim(y[0])+" to "+trim(y[len(y)-1]), slope, steepest(c.Series[1]), yes(slope <= linear))
		r.Charts = append(r.Charts, c)
	}
	r.Tables = append(r.Tables, t)
	return r, nil
}

func growths(ctx context.Context, b *bench, rig *rig) []growth {
	work := b.count(4000, 500)
	most := b.count(1_000_000, 10_000)
	var counts []int
	for n := 100; n <= most; n *= 10 {
		counts = append(counts, n)
	}
	topics := func(x int) []string {
		names := make([]string, x)
		for i := range names {
			names[i] = fmt.Sprintf("grown%d", i)
		}
		return names
	}
	made := 0
	spread := func(c *child, a args) (took float64, err error) { return took, c.do(ctx, "spread", a, &took) }
	return []growth{
		{
			fmt.Sprintf("%d messages, each waited for", work), "goroutines of one producer",
			[]int{1, 2, 4, 8, 16, 32, 64},
			nil,
			func(c *child, x int) (float64, error) {
				return spread(c, args{"topics": []string{"bulk"}, "n": work, "callers": x})
			},
		},
		{
			fmt.Sprintf("%d messages with keys, queued", 5*work), "partitions",
			[]int{1, 2, 4, 8, 16, 32},
			func(x int) error { return rig.topic(ctx, fmt.Sprintf("parts%d", x), int32(x)) },
			func(c *child, x int) (float64, error) {
				return spread(c, args{"topics": []string{fmt.Sprintf("parts%d", x)}, "n": 5 * work, "size": 400, "callers": 1, "keys": true})
			},
		},
		{
			"messages of 100 B, queued", "messages produced", counts, nil,
			func(c *child, x int) (float64, error) {
				return spread(c, args{"topics": []string{"bulk"}, "n": x, "size": 100, "callers": 1})
			},
		},
		{
			"messages of 100 B, after the constructor", "messages consumed", counts,
			func(x int) error { return rig.fill(ctx, fmt.Sprintf("count%d", x), x) },
			func(c *child, x int) (float64, error) {
				var took reading
				err := c.do(ctx, "consume", args{"topics": []string{fmt.Sprintf("count%d", x)}, "n": x}, &took)
				return took.Last - took.Opened, err
			},
		},
		{
			"one message to each of them", "topics produced to", b.topicCounts(),
			func(x int) error { // those that the last step has left out
				for ; made < x; made++ {
					if err := rig.topic(ctx, topics(x)[made], 1); err != nil {
						return err
					}
				}
				return nil
			},
			func(c *child, x int) (float64, error) {
				return spread(c, args{"topics": topics(x), "n": x, "size": 100, "callers": 1})
			},
		},
		{
			"a consumer from its constructor until it has one message of each", "topics consumed", b.topicCounts(), nil,
			func(c *child, x int) (float64, error) {
				var took reading
				err := c.do(ctx, "consume", args{"topics": topics(x), "n": x}, &took)
				return took.Last, err
			},
		},
	}
}

func (b *bench) topicCounts() []int {
	if b.quick {
		return []int{1, 10, 30}
	}
	return []int{1, 10, 100, 300}
}

// fill makes a topic with n messages of 100 B.
func (r *rig) fill(ctx context.Context, pipeline string, n int) error {
	if err := r.topic(ctx, pipeline, 1); err != nil {
		return err
	}
	t, err := r.startAll(ctx, bareNone)
	if err != nil {
		return err
	}
	defer t.end()
	return t[0].do(ctx, "spread", args{"topics": []string{pipeline}, "n": n, "size": 100, "callers": 1}, nil)
}

// run measures each step several times in turn, and draws it.
func (g *growth) run(ctx context.Context, b *bench, rig *rig) (chart, error) {
	c := chart{
		Name: "growth-" + slug(g.axis), Title: g.what, X: g.axis, Y: "ms", LogX: true, LogY: true,
		Series: []series{{Name: ours}, {Name: bareNone}},
	}
	t, err := rig.startAll(ctx, ours, bareNone)
	if err != nil {
		return c, err
	}
	defer t.end()
	for _, x := range g.xs {
		if g.prepare != nil {
			if err := g.prepare(x); err != nil {
				return c, err
			}
		}
		least := map[string]float64{}
		for round := range b.count(4, 2) {
			if err := t.inTurn(round, func(c *child) error {
				took, err := g.measure(c, x)
				if least[c.who] == 0 || took < least[c.who] {
					least[c.who] = took
				}
				return err
			}); err != nil {
				return c, err
			}
		}
		for i := range c.Series {
			s := &c.Series[i]
			s.X, s.Y = append(s.X, float64(x)), append(s.Y, 1000*max(least[s.Name], 1e-6))
		}
	}
	return c, nil
}

func slug(s string) string { return anchor(s) }

// steepest returns the slope of the steepest step, in log-log.
func steepest(s series) float64 {
	var slopes []float64
	for i := 1; i < len(s.X); i++ {
		slopes = append(slopes, math.Log(s.Y[i]/s.Y[i-1])/math.Log(s.X[i]/s.X[i-1]))
	}
	return slices.Max(slopes)
}
