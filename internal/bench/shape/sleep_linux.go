package shape

import (
	"syscall"
	"time"
)

// sleep is time.Sleep without what that adds when nothing else runs, up to a
// millisecond: the runtime then waits in epoll, which counts in milliseconds.
func sleep(d time.Duration) {
	if d > 5*time.Millisecond {
		time.Sleep(d - 2*time.Millisecond)
		d = 2 * time.Millisecond
	}
	const slack = 50 * time.Microsecond // the kernel's own
	if d > slack {
		t := syscall.NsecToTimespec(int64(d - slack))
		_ = syscall.Nanosleep(&t, nil)
	}
}
