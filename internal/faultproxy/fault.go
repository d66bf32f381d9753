package faultproxy

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Fault meets requests, or the answers to them.
type Fault struct {
	Keys     []kmsg.Key // of the requests; if nil, all
	Response bool       // the answers are meant
	Skip     int        // how many pass unharmed before
	Count    int        // how many it meets; if zero, 1

	Do Action
	// Forward is the part of the frame, from 0 to 1, that gets through before a Cut.
	Forward float64
	// FIN makes a Cut end the connection as if the other side had closed it,
	// instead of a reset.
	FIN bool
	// For is how long a frame is held, and all behind it.
	For time.Duration
}

// An Action is what a Fault does.
type Action int

// Drop swallows the frame; Cut ends the connection in it; Hold lets it through
// later.
const (
	Drop Action = iota
	Cut
	Hold
)

// An Injected is a Fault at work.
type Injected struct {
	Fault
	p    *Proxy
	seen int // guarded by p.mu
}

// Inject adds a fault. Of several that would meet a frame the first does.
func (p *Proxy) Inject(f Fault) *Injected {
	f.Count = max(f.Count, 1)
	i := &Injected{Fault: f, p: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, i)
	return i
}

// Hits returns how many frames the fault has met.
func (i *Injected) Hits() int {
	i.p.mu.Lock()
	defer i.p.mu.Unlock()
	return max(0, i.seen-i.Skip)
}

// Remove ends the fault, whatever it has met.
func (i *Injected) Remove() {
	i.p.mu.Lock()
	defer i.p.mu.Unlock()
	i.p.faults = slices.DeleteFunc(i.p.faults, func(f *Injected) bool { return f == i })
}

// meet returns the fault that a frame meets, or nil.
func (p *Proxy) meet(key kmsg.Key, response bool) *Injected {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !response {
		p.requests[key]++
	}
	var met *Injected
	for _, f := range p.faults {
		if f.Response != response || f.Keys != nil && !slices.Contains(f.Keys, key) {
			continue
		}
		if f.seen++; f.seen > f.Skip {
			met = f
			break
		}
	}
	p.faults = slices.DeleteFunc(p.faults, func(f *Injected) bool { return f.seen >= f.Skip+f.Count })
	return met
}
