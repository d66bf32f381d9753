package cluster

import (
	"context"
	"slices"
	"sync"
	"time"
)

// A client opens at most maxOpenings connections at a time, however many brokers a
// Metadata answer names. Of these, at most maxStrangers are to addresses that are not in
// Cluster.Brokers and have not been connected to: if all that an answer names is silent,
// each dial takes dialTimeout, and the good brokers are reached all the same.
const (
	maxOpenings  = 16
	maxStrangers = 12
)

// turnTimeout is enough for a stranger behind 72 others that are silent. Its own dial has
// all of dialTimeout after that.
const turnTimeout = 30*time.Second + redialPause

// openings bounds how many connections are being opened, TLS included.
type openings struct {
	all, strangers chan struct{} // have room for as many

	mu    sync.Mutex // guards known
	known []string   // addresses in Cluster.Brokers, and those connected to, the latest last
	given int        // how many of them are in Cluster.Brokers
}

func newOpenings(brokers []string) openings {
	return openings{
		all: make(chan struct{}, maxOpenings), strangers: make(chan struct{}, maxStrangers),
		known: slices.Clone(brokers), given: len(brokers),
	}
}

// begin waits until a connection to address may be opened. Whoever was let in calls done
// with whether there is one.
func (o *openings) begin(ctx context.Context, address string) (done func(made bool), err error) {
	o.mu.Lock()
	stranger := !slices.Contains(o.known, address)
	o.mu.Unlock()
	// A stranger waits for its own kind before it takes a place that others may need.
	turns := []chan struct{}{o.all}
	if stranger {
		turns = []chan struct{}{o.strangers, o.all}
	}
	for i, turn := range turns {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			for _, had := range turns[:i] {
				<-had
			}
			return nil, ctx.Err()
		}
	}
	return func(made bool) {
		if made && stranger {
			o.note(address)
		}
		for _, turn := range turns {
			<-turn
		}
	}, nil
}

// note remembers an address that was connected to, and forgets the oldest of too many.
func (o *openings) note(address string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.Contains(o.known, address) {
		return
	}
	if len(o.known)-o.given >= maxKnown {
		o.known = slices.Delete(o.known, o.given, o.given+1)
	}
	o.known = append(o.known, address)
}

// maxKnown is more than the brokers of a cluster that one client needs.
const maxKnown = 100
