package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

//go:embed peer.py
var peerScript string

// args are the arguments of a command.
type args map[string]any

// A child is a process that does what it is told: a JSON object a line in, one a
// line out. That of the peer is peer.py, the others are this program's -child.
type child struct {
	who string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startChild(cmd *exec.Cmd, who string) (*child, error) {
	c := &child{who: who, cmd: cmd}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		c.in, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	c.out = json.NewDecoder(out)
	return c, nil
}

// do has a command done and stores what it returns in result, if that is not nil.
func (c *child) do(ctx context.Context, command string, a args, result any) error {
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	defer stop()
	if a == nil {
		a = args{}
	}
	line, err := json.Marshal(map[string]any{"do": command, "args": a})
	if err != nil {
		return err
	}
	var answer struct {
		Result json.RawMessage
		Error  string
	}
	if _, err = c.in.Write(append(line, '\n')); err == nil {
		err = c.out.Decode(&answer)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %s: %w", c.who, command, errors.Join(err, ctx.Err()))
	case answer.Error != "":
		return fmt.Errorf("%s: %s: %s", c.who, command, answer.Error)
	case result == nil:
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// end kills the process: what it has opened is of no more use.
func (c *child) end() {
	_ = c.cmd.Process.Kill()
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// A usage is what a process takes.
type usage struct {
	RSS     float64 // MB
	Peak    float64 // MB
	Threads float64
	CPU     float64 // ms since its start
}

// usage asks the kernel, not the process, which would have to wake for it.
func (c *child) usage() (u usage, err error) {
	base := fmt.Sprintf("/proc/%d/", c.cmd.Process.Pid)
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
