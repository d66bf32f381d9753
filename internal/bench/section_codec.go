package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// codecSection runs the program in codec, which has a broker of its own behind a
// proxy that is far away.
func codecSection(ctx context.Context, b *bench) (r result, err error) {
	c := chart{Name: "codec", Title: "Publishing with zstd, compared to none", Drawn: true}
	arguments := []string{"run", "./codec", "-chart", filepath.Join(b.charts, c.Name+".svg")}
	if b.quick {
		arguments = append(arguments, "-quick")
	}
	if err := os.MkdirAll(b.charts, 0o755); err != nil {
		return r, err
	}
	out, err := exec.CommandContext(ctx, "go", arguments...).Output()
	if err != nil {
		return r, fmt.Errorf("go run ./codec: %w", err)
	}
	r.Text, r.Charts = string(out), []chart{c}
	return r, nil
}
