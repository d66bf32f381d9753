package main

import (
	"context"
	"fmt"
	"time"
)

// What is asked after a time of quiet, in the order of the figures.
const (
	afterShort = iota
	afterShortEvent
	afterLong
	afterLongEvent
)

// idleSection lets processes that have a producer and a consumer rest, all at the
// same time, and then asks one after the other. Some rest for 70 s, again and again:
// that is past the broker's session of a minute. Others rest for ten minutes, and
// when those who rest shortly are done, what is light is measured beside them.
func idleSection(ctx context.Context, b *bench) (r result, err error) {
	rig, err := b.rig(ctx)
	if err != nil {
		return r, err
	}
	short, long := 70*time.Second, 10*time.Minute
	if b.quick {
		short, long = 5*time.Second, 15*time.Second
	}
	sleepers, err := rig.sleepers(ctx, b.count(6, 2))
	if err != nil {
		return r, err
	}
	defer sleepers.end()
	began := time.Now()
	var values [4]map[string][]float64
	for i := range values {
		values[i] = make(map[string][]float64)
	}
	resting := make([]map[string][]float64, 3) // MB, threads, ms a minute
	for i := range resting {
		resting[i] = make(map[string][]float64)
	}
	team, err := rig.sleepers(ctx, b.count(3, 2))
	if err != nil {
		return r, err
	}
	defer team.end()
	for round := range b.count(5, 2) {
		b.log("idle: everybody rests for %v", short)
		if err := rest(ctx, team, short, resting); err != nil {
			return r, err
		}
		if err := ask(ctx, rig, team, round, values[afterShort], values[afterShortEvent]); err != nil {
			return r, err
		}
	}
	team.end()
	b.log("idle: what is light runs beside those who rest until %s", began.Add(long).Format(time.TimeOnly))
	if err := b.meanwhile(ctx); err != nil {
		return r, err
	}
	if err := sleep(ctx, time.Until(began.Add(long))); err != nil {
		return r, err
	}
	if err := ask(ctx, rig, sleepers, 0, values[afterLong], values[afterLongEvent]); err != nil {
		return r, err
	}
	r.Text = fmt.Sprintf("Processes with a producer and a consumer, all resting at the same time and then asked in turn, for a message or for an event of 50 kB. "+
		"The broker ends sessions after a minute. While some rest for %v, others do so for %v, in turns of %v; nothing else runs during these. "+
		"In what is left of the %v the sections that need neither a broker nor quiet are measured. "+
		"Ours keeps its connections alive; the peer does so too; bare has the engine's defaults.", long, short, short, long)
	for i, name := range []string{
		fmt.Sprintf("first message after %v", short), fmt.Sprintf("first event after %v", short),
		fmt.Sprintf("first message after %v", long), fmt.Sprintf("first event after %v", long),
	} {
		r.Figures = append(r.Figures, newFigure(name, "ms", values[i]))
	}
	r.Figures[afterShort].timesBetter(peer, 1.2)
	r.Figures[afterLong].timesBetter(peer, 1.2)
	for i, f := range []struct {
		name, unit string
		times      float64
	}{{"memory at rest", "MB", 4}, {"threads at rest", "threads", 2}, {"processor's time at rest", cpuUnit, 1}} {
		fig := newFigure(f.name, f.unit, resting[i])
		fig.timesBetter(peer, f.times)
		if f.unit == cpuUnit {
			fig.atMost(35)
		}
		r.Figures = append(r.Figures, fig)
	}
	r.After = idleAfter
	return r, nil
}

// cpuUnit is of the processor's time.
const cpuUnit = "ms per minute"

const idleAfter = "Memory and threads are those of Go's runtime, TLS and the engine: bare holds connections and does nothing else, and has as much. " +
	"Ours spends its time on the Consumer, which is a member of a group: two Fetches and a Heartbeat a second, so that what goes to the partitions of a member " +
	"that leaves is with the others within 2 s, and a look at its topics every 2 s. The Producer's round trip every 20 s is about 2 ms of it. " +
	"The messages go to a topic that the process has not used before: ours and the peer have asked for all topics at the start."

// sleepers starts n processes of each, who each publish an event and listen.
func (r *rig) sleepers(ctx context.Context, n int) (team, error) {
	var all team
	for range n {
		t, err := r.processes(ctx, ours, before, bare, peer)
		all = append(all, t...)
		for _, c := range t {
			if err == nil {
				err = c.do(ctx, "open", args{"producer": true, "consumer": "quiet"}, nil)
			}
			if err == nil {
				err = c.do(ctx, "publish", args{"path": r.sample(50_000), "pipeline": "gstlal"}, nil)
			}
		}
		if err != nil {
			all.end()
			return nil, err
		}
	}
	return all, nil
}

// processes starts one of each.
func (r *rig) processes(ctx context.Context, whom ...string) (t team, err error) {
	for _, who := range r.present(whom...) {
		c, err := r.start(ctx, who)
		if err != nil {
			t.end()
			return nil, err
		}
		t = append(t, c)
	}
	return t, nil
}

// rest waits, and notes what each takes meanwhile.
func rest(ctx context.Context, t team, d time.Duration, values []map[string][]float64) error {
	if err := sleep(ctx, d/10); err != nil { // what the last question has left to do
		return err
	}
	before := make([]usage, len(t))
	start := time.Now()
	for i, c := range t {
		var err error
		if before[i], err = c.usage(); err != nil {
			return err
		}
	}
	if err := sleep(ctx, d-d/10); err != nil {
		return err
	}
	minutes := time.Since(start).Minutes()
	for i, c := range t {
		u, err := c.usage()
		if err != nil {
			return err
		}
		for j, v := range []float64{u.RSS, u.Threads, (u.CPU - before[i].CPU) / minutes} {
			values[j][c.who] = append(values[j][c.who], v)
		}
	}
	return nil
}

// ask has one half of the children send a message and the others an event.
func ask(ctx context.Context, rig *rig, t team, round int, messages, events map[string][]float64) error {
	asked := make(map[string]int)
	return t.inTurn(round, func(c *child) error {
		asked[c.who]++
		if (asked[c.who]+round)%2 == 0 {
			var s steps
			err := c.do(ctx, "publish", args{"path": rig.sample(50_000), "pipeline": "gstlal"}, &s)
			events[c.who] = append(events[c.who], 1000*s.Total)
			return err
		}
		var took float64
		err := c.do(ctx, "message", args{"pipeline": "test"}, &took)
		messages[c.who] = append(messages[c.who], 1000*took)
		return err
	})
}
