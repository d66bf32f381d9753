package realkafka

import "syscall"

// childAttr makes the kernel end the child when this program ends, however it ends.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

const deathSignal = true
