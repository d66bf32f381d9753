package main

import (
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxLine  = 160 // of a document
	proseEnd = 120 // where text is broken
)

// flow breaks the lines of Markdown text at proseEnd. Tables and blocks of code stay as they
// are.
func flow(text string) string {
	var out []string
	var words []string
	end := func() {
		line := ""
		for _, w := range words {
			if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > proseEnd {
				out = append(out, line)
				line = ""
			}
			line = strings.TrimPrefix(line+" "+w, " ")
		}
		if line != "" {
			out = append(out, line)
		}
		words = nil
	}
	code := false
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		fence := strings.HasPrefix(line, "```")
		if code || fence || line == "" || strings.HasPrefix(line, "|") {
			end()
			out = append(out, line)
			code = code != fence
			continue
		}
		words = append(words, strings.Fields(line)...)
	}
	end()
	return strings.Join(out, "\n")
}

// markdown writes the table, or more than one with the same first column, if its lines would
// be too long.
func (t *table) markdown(b *strings.Builder) {
	if t.Title != "" {
		b.WriteString(flow(t.Title) + "\n\n")
	}
	for from := 1; from < len(t.Head); {
		to := from + 1
		for to < len(t.Head) && t.width(from, to+1) <= maxLine {
			to++
		}
		t.columns(b, from, to)
		from = to
	}
}

// width is how long the longest line is, with the first column and those from from to to.
func (t *table) width(from, to int) int {
	longest := 0
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		longest = max(longest, utf8.RuneCountInString(tableLine(pick(row, from, to))))
	}
	return longest
}

// columns writes the first column and those from from to to.
func (t *table) columns(b *strings.Builder, from, to int) {
	line := func(cells []string) { b.WriteString(tableLine(cells) + "\n") }
	line(pick(t.Head, from, to))
	line(slices.Repeat([]string{"---"}, 1+to-from))
	for _, row := range t.Rows {
		line(pick(row, from, to))
	}
	b.WriteString("\n")
}

func pick(row []string, from, to int) []string { return slices.Concat(row[:1], row[from:to]) }

func tableLine(cells []string) string { return "| " + strings.Join(cells, " | ") + " |" }

// narrow breaks a label of a chart between words, so that it fits beside others.
func narrow(label string) string {
	const wide = 18
	line := 0
	words := strings.Fields(label)
	for i, w := range words {
		if n := utf8.RuneCountInString(w); i > 0 && line+1+n <= wide {
			words[i], line = " "+w, line+1+n
		} else {
			line = n
			if i > 0 {
				words[i] = "\n" + w
			}
		}
	}
	return strings.Join(words, "")
}
