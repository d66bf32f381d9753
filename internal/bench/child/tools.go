package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/gracedb-go/gracedb"
)

// profile starts a profile into path, or ends the one that runs if path is empty.
func (c *commands) profile(path string) (err error) {
	if path == "" {
		pprof.StopCPUProfile()
		return c.profiled.Close()
	}
	if c.profiled, err = os.Create(path); err != nil {
		return err
	}
	return pprof.StartCPUProfile(c.profiled)
}

// lookUp is what ours measures of it; the two kinds are the same.
func lookUp(ctx context.Context, o order) (any, error) {
	query := gracedb.TokenQuery{Audience: []string{"https://localhost"}, Scopes: []string{"gracedb.read"}}
	took := make([]float64, o.N)
	var errs []error
	for i := range took {
		start := time.Now()
		_, err := gracedb.FindToken(query)(ctx)
		took[i] = time.Since(start).Seconds()
		errs = append(errs, err)
	}
	return map[string][]float64{"Kafka": took, "REST": took}, errors.Join(errs...)
}

// allocations says what a queued message costs, its making apart.
func (c *commands) allocations(ctx context.Context, o order) (any, error) {
	value := make([]byte, o.Size)
	var before, after runtime.MemStats
	run := func() error {
		for range o.N {
			if err := c.queue(ctx, o.Pipeline, nil, value); err != nil {
				return err
			}
		}
		return c.flush(ctx)
	}
	if err := run(); err != nil { // pools fill
		return nil, err
	}
	runtime.ReadMemStats(&before)
	took, err := timed(run)
	runtime.ReadMemStats(&after)
	n := float64(o.N)
	return map[string]float64{
		"seconds": took / n,
		"count":   float64(after.Mallocs-before.Mallocs) / n, "bytes": float64(after.TotalAlloc-before.TotalAlloc) / n,
	}, err
}
