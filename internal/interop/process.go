//go:build unix

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/gracedb-go/gracedb/internal/testlog"
)

// A Process is a program that does what it is told: a JSON value a line in, one a line out.
type Process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
	log testlog.Log
}

// Start starts a Process. What it writes to its standard error is kept for Log, unless cmd
// says where that goes. Close it.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.log
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		p.in, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("interop: process: %w", err)
	}
	p.out = json.NewDecoder(out)
	return p, nil
}

// Ask sends a line, and decodes the next one that comes back into answer. When ctx ends
// first, the process is killed.
func (p *Process) Ask(ctx context.Context, line, answer any) error {
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	text, err := json.Marshal(line)
	if err == nil {
		_, err = p.in.Write(append(text, '\n'))
	}
	if err == nil {
		err = p.Next(answer)
	}
	if err != nil {
		return fmt.Errorf("interop: process: %w\n%s", errors.Join(err, context.Cause(ctx)), p.Log())
	}
	return nil
}

// Next decodes the next line that comes back into answer.
func (p *Process) Next(answer any) error { return p.out.Decode(answer) }

// A PeerError is an exception in the process.
type PeerError struct {
	Classes []string // its class, and those that this derives from
	Message string
}

// Error names the class and what the exception says.
func (e *PeerError) Error() string { return "interop: peer: " + e.Classes[0] + ": " + e.Message }

// Args are the keyword arguments of a command.
type Args map[string]any

// Do has the process carry out a command and stores what it returns in result, if that is
// not nil. An exception is a *PeerError. When ctx ends first, the process is killed.
func (p *Process) Do(ctx context.Context, command string, args Args, result any) error {
	if args == nil {
		args = Args{}
	}
	var answer struct {
		Result  json.RawMessage
		Error   []string
		Message string
	}
	err := p.Ask(ctx, map[string]any{"do": command, "args": args}, &answer)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", command, err)
	case answer.Error != nil:
		return &PeerError{answer.Error, answer.Message}
	case result == nil:
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// Log returns what the process has written to its standard error.
func (p *Process) Log() string { return p.log.String() }

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Close ends the process, without closing what it has opened.
func (p *Process) Close() error {
	_ = p.cmd.Process.Kill()
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState == nil {
		return fmt.Errorf("interop: process: %w", err)
	}
	return nil
}
