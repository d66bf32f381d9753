package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gracedb-go/gracedb/internal/bench/shape"
)

// ocean is the network of this section.
var ocean = shape.Link{RoundTrip: 40 * time.Millisecond, Rate: 100_000_000}

// awaySection publishes events of each size from far away, one after a time of quiet and
// many by eight callers. It has a broker and a GraceDB of its own, behind proxies.
func awaySection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := startRig(ctx, b.before, true)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, rig.close()) }()
	if err := rig.warmUp(ctx, b.count(60, 5)); err != nil {
		return r, err
	}
	rig.set(ocean)
	t, err := rig.startAll(ctx, ours, before, peer)
	if err != nil {
		return r, err
	}
	defer t.end()
	const callers, events = 8, 24
	for _, size := range sizes {
		one, many := make(map[string][]float64), make(map[string][]float64)
		for round := range 1 + b.count(9, 2) {
			if err := t.inTurn(round, func(c *child) error {
				rig.idle()
				var s steps
				err := c.do(ctx, "publish", args{"path": rig.sample(size), "pipeline": "gstlal"}, &s)
				if err == nil && round > 0 {
					one[c.who] = append(one[c.who], 1000*s.Total)
				}
				if err != nil || c.who == peer || round > b.count(5, 1) {
					return err
				}
				rig.idle()
				var took float64
				err = c.do(ctx, "burst", args{"path": rig.sample(size), "pipeline": "gstlal", "n": events, "callers": callers}, &took)
				if err == nil && round > 0 {
					many[c.who] = append(many[c.who], 1000*took)
				}
				return err
			}); err != nil {
				return r, err
			}
		}
		for _, f := range []figure{
			newFigure(kilobytes(size), "ms", one),
			newFigure(fmt.Sprintf("%d x %s, %d callers", events, kilobytes(size), callers), "ms", many),
		} {
			f.atMostTimes(before, notSlower)
			r.Figures = append(r.Figures, f)
		}
	}
	r.Text = fmt.Sprintf("`PublishEvent` through proxies to GraceDB and to the broker that take %v for a round trip, carry %d Mbit/s, and open TCP's "+
		"window from 14.6 kB, as after a time of quiet: one event alone, and %d by %d callers at once. The peer's client is not safe for "+
		"concurrent use.", ocean.RoundTrip, ocean.Rate/1e6, events, callers)
	return r, nil
}

// notSlower is what two programs that do the same may differ by from one run to the next.
const notSlower = 1.03
