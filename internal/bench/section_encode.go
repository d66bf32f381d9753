package main

import (
	"context"
	"errors"
)

// encodeSection runs the library's own benchmarks: what encodes is not exported.
func encodeSection(ctx context.Context, b *bench) (r result, err error) {
	g, err := buildGoBench(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	all, err := g.run(ctx, "^Benchmark(Encode|Decode)$", b.count(10, 2), "50ms")
	if err != nil {
		return r, err
	}
	r.Text = "An event into the record's value, without hashing, and back, where ours compares the content_id (SHA-256) and bare does not: " +
		"`go test -bench 'Encode|Decode' .` in turn, many times. " +
		"\"bare\" is encoding/json and encoding/base64 with a struct; the floor is the standard library's base64 alone."
	t := table{Title: "Allocations of one operation:", Head: []string{"what", "ours", "kB", "bare", "kB"}}
	for _, op := range []struct {
		what, name, std, floor string
	}{
		{"encode", "Encode", "encoding_json", "stdlib_base64_alone"},
		{"decode", "Decode", "encoding_json_and_base64", ""},
	} {
		for _, size := range []string{"0kB", "50kB", "360kB", "800kB"} {
			us, err := need(all, op.name+"/"+size+"/"+map[string]string{"Encode": "gracedb", "Decode": "Upload"}[op.name])
			if err != nil {
				return r, err
			}
			std, err := need(all, op.name+"/"+size+"/"+op.std)
			if err != nil {
				return r, err
			}
			by := map[string][]float64{ours: scaled(us.ns, 1e-3), bare: scaled(std.ns, 1e-3)}
			if op.floor != "" {
				base64, err := need(all, op.name+"/"+size+"/"+op.floor)
				if err != nil {
					return r, err
				}
				by[floor] = scaled(base64.ns, 1e-3)
			}
			f := newFigure(op.what+" "+size, "µs", by)
			switch {
			case size != "800kB":
			case op.what == "encode":
				f.timesBetter(floor, 5)
			default:
				f.timesBetter(bare, 6)
			}
			r.Figures = append(r.Figures, f)
			t.row(op.what+" "+size, us.allocs[0], us.bytes[0]/1e3, std.allocs[0], std.bytes[0]/1e3)
		}
	}
	r.Tables = append(r.Tables, t)
	c := chart{Name: "encode", Title: "Encode and decode an event of 800 kB (median)", Y: "µs", Groups: []string{"encode", "decode"}}
	for _, who := range []string{ours, bare} {
		c.Series = append(c.Series, series{Name: who, Y: []float64{r.Figures[3].By[who].Median, r.Figures[7].By[who].Median}})
	}
	r.Charts = append(r.Charts, c)
	if missed(&r.Figures[3]) {
		top, err := g.profile(ctx, "^BenchmarkEncode$/^800kB$/^gracedb$")
		if err != nil {
			return r, err
		}
		r.Profiles = append(r.Profiles, profile{"encode 800 kB", top})
	}
	return r, nil
}
