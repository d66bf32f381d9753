//go:build unix

package savefile

import "syscall"

// noWait: opening what was made a FIFO meanwhile does not wait for its writer.
const noWait = syscall.O_NONBLOCK
