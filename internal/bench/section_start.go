package main

import (
	"context"
	"time"
)

// startSection starts processes, has each send two pings, and ends it.
func startSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	names := []string{"process start to first acknowledged ping", "the constructors", "first ping after them", "second ping"}
	values := make([]map[string][]float64, len(names))
	for i := range values {
		values[i] = make(map[string][]float64)
	}
	for round := range b.count(20, 2) {
		if err := inTurn(rig.present(ours, before, bare, peer), round, func(who string) error {
			took, err := oneStart(ctx, rig, who)
			if err != nil {
				return err
			}
			for j, s := range took {
				values[j][who] = append(values[j][who], 1000*s)
			}
			return nil
		}); err != nil {
			return r, err
		}
	}
	r.Text = "A new process each time. The peer's time is mostly one sleep of a second in confluent-kafka's constructor. Bare does not " +
		"check or warm anything but asks for one topic."
	for i, name := range names {
		r.Figures = append(r.Figures, newFigure(name, "ms", values[i]))
	}
	r.Figures[0].timesBetter(peer, 35)
	r.Figures[0].atMostTimes(bare, 1.15)
	r.Figures[2].timesBetter(peer, 2)
	for i := range r.Figures {
		if err := explain(ctx, rig, &r, &r.Figures[i], func(c *child) error {
			for range b.count(200, 20) {
				if err := c.do(ctx, "open", args{"producer": true}, nil); err != nil {
					return err
				}
				if err := c.do(ctx, "ping", nil, nil); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return r, err
		}
	}
	return r, nil
}

// oneStart returns the seconds until the first acknowledgement, then those of the
// constructors and of two pings.
func oneStart(ctx context.Context, rig *rig, who string) ([4]float64, error) {
	var took [4]float64
	began := time.Now()
	c, err := rig.start(ctx, who)
	if err != nil {
		return took, err
	}
	defer c.end()
	if err := c.do(ctx, "open", args{"producer": true}, &took[1]); err != nil {
		return took, err
	}
	if err := c.do(ctx, "ping", nil, &took[2]); err != nil {
		return took, err
	}
	took[0] = time.Since(began).Seconds()
	return took, c.do(ctx, "ping", nil, &took[3])
}
