package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// codecSection runs the program in codec, which has a broker of its own behind a
// proxy that is far away.
func codecSection(ctx context.Context, b *bench) (r result, err error) {
	arguments := []string{"run", "./codec", "-chart", "charts/codec.svg"}
	if b.quick {
		arguments = append(arguments, "-quick")
	}
	if err := os.MkdirAll("charts", 0o755); err != nil {
		return r, err
	}
	out, err := exec.CommandContext(ctx, "go", arguments...).Output()
	if err != nil {
		return r, fmt.Errorf("go run ./codec: %w", err)
	}
	r.Text = strings.TrimSpace(string(out)) + "\n\n![Publishing with zstd](internal/bench/charts/codec.svg)"
	return r, nil
}
