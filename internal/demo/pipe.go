//go:build !js

package main

import (
	"os/signal"
	"syscall"
)

// A reader that leaves, such as head, would end the process where it stands and
// its temporary files would stay: rather let the write fail.
func init() { signal.Ignore(syscall.SIGPIPE) }
