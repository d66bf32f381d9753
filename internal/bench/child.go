package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/gracedb-go/gracedb/internal/interop"
)

//go:embed peer.py
var peerScript string

// args are the arguments of a command.
type args = interop.Args

// A child is a process that does what it is told. That of the peer is peer.py, the others are
// this program's -child.
type child struct {
	who string
	p   *interop.Process
}

func startChild(cmd *exec.Cmd, who string) (*child, error) {
	cmd.Stderr = os.Stderr
	p, err := interop.Start(cmd)
	return &child{who, p}, err
}

// do has a command done and stores what it returns in result, if that is not nil.
func (c *child) do(ctx context.Context, command string, a args, result any) error {
	if err := c.p.Do(ctx, command, a, result); err != nil {
		return fmt.Errorf("%s: %s: %w", c.who, command, err)
	}
	return nil
}

// end kills the process: what it has opened is of no more use.
func (c *child) end() { _ = c.p.Close() }

// A usage is what a process takes.
type usage struct {
	RSS     float64 // MB
	Peak    float64 // MB
	Threads float64
	CPU     float64 // ms since its start
}

// usage asks the kernel, not the process, which would have to wake for it.
func (c *child) usage() (u usage, err error) {
	base := fmt.Sprintf("/proc/%d/", c.p.PID())
	for line := range lines(base + "status") {
		name, value, _ := strings.Cut(line, ":")
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			continue
		}
		switch name {
		case "VmRSS":
			u.RSS = n * 1024 / 1e6
		case "VmHWM":
			u.Peak = n * 1024 / 1e6
		case "Threads":
			u.Threads = n
		}
	}
	// In nanoseconds, and of each thread: /proc/PID/stat counts in ticks of 10 ms,
	// of which an idle process may never be there for one.
	tasks, err := os.ReadDir(base + "task")
	for _, task := range tasks {
		for line := range lines(base + "task/" + task.Name() + "/schedstat") {
			running, _, _ := strings.Cut(line, " ")
			ns, err := strconv.ParseFloat(running, 64)
			if err != nil {
				return u, err
			}
			u.CPU += ns / 1e6
		}
	}
	return u, err
}
