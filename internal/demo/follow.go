package main

import (
	"context"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb"
)

// An arrival is an event that came by Kafka.
type arrival struct {
	message gracedb.Message
	upload  gracedb.Upload
	at      time.Time // when it was decoded
	err     error     // the stream has ended
}

// follow receives what c does, until stop is called, which waits for the end.
func follow(ctx context.Context, c *gracedb.Consumer) (arrivals <-chan arrival, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan arrival)
	var wg sync.WaitGroup
	wg.Go(func() {
		for m, err := range c.Stream(ctx) {
			a := arrival{message: m, err: err}
			if err == nil {
				if a.upload, err = m.Upload(); err != nil {
					continue // a ping, or what another program writes
				}
			}
			a.at = time.Now()
			select {
			case out <- a:
			case <-ctx.Done():
				return
			}
		}
	})
	return out, func() { cancel(); wg.Wait() }
}
