package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// explain adds a processor profile of ours doing f to a result that has missed a
// target. The child has a producer.
func explain(ctx context.Context, rig *rig, r *result, f func(*child) error) error {
	missed := func(f figure) bool { return slices.ContainsFunc(f.Targets, func(t target) bool { return !t.Met }) }
	if !slices.ContainsFunc(r.Figures, missed) {
		return nil
	}
	t, err := rig.startAll(ctx, ours)
	if err != nil {
		return err
	}
	defer t.end()
	c, file := t[0], filepath.Join(rig.dir, "cpu.prof")
	for _, step := range []func() error{
		func() error { return f(c) }, // warms it
		func() error { return c.do(ctx, "profile", args{"path": file}, nil) },
		func() error { return f(c) },
		func() error { return c.do(ctx, "profile", nil, nil) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-cum", "-nodecount=25", rig.child, file).Output()
	if err != nil {
		return fmt.Errorf("go tool pprof: %w", err)
	}
	_, table, _ := strings.Cut(string(out), "Duration") // without the path of the program
	r.After += "\nA target was missed. Where ours spends the processor's time while it does this again and again:\n\n```\nDuration" +
		strings.TrimRight(table, "\n") + "\n```\n"
	return nil
}
