package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
done by hand with the engine below it (**bare**: franz-go and net/http, compressing with zstd as the peer does; **bare,
no codec**: the same without compression), and beside the **floor**: the round trips and copies that nobody can save.
Some sections hold ours against **before**, which is this library as another commit has it (-before): a94b379 wrote
through franz-go's own producer. All do the same work in one run on one machine, in turn, so that whatever else the machine does meets all of them:
**compare the ratios, not the times**. Where three numbers stand together they are the least, the **median** and the 99th
percentile. The broker is Apache Kafka 4.3.1 over TLS with OAUTHBEARER, one node, the JVM with its defaults; GraceDB is a
stand-in that speaks HTTPS and does nothing slowly; all on the loopback interface, which hides round trips, unless a
section says otherwise.

This file is written by one command: ` + "`cd internal/bench && go run .`" + ` (about 20 minutes; -only and -quick do less).

`

// writeReport writes the file and the charts from what is kept, whoever measured it.
func writeReport(out, charts, dir string) error {
	var body, overview strings.Builder
	var machines []string
	for _, s := range sections {
		k, err := kept(dir, s.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // never measured here
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := k.markdown(&body, &s, out, charts); err != nil {
			return err
		}
		for _, f := range k.Figures {
			for _, t := range f.Targets {
				fmt.Fprintf(&overview, "| [%s](#%s) | %s | %s | %s | %s |\n", s.title, anchor(s.title), f.What, t.Text, t.Got, yes(t.Met))
			}
		}
		machines = append(machines, k.stamp())
	}
	var b strings.Builder
	b.WriteString(head)
	for i, m := range machines {
		if i == 0 || m != machines[i-1] {
			b.WriteString(m)
		}
	}
	b.WriteString("\n## Targets\n\nA target names what ours is held against and by how much: \"peer ÷ 5\" is at most a fifth of the peer.\n\n" +
		"| section | what | target | ratio or value | met |\n| --- | --- | --- | --- | --- |\n")
	b.WriteString(overview.String())
	b.WriteString("\n")
	b.WriteString(strings.TrimRight(body.String(), "\n") + "\n")
	return os.WriteFile(out, []byte(b.String()), 0o644)
}

func (k *keptResult) stamp() string {
	quick := ""
	if k.Quick {
		quick = " A quick run: too short for its numbers to mean anything."
	}
	return fmt.Sprintf("- %s, %s.%s\n", k.When.UTC().Format(time.DateOnly), k.Machine, quick)
}

func (k *keptResult) markdown(b *strings.Builder, s *section, out, charts string) error {
	fmt.Fprintf(b, "## %s\n\n", s.title)
	if k.Text != "" {
		fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(k.Text))
	}
	if len(k.Figures) > 0 {
		t := figureTable(k.Figures)
		t.markdown(b)
	}
	for _, t := range k.Tables {
		t.markdown(b)
	}
	if len(k.Charts) > 0 {
		if err := os.MkdirAll(charts, 0o755); err != nil {
			return err
		}
	}
	for _, c := range k.Charts {
		if !c.Drawn {
			if err := c.draw(charts); err != nil {
				return err
			}
		}
		link, err := relative(filepath.Dir(out), filepath.Join(charts, c.Name+".svg"))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "![%s](%s)\n\n", c.Title, filepath.ToSlash(link))
	}
	if k.After != "" {
		fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(k.After))
	}
	return nil
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
