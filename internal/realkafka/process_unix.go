//go:build unix && !linux

package realkafka

import "syscall"

// childAttr cannot tie the child's life to this program's here: a test binary that
// is killed leaves its brokers behind.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

const deathSignal = false
