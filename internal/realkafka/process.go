//go:build unix

package realkafka

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// A process is a child that does not outlive this program.
type process struct {
	pid  int
	done chan struct{} // closed once it has ended
	err  error         // how it ended; set before done is closed
}

// startProcess runs cmd in a process group of its own, its output going to log.
func startProcess(cmd *exec.Cmd, log *ring) (*process, error) {
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr()
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is sent when the thread that started the child ends,
		// which without this lock is at any time. It is never unlocked: the thread
		// ends with this goroutine, when the child has ended too.
		runtime.LockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("realkafka: %w", err)
	}
	return p, nil
}

// signal sends sig to the process and to what it may have started. A process that
// has ended already is not an error.
func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil // its number may belong to another by now
	default:
	}
	if err := syscall.Kill(-p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

// kill ends the process at once and waits for it.
func (p *process) kill() error {
	err := p.signal(syscall.SIGKILL)
	if err == nil {
		<-p.done
	}
	return err
}

// A ring keeps the end of what is written to it.
type ring struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const ringSize = 256 << 10

func (r *ring) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = append(r.buf, b...)
	if len(r.buf) > 2*ringSize {
		r.buf = append(r.buf[:0], r.buf[len(r.buf)-ringSize:]...)
	}
	return len(b), nil
}

func (r *ring) contains(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.buf, []byte(text))
}

// tail returns the last n lines, the long ones cut.
func (r *ring) tail(n int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(r.buf)), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		lines[i] = line[:min(len(line), 400)]
	}
	return strings.Join(lines, "\n")
}
