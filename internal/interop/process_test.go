//go:build unix

package interop

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A process answers line by line, and is killed when a question's ctx ends first.
func TestProcess(t *testing.T) {
	p, err := Start(exec.Command("sh", "-c", `read line; echo "$line" >&2; echo $$; exec sleep 60`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil || !strings.Contains(p.Log(), "hello") {
			t.Errorf("%v, %q", err, p.Log())
		}
	}()
	var pid int
	if err := p.Ask(t.Context(), "hello", &pid); err != nil || pid != p.PID() {
		t.Errorf("%d, %v; want %d", pid, err, p.PID())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Ask(ctx, "and now?", &pid); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
