// Command codec measures what compressing costs and saves, near the broker and far
// away, on Apache Kafka behind a proxy, and how the library does beside the Python
// package there. It prints the codec section of BENCHMARKS.md.
//
//	cd internal/bench && go run ./codec [-quick] [-chart FILE.svg]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/gracedb-go/gracedb/internal/bench/shape"
)

func main() {
	quick := flag.Bool("quick", false, "measure once, for a look")
	chart := flag.String("chart", "", "`file` for the chart; if empty, none is drawn")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	res, err := measure(ctx, *quick)
	if err == nil {
		fmt.Print(res.text())
		if *chart != "" {
			err = res.draw(*chart)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "codec:", err)
		os.Exit(1)
	}
}

// A network is a Link with a name.
type network struct {
	name string
	shape.Link
}

const (
	mega = 1_000_000
	ms   = time.Millisecond
)

var (
	loopback = network{"loopback", shape.Link{}}
	lan      = network{"0.5 ms, 1 Gbit/s", shape.Link{RoundTrip: ms / 2, Rate: 1000 * mega}}
	country  = network{"10 ms, 100 Mbit/s", shape.Link{RoundTrip: 10 * ms, Rate: 100 * mega}}
	ocean    = network{"40 ms, 100 Mbit/s", shape.Link{RoundTrip: 40 * ms, Rate: 100 * mega}}
)

// trips are the round trips, at 1 Gbit/s, among which compressing begins to pay.
var trips = []time.Duration{ms / 10, ms / 4, ms / 2, ms, 2 * ms, 4 * ms, 8 * ms, 16 * ms}

// A results is all that was measured.
type results struct {
	codecs   []codec
	messages [][]byte
	costs    map[key]cost
	networks []network
	publish  []map[key]*pair // of networks
	fetch    []map[key]*pair // of networks
	against  [][]against     // of networks
	swept    []map[key]*pair // of trips
	rounds   int
	versions string // of the peer
}

func measure(ctx context.Context, quick bool) (_ *results, err error) {
	res := &results{networks: []network{loopback, lan, country, ocean}, rounds: 7}
	if quick {
		res.networks, res.rounds = []network{loopback, lan, ocean}, 1
	}
	r, err := newRig(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if res.messages, err = r.messages(ctx); err != nil {
		return nil, err
	}
	if res.codecs, err = codecs(); err != nil {
		return nil, err
	}
	if res.costs, err = measureCosts(res.codecs, res.messages, 15); err != nil {
		return nil, err
	}
	through, err := r.senders(res.codecs, false)
	if err != nil {
		return nil, err
	}
	past, err := r.senders(res.codecs, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range append(through, past...) {
			s.client.Close()
		}
	}()
	if _, err := r.publish(ctx, past, res.messages, 30); err != nil { // warms Java up
		return nil, err
	}
	for _, n := range res.networks {
		if err := res.one(ctx, r, n, through, past); err != nil {
			return nil, fmt.Errorf("%s: %w", n.name, err)
		}
	}
	if err := res.sweep(ctx, r, through); err != nil {
		return nil, err
	}
	return res, res.compare(ctx, r)
}

// one measures publishing and fetching over one network.
func (res *results) one(ctx context.Context, r *rig, n network, through, past []sender) error {
	r.set(n.Link)
	senders := through
	if n == loopback {
		senders = past
	}
	published, err := r.publish(ctx, senders, res.messages, res.roundsFor(n))
	if err != nil {
		return err
	}
	fetched, err := r.fetch(ctx, past, res.messages, res.roundsFor(n))
	res.publish, res.fetch = append(res.publish, published), append(res.fetch, fetched)
	return err
}

// roundsFor returns more rounds where noise is most of what differs.
func (res *results) roundsFor(n network) int {
	if n.RoundTrip < ms {
		return 3 * res.rounds
	}
	return res.rounds
}

// sweep publishes with and without zstd over ever longer round trips.
func (res *results) sweep(ctx context.Context, r *rig, through []sender) error {
	var two []sender
	for _, s := range through {
		if s.name == none || s.name == dense {
			two = append(two, s)
		}
	}
	for _, rtt := range trips {
		r.set(shape.Link{RoundTrip: rtt, Rate: lan.Rate})
		times, err := r.publish(ctx, two, res.messages, 3*res.rounds)
		if err != nil {
			return err
		}
		res.swept = append(res.swept, times)
	}
	return nil
}

// compare sets the library beside the peer.
func (res *results) compare(ctx context.Context, r *rig) (err error) {
	r.set(shape.Link{})
	p, err := r.newPeer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if res.versions, err = p.version(); err != nil {
		return err
	}
	for _, n := range res.networks {
		r.set(n.Link)
		all, err := r.compare(ctx, p, res.roundsFor(n))
		if err != nil {
			return err
		}
		res.against = append(res.against, all)
	}
	return nil
}
