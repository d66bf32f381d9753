package sender

import "time"

// An instant is when something was, by both clocks: brokers forget producers by their own
// clocks, which run on while this machine is suspended. Then its monotonic clock may stop,
// and its wall clock does not. The wall clock, in turn, may be set back.
type instant struct {
	running time.Time // with the monotonic clock's reading
	wall    time.Time // without
}

func thisInstant() instant {
	t := time.Now()
	return instant{t, t.Round(0)}
}

// age is how long ago it was, by the clock that says more.
func (i instant) age() time.Duration { return max(time.Since(i.running), time.Since(i.wall)) }
