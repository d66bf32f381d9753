package main

import "context"

// allocationsSection counts what queueing a message allocates, in a process that
// does nothing else.
func allocationsSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	t, err := rig.startAll(ctx, ours, before, bareNone)
	if err != nil {
		return r, err
	}
	defer t.end()
	type cost struct{ Count, Bytes, Seconds float64 }
	count, bytes, times := make(map[string][]float64), make(map[string][]float64), make(map[string][]float64)
	for round := range b.count(7, 2) {
		if err := t.inTurn(round, func(c *child) error {
			var got cost
			err := c.do(ctx, "allocations", args{"pipeline": "bulk", "n": 20_000, "size": 400}, &got)
			count[c.who], bytes[c.who] = append(count[c.who], got.Count), append(bytes[c.who], got.Bytes)
			times[c.who] = append(times[c.who], 1e9*got.Seconds)
			return err
		}); err != nil {
			return r, err
		}
	}
	r.Text = "20,000 messages of 400 B queued and acknowledged, per message; the value is made beforehand, the engine's share is included. " +
		"Both are uncompressed. A message of bare's is its `kgo.Record`."
	f := newFigure("allocations", "a message", count)
	f.atMost(1.5)
	r.Figures = append(r.Figures, f, newFigure("allocated", "bytes a message", bytes))
	f = newFigure("time", "ns a message", times)
	f.atMostTimes(bareNone, 2)
	r.Figures = append(r.Figures, f)
	r.After = allocationsAfter
	return r, nil
}

const allocationsAfter = "What is beyond whole numbers is the engine's share of batches and requests: a few for each, of some hundred messages."
