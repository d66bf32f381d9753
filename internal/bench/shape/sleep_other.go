//go:build !linux

package shape

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
