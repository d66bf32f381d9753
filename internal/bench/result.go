package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Who is measured. The order is that of the columns.
const (
	ours     = "ours"
	before   = "before"    // this library as it was at another commit
	bare     = "bare"      // franz-go and net/http by hand, zstd as it comes
	bareNone = "bare-none" // the same, not compressed
	peer     = "peer"      // the Python package
	floor    = "floor"     // what nobody can be below
)

var columns = []struct{ who, title string }{
	{ours, "ours"}, {before, "before"}, {bare, "bare"}, {bareNone, "bare, no codec"}, {peer, "peer"}, {floor, "floor"},
}

// A result is what a section has found out. It is kept as JSON, so that
// BENCHMARKS.md can be written again without measuring again.
type result struct {
	Text    string   // how it was measured: Markdown, before the tables
	Figures []figure // one table of them
	Tables  []table  // others
	Charts  []chart
	After   string // Markdown, after all of that
	// Profiles say where ours spends its time on what has missed its target.
	Profiles []profile
}

// A profile is what pprof says of a figure.
type profile struct {
	What string
	Top  string
}

// A figure is one thing measured on everybody. Less is better.
type figure struct {
	What    string
	Unit    string // such as "ms"
	By      map[string]spread
	Targets []target
}

// A spread is what a number of measurements say.
type spread struct {
	Min, Median, P99 float64
	N                int
}

// A target is a promise, and what became of it.
type target struct {
	Text string // such as "peer ÷ 5"
	Got  string
	Met  bool
}

// newFigure returns a figure without targets.
func newFigure(what, unit string, by map[string][]float64) figure {
	f := figure{What: what, Unit: unit, By: make(map[string]spread)}
	for who, values := range by {
		if len(values) > 0 {
			f.By[who] = newSpread(values)
		}
	}
	return f
}

func newSpread(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	return spread{Min: v[0], Median: quantile(v, 0.5), P99: quantile(v, 0.99), N: len(v)}
}

// quantile returns the q-quantile of sorted values, the nearest above.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// ratio is the median of who over that of whom.
func (f *figure) ratio(who, whom string) float64 { return f.By[who].Median / f.By[whom].Median }

// timesBetter demands that ours be at least times less than who.
func (f *figure) timesBetter(who string, times float64) {
	got := f.ratio(who, ours)
	f.add(fmt.Sprintf("%s ÷ %s", who, trim(times)), trim(got), got >= times, who)
}

// atMostTimes demands that ours be at most times as much as who.
func (f *figure) atMostTimes(who string, times float64) {
	got := f.ratio(ours, who)
	f.add(fmt.Sprintf("%s × %s", who, trim(times)), trim(got), got <= times, who)
}

// atMost demands that ours be at most limit, in the figure's unit.
func (f *figure) atMost(limit float64) {
	got := f.By[ours].Median
	f.add(fmt.Sprintf("%s %s", trim(limit), f.Unit), trim(got), got <= limit, ours)
}

// add notes a target, unless who it compares with was not measured.
func (f *figure) add(text, got string, met bool, who string) {
	if _, ok := f.By[who]; ok {
		f.Targets = append(f.Targets, target{text, got, met})
	}
}

// A table is one of a section's own.
type table struct {
	Title string // Markdown before it, or nothing
	Head  []string
	Rows  [][]string
}

// row adds a row; what is not a string is formatted.
func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		switch cell := cell.(type) {
		case float64:
			row[i] = trim(cell)
		default:
			row[i] = fmt.Sprint(cell)
		}
	}
	t.Rows = append(t.Rows, row)
}

// trim writes a number with three significant digits.
func trim(x float64) string {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return "-"
	case math.Abs(x) >= 100:
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

// figureTables lays figures out, with the columns that any of them has: what was measured,
// and how that compares.
func figureTables(figures []figure) (measured, compared table) {
	measured.Head, compared.Head = []string{"what"}, []string{"what"}
	var used []string
	for _, c := range columns {
		if slices.ContainsFunc(figures, func(f figure) bool { _, ok := f.By[c.who]; return ok }) {
			used = append(used, c.who)
			measured.Head = append(measured.Head, c.title)
		}
	}
	others := slices.DeleteFunc(others(), func(who string) bool { return !slices.Contains(used, who) })
	for _, who := range others {
		compared.Head = append(compared.Head, who+" ÷ ours")
	}
	compared.Head = append(compared.Head, "target", "met")
	for _, f := range figures {
		row, ratios := []string{f.What + ", " + f.Unit}, []string{f.What}
		for _, who := range used {
			row = append(row, f.cell(who))
		}
		for _, who := range others {
			ratios = append(ratios, f.compared(who))
		}
		measured.Rows = append(measured.Rows, row)
		compared.Rows = append(compared.Rows, append(ratios, f.verdict()...))
	}
	return measured, compared
}

// others are those that ours is compared with.
func others() []string { return []string{before, bare, bareNone, peer, floor} }

// cell is the least, the **median** and the 99th percentile.
func (f *figure) cell(who string) string {
	s, ok := f.By[who]
	switch {
	case !ok:
		return ""
	case s.N == 1:
		return "**" + trim(s.Median) + "**"
	}
	return fmt.Sprintf("%s / **%s** / %s", trim(s.Min), trim(s.Median), trim(s.P99))
}

// compared is the median of who over that of ours; nothing if one was not measured.
func (f *figure) compared(who string) string {
	_, ok := f.By[who]
	if _, both := f.By[ours]; !ok || !both {
		return ""
	}
	return trim(f.ratio(who, ours))
}

func (f *figure) verdict() []string {
	var texts, met []string
	for _, t := range f.Targets {
		texts = append(texts, t.Text)
		if t.Met {
			met = append(met, "yes")
		} else {
			met = append(met, "**no** ("+t.Got+")")
		}
	}
	return []string{strings.Join(texts, "; "), strings.Join(met, "; ")}
}
