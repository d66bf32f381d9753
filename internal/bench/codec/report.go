package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// text returns the codec section.
func (res *results) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, `The producer compresses a batch with zstd if the broker is 2 ms or more away and the
batch is over 14 kB, or if the batch might be over the broker's limit; else not at all.
The tables say why. %s, %s/%s, %d CPUs; Apache Kafka 4.3.1 with TLS and OAUTHBEARER;
peer: %s. Networks are a proxy's: round trip, rate, and TCP's
window, which opens from 14.6 kB, twofold each round trip, after every quiet time, as
events are rare. Nothing is lost, and one connection is alone. Median of %d (loopback and
0.5 ms: %d), in turn. Milliseconds.

`, runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), res.versions, res.rounds, 3*res.rounds)
	res.costTable(&b)
	b.WriteString("\nPublished, from `ProduceSync` to the acknowledgement: after a quiet time / at once after\nanother of its size, while the window is open.\n\n")
	res.timeTable(&b, res.publish)
	b.WriteString("\nFetched: what a consumer at that distance waits after a producer beside the broker has\nits acknowledgement. This is what not compressing near the broker costs those far away.\n\n")
	res.timeTable(&b, res.fetch)
	res.peerTable(&b)
	return b.String()
}

// costTable writes what each codec makes of each file.
func (res *results) costTable(b *strings.Builder) {
	b.WriteString("The encoded messages (base64 in JSON): what is left, and milliseconds to compress / to\ndecompress.\n\n")
	res.header(b, "codec")
	for _, c := range res.codecs {
		fmt.Fprintf(b, "| %s |", c.name)
		for i, m := range res.messages {
			k := res.costs[key{i, c.name}]
			if c.name == none {
				fmt.Fprintf(b, " %d |", len(m))
				continue
			}
			fmt.Fprintf(b, " %.0f %%, %.2f / %.2f |", 100*float64(k.size)/float64(len(m)), millis(k.compress), millis(k.decompress))
		}
		b.WriteString("\n")
	}
}

// header begins a table with a column for each file.
func (res *results) header(b *strings.Builder, first string) {
	fmt.Fprintf(b, "| %s |", first)
	for i := range res.messages {
		fmt.Fprintf(b, " %s |", events()[i].Filename)
	}
	b.WriteString("\n|" + strings.Repeat("---|", 1+len(res.messages)) + "\n")
}

// timeTable writes the times of each network and codec.
func (res *results) timeTable(b *strings.Builder, times []map[key]*pair) {
	res.header(b, "network, codec")
	for i, n := range res.networks {
		for _, c := range res.codecs {
			if c.slow {
				continue
			}
			fmt.Fprintf(b, "| %s: %s |", n.name, c.name)
			for j := range res.messages {
				p := times[i][key{j, c.name}]
				fmt.Fprintf(b, " %s / %s |", digits(median(p.idle)), digits(median(p.warm)))
			}
			b.WriteString("\n")
		}
	}
}

// peerTable writes the comparison, and what it means for the targets.
func (res *results) peerTable(b *strings.Builder) {
	b.WriteString("\n`PublishEvent` beside the peer, both through the proxies to GraceDB and to the broker,\nafter a quiet time.\n\n")
	b.WriteString("| network | event | peer | ours | peer / ours | bytes to the broker, peer | ours |\n|---|---|---|---|---|---|---|\n")
	for i, n := range res.networks {
		for j, a := range res.against[i] {
			theirs, ours := median(a.theirs), median(a.ours)
			fmt.Fprintf(b, "| %s | %s | %s | %s | **%.2f** | %d | %d |\n", n.name, events()[j].Filename,
				digits(theirs), digits(ours), float64(theirs)/float64(ours), a.peerSent, a.sent)
		}
	}
	b.WriteString(`
Far away both wait for the same round trips: one for the graceid, and for 360 kB, which
either compresses to some 170 kB, four while the window opens to 14.6, 29.2, 58.4 and
116.8 kB. No codec gets it under the 102 kB of three (zstd 4: 157 kB), so what is left to
win there is processor time, and the ratio stays near 1.
`)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// digits returns milliseconds, with as many digits as mean something.
func digits(d time.Duration) string {
	if d < 10*ms {
		return fmt.Sprintf("%.2f", millis(d))
	}
	return fmt.Sprintf("%.0f", millis(d))
}

// draw writes a chart of where compressing begins to pay.
func (res *results) draw(file string) error {
	p := plot.New()
	p.Title.Text = "Publishing with zstd: time compared to none, 1 Gbit/s, after a quiet time"
	p.X.Label.Text = "round trip, ms"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Label.Text = "time with zstd / time with none"
	p.Y.Min = 0
	p.Legend.Top = true
	var lines []any
	for i, e := range events() {
		if len(res.messages[i]) < 14_000 {
			continue // one window either way
		}
		var points plotter.XYs
		for j, rtt := range trips {
			with, without := res.swept[j][key{i, dense}], res.swept[j][key{i, none}]
			points = append(points, plotter.XY{X: millis(rtt), Y: float64(median(with.idle)) / float64(median(without.idle))})
		}
		lines = append(lines, e.Filename, points)
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return err
	}
	even := plotter.NewFunction(func(float64) float64 { return 1 })
	even.Dashes = plotutil.Dashes(1)
	p.Add(even, plotter.NewGrid())
	return p.Save(18*vg.Centimeter, 10*vg.Centimeter, file)
}
