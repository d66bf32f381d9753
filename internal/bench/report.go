package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A kept result is one in the directory of -json.
type keptResult struct {
	result
	When    time.Time
	Quick   bool
	Machine machine
}

func keptFile(dir, name string) string { return filepath.Join(dir, name+".json") }

func keep(dir, name string, k keptResult) error {
	data, err := json.MarshalIndent(k, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(keptFile(dir, name), append(data, '\n'), 0o644)
}

func kept(dir, name string) (k keptResult, err error) {
	data, err := os.ReadFile(keptFile(dir, name))
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(data, &k)
}

const head = `# Benchmarks

This library (**ours**) beside the Python package that it replaces (**peer**: ligo-gracedb 2.16.1), beside what can be
done by hand with the engine below it (**bare**: franz-go and net/http, compressing with zstd as the peer does;
**bare-none**: the same without compression), beside the **floor**, the round trips and copies that nobody can save, and
in some sections beside **before**, this library as another commit has it (a94b379 wrote through franz-go's own producer).

`

const method = `## How it is measured

All do the same work in one run on one machine, in turn, so that whatever else the machine does meets all of them:
**compare the ratios, not the times**. Where three numbers stand together they are the least, the **median** and the 99th
percentile; ratios are of medians. The broker is Apache Kafka 4.3.1 over TLS with OAUTHBEARER, one node, the JVM with its
defaults. GraceDB is a stand-in that speaks HTTPS and does nothing slowly. All are on the loopback interface, which hides
round trips, unless a section says otherwise.

This file is written by one command: ` + "`cd internal/bench && go run .`" + ` (about 20 minutes; -only and -quick do less).
Why something has missed its target, with profiles: [internal/bench/profiles](internal/bench/profiles/README.md).

`

// A report is where the results are written to, and the directory where they are kept.
type report struct{ out, charts, profiles, kept string }

// write writes the file, the charts and the profiles from what is kept, whoever measured it.
func (r *report) write() error {
	var targets, body strings.Builder
	var machines []string
	if err := r.clear(); err != nil {
		return err
	}
	for i := range sections {
		s := &sections[i]
		k, err := kept(r.kept, s.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // never measured here
		}
		if err == nil {
			err = errors.Join(r.targets(&targets, s, &k), r.section(&body, s, &k))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		machines = append(machines, k.stamp())
	}
	var b strings.Builder
	b.WriteString(head)
	b.WriteString(flow(strings.Join(slices.Compact(machines), "\n\n")) + "\n")
	b.WriteString("\n## Targets\n\nA target names what ours is held against and by how much: \"peer ÷ 5\" is at most a fifth of the peer.\n\n")
	b.WriteString(targets.String() + method)
	b.WriteString(strings.TrimRight(body.String(), "\n") + "\n")
	return os.WriteFile(r.out, []byte(b.String()), 0o644)
}

// clear makes the directories. Profiles of before go: what they are of may have met its
// target since.
func (r *report) clear() error {
	if err := errors.Join(os.MkdirAll(r.charts, 0o755), os.MkdirAll(r.profiles, 0o755)); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(r.profiles, "*.txt"))
	for _, name := range old {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// targets writes what became of a section's targets, and its first chart.
func (r *report) targets(b *strings.Builder, s *section, k *keptResult) error {
	t := table{Head: []string{"what", "target", "ratio or value", "met"}}
	for _, f := range k.Figures {
		for _, target := range f.Targets {
			t.row(f.What, target.Text, target.Got, yes(target.Met))
		}
	}
	if len(t.Rows) == 0 {
		return nil
	}
	fmt.Fprintf(b, "**[%s](#%s)**\n\n", s.title, anchor(s.title))
	t.markdown(b)
	if len(k.Charts) == 0 {
		k.Charts = append(k.Charts, k.overview(s))
	}
	err := r.chart(b, &k.Charts[0])
	k.Charts = k.Charts[1:] // the section shows the others
	return err
}

// overview is a chart of what has a target, for a section that has none of its own.
func (k *keptResult) overview(s *section) chart {
	c := chart{Name: "targets-" + s.name, Title: s.title, Y: "times as much as ours (median)"}
	values := make(map[string][]float64)
	measured := make(map[string]bool)
	for _, f := range k.Figures {
		if len(f.Targets) == 0 {
			continue
		}
		c.Groups = append(c.Groups, narrow(f.What))
		for _, who := range append([]string{ours}, others()...) {
			ratio := 0.0
			if _, ok := f.By[who]; ok {
				ratio, measured[who] = f.ratio(who, ours), true
			}
			values[who] = append(values[who], ratio)
		}
	}
	for _, who := range append([]string{ours}, others()...) {
		if measured[who] {
			c.Series = append(c.Series, series{Name: who, Y: values[who]})
		}
	}
	return c
}

func (k *keptResult) stamp() string {
	quick := ""
	if k.Quick {
		quick = " A quick run: too short for its numbers to mean anything."
	}
	return fmt.Sprintf("%s, %s.%s", k.When.UTC().Format(time.DateOnly), k.Machine, quick)
}

// section writes a section but for the chart that stands with its targets.
func (r *report) section(b *strings.Builder, s *section, k *keptResult) error {
	fmt.Fprintf(b, "## %s\n\n", s.title)
	if k.Text != "" {
		b.WriteString(flow(k.Text) + "\n\n")
	}
	k.tables(b)
	for i := range k.Charts {
		if err := r.chart(b, &k.Charts[i]); err != nil {
			return err
		}
	}
	if k.After != "" {
		b.WriteString(flow(k.After) + "\n\n")
	}
	return r.explain(b, s, k)
}

// tables writes all tables of a result.
func (r *result) tables(b *strings.Builder) {
	if len(r.Figures) > 0 {
		measured, compared := figureTables(r.Figures)
		measured.markdown(b)
		compared.markdown(b)
	}
	for _, t := range r.Tables {
		t.markdown(b)
	}
}

// chart draws a chart, unless another program has, and writes the link to it.
func (r *report) chart(b *strings.Builder, c *chart) error {
	if !c.Drawn {
		if err := c.draw(r.charts); err != nil {
			return err
		}
	}
	link, err := r.link(filepath.Join(r.charts, c.Name+".svg"))
	fmt.Fprintf(b, "![%s](%s)\n\n", c.Title, link)
	return err
}

// explain writes the profiles of what has missed its target, and the links to them.
func (r *report) explain(b *strings.Builder, s *section, k *keptResult) error {
	if len(k.Profiles) == 0 {
		return nil
	}
	b.WriteString("Where ours spends the processor's time while it does again and again what has missed its target:\n\n")
	for _, p := range k.Profiles {
		file := filepath.Join(r.profiles, s.name+"-"+anchor(p.What)+".txt")
		if err := os.WriteFile(file, []byte(p.Top), 0o644); err != nil {
			return err
		}
		link, err := r.link(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "- [%s](%s)\n", p.What, link)
	}
	b.WriteString("\n")
	return nil
}

// link is how the file names another.
func (r *report) link(file string) (string, error) {
	link, err := relative(filepath.Dir(r.out), file)
	return filepath.ToSlash(link), err
}

// relative is filepath.Rel also for paths that begin at the working directory.
func relative(base, path string) (string, error) {
	base, err := filepath.Abs(base)
	if err != nil {
		return "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	return filepath.Rel(base, path)
}

// anchor is where a heading of a Markdown file can be linked to.
func anchor(title string) string {
	keep := func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return -1
	}
	return strings.Map(keep, strings.ToLower(title))
}

func yes(met bool) string {
	if met {
		return "yes"
	}
	return "**no**"
}
