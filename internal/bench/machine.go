package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/interop"
)

// A machine is what the numbers depend on.
type machine struct {
	CPU       string
	Cores     int
	MemoryGiB int
	Kernel    string
	Go        string
	FranzGo   string
	Java      string
	Python    string
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %d GiB, Linux %s; %s, franz-go %s, Apache Kafka 4.3.1 on Java %s, ligo-gracedb 2.16.1 on Python %s",
		m.CPU, m.Cores, m.MemoryGiB, m.Kernel, m.Go, m.FranzGo, m.Java, m.Python)
}

// thisMachine asks around. What cannot be found out is left empty.
func thisMachine(ctx context.Context) machine {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	for line := range lines("/proc/cpuinfo") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	for line := range lines("/proc/meminfo") {
		var kB int
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kB); n == 1 {
			m.MemoryGiB = kB >> 20
			break
		}
	}
	for line := range lines("/proc/sys/kernel/osrelease") {
		m.Kernel = strings.TrimSpace(line)
		break
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/twmb/franz-go" {
				m.FranzGo = dep.Version
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "java", "-version").CombinedOutput(); err == nil {
		first, _, _ := strings.Cut(string(out), "\n")
		if _, rest, ok := strings.Cut(first, `"`); ok {
			m.Java, _, _ = strings.Cut(rest, `"`)
		}
	}
	if python, err := interop.Python(ctx); err == nil {
		if out, err := exec.CommandContext(ctx, python, "--version").Output(); err == nil {
			m.Python = strings.TrimPrefix(strings.TrimSpace(string(out)), "Python ")
		}
	}
	return m
}

// lines yields the lines of a file, or none.
func lines(file string) func(func(string) bool) {
	data, _ := os.ReadFile(file)
	return func(yield func(string) bool) {
		for line := range bytes.Lines(data) {
			if !yield(string(line)) {
				return
			}
		}
	}
}
