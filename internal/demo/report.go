package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A report is what the reader sees, written as soon as there is something to say.
// Nothing is written after a failure to write, which row returns.
type report struct {
	w     io.Writer
	err   error
	topic int // width of its column
}

func (r *report) say(format string, args ...any) {
	if r.err == nil {
		if _, err := fmt.Fprintf(r.w, format+"\n", args...); err != nil {
			r.err = fmt.Errorf("demo: %w", err)
		}
	}
}

// A row is one step. What is empty does not apply.
type row struct {
	step, graceID, topic, partition, offset string
	file, message                           string // bytes
	reserve, encode, publish, total         string // milliseconds
	note                                    string
}

// header begins the table, for topics with the names given.
func (r *report) header(topics []string) error {
	for _, name := range topics {
		r.topic = max(r.topic, len(name))
	}
	r.say("\n%*s| %15s | %s", r.topic+32, "", "bytes", "milliseconds (total: since PublishEvent was called)")
	return r.row(row{"step", "graceid", "topic", "part", "offset", "file", "message", "reserve", "encode", "publish", "total", ""})
}

func (r *report) row(v row) error {
	line := fmt.Sprintf("%-9s %-8s %-*s %4s %6s | %7s %7s | %7s %7s %7s %7s  %s", v.step, v.graceID, r.topic, v.topic, v.partition,
		v.offset, v.file, v.message, v.reserve, v.encode, v.publish, v.total, v.note)
	r.say("%s", strings.TrimRight(line, " "))
	return r.err
}

func number[N int | int32 | int64](n N) string { return strconv.FormatInt(int64(n), 10) }

func millis(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000) }
