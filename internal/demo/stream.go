package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gracedb-go/gracedb"
)

// stream is the command of that name.
func stream(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var from connection
	fs := flag.NewFlagSet("stream", flag.ContinueOnError)
	from.register(fs)
	beginning := fs.Bool("from-beginning", false, "start with the oldest message, not the next")
	if err := parse(fs, args, stdout, "demo stream [flags] topic…    follows topics until Ctrl-C"); err != nil {
		return err
	}
	if err := from.check(); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return badUsage("stream: name a topic at least, such as test, behind the flags")
	}
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
		Cluster: from.services(stderr).cluster, Topics: fs.Args(), FromBeginning: *beginning,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop
		}
		return err
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()

	const format = "%-12s  %-24s %4s %8s %9s  %s\n"
	if _, err := fmt.Fprintf(stdout, format, "time", "topic", "part", "offset", "bytes", "message"); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	for m, err := range consumer.Stream(ctx) {
		if err != nil {
			return err
		}
		_, err := fmt.Fprintf(stdout, format, m.Time.Format("15:04:05.000"), m.Topic, number(m.Partition), number(m.Offset),
			number(len(m.Value)), describe(m))
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	return nil
}

// describe says what m is.
func describe(m gracedb.Message) string {
	u, err := m.Upload()
	if err == nil {
		return fmt.Sprintf("%-8s %s %s, %d bytes", plain(u.GraceID), plain(u.Pipeline), plain(u.Filename), len(u.Data))
	}
	if !errors.Is(err, gracedb.ErrNotUpload) {
		return err.Error()
	}
	var other struct{ Type, Client string }
	if err := m.Decode(&other); err != nil {
		return err.Error()
	}
	return plain(other.Type) + " from " + plain(other.Client)
}

// plain makes s, which anybody may have written, fit for a terminal.
func plain(s string) string {
	const most = 60
	if len(s) > most || s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%.*q", most, s)
	}
	return s
}
