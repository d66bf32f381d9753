package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// explain adds to r a processor profile of ours doing f, which is what the figure
// measures, if that has missed a target. The child has a producer.
func explain(ctx context.Context, rig *rig, r *result, fig *figure, f func(*child) error) error {
	if !missed(fig) {
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
	top, err := topOf(ctx, rig.child, file)
	if err != nil {
		return err
	}
	r.Profiles = append(r.Profiles, profile{fig.What, top})
	return nil
}

// topOf is what a processor profile says of a program.
func topOf(ctx context.Context, binary, profile string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-cum", "-nodecount=25", binary, profile).Output()
	if err != nil {
		return "", fmt.Errorf("go tool pprof: %w", err)
	}
	_, table, _ := strings.Cut(string(out), "Duration") // without the path of the program
	return "Duration" + strings.TrimRight(table, "\n") + "\n", nil
}

func missed(fig *figure) bool {
	return slices.ContainsFunc(fig.Targets, func(t target) bool { return !t.Met })
}
