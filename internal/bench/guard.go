package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// The guard compares ours with what stands beside it in the same benchmark, both on
// the embedded broker and in the same run, so that a slow machine is slow for both.
var guarded = map[string][2]string{ // by the name in guard.json: the benchmarks of ours and of the other
	"produce small, beside franz-go":   {"Produce/small/gracedb", "Produce/small/franz-go"},
	"produce large, beside franz-go":   {"Produce/large/gracedb", "Produce/large/franz-go"},
	"publish, beside post and produce": {"Publish/0kB/gracedb", "Publish/0kB/post_and_produce"},
	"stream, beside franz-go":          {"Stream/gracedb", "Stream/franz-go"},
	"encode, beside encoding/json":     {"Encode/360kB/gracedb", "Encode/360kB/encoding_json"},
	"decode, beside encoding/json":     {"Decode/360kB/Upload", "Decode/360kB/encoding_json_and_base64"},
}

const (
	guardFile   = "guard.json"
	guardTries  = 3
	guardFactor = 2 // a ratio may be so many times the recorded one
)

// guardRatios fails if a ratio is too large in every try. With record it writes
// what is found instead.
func guardRatios(ctx context.Context, record bool) (err error) {
	g, err := buildGoBench(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if record {
		found, err := g.ratios(ctx, 10)
		if err != nil {
			return err
		}
		data, err := json.MarshalIndent(found, "", "\t")
		if err != nil {
			return err
		}
		return os.WriteFile(guardFile, append(data, '\n'), 0o644)
	}
	data, err := os.ReadFile(guardFile)
	if err != nil {
		return err
	}
	var recorded map[string]float64
	if err := json.Unmarshal(data, &recorded); err != nil {
		return err
	}
	var bad []string
	for try := range guardTries {
		found, err := g.ratios(ctx, 3)
		if err != nil {
			return err
		}
		if bad = tooSlow(found, recorded); len(bad) == 0 {
			return nil
		}
		fmt.Fprintf(os.Stderr, "try %d: %s\n", try+1, strings.Join(bad, "; "))
	}
	return fmt.Errorf("slower than recorded in %s, %d times: %s", guardFile, guardTries, strings.Join(bad, "; "))
}

// tooSlow compares and prints.
func tooSlow(found, recorded map[string]float64) (bad []string) {
	for name, ratio := range found {
		was, ok := recorded[name]
		fmt.Printf("%-32s %.3f, recorded %.3f\n", name, ratio, was)
		if !ok {
			bad = append(bad, name+" is not recorded")
		} else if ratio > guardFactor*was {
			bad = append(bad, fmt.Sprintf("%s: %.3f times, recorded %.3f", name, ratio, was))
		}
	}
	slices.Sort(bad)
	return bad
}

// ratios measures ours over the other, by the least time of each.
func (g *goBench) ratios(ctx context.Context, rounds int) (map[string]float64, error) {
	// On one processor: whoever allocates more has the collector run beside it, if
	// nobody else needs the other.
	all, err := g.run(ctx, "^Benchmark(Produce|Publish|Stream|Encode|Decode)$/^(small|large|gracedb|franz-go|0kB|360kB)$", rounds, "100ms", "-test.cpu=1")
	if err != nil {
		return nil, err
	}
	ratios := make(map[string]float64)
	for name, pair := range guarded {
		var least [2]float64
		for i, benchmark := range pair {
			r, err := need(all, benchmark)
			if err != nil {
				return nil, err
			}
			least[i] = slices.Min(r.ns)
		}
		ratios[name] = least[0] / least[1]
	}
	return ratios, nil
}
