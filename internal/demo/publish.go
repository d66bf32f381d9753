package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/samples"
)

// publish is the command without a name.
func publish(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var to connection
	var like gracedb.Event // what the files are submitted as
	var topic string
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	to.register(fs)
	fs.StringVar(&topic, "topic", "test", "`topic` for the files")
	fs.StringVar(&like.Group, "group", "Test", "`group` that the files are submitted to")
	fs.StringVar(&like.Pipeline, "pipeline", "gstlal", "`pipeline` that the files are from")
	fs.StringVar(&like.Search, "search", "", "`search` that the files are from")
	err := parse(fs, args, stdout, "demo [flags] [file…]    without -brokers, on an embedded broker and GraceDB; without files, sample events\n"+
		"       demo stream [flags] topic…\n       demo serve [flags]")
	if err != nil {
		return err
	}
	d := &demonstration{report: report{w: stdout}, topic: topic, topics: []string{topic}}
	if d.events, err = readEvents(fs.Args(), like); err != nil {
		return err
	}
	if len(d.events) == 0 {
		d.events, d.topic, d.topics = sampleEvents(), "", pipelines
	}
	if to == (connection{}) {
		return d.runEmbedded(ctx)
	}
	if err := to.check(); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return badUsage("no file is named to publish to %s", to.service)
	}
	d.to = to.services(stderr)
	return d.run(ctx)
}

func readEvents(files []string, like gracedb.Event) ([]gracedb.Event, error) {
	var events []gracedb.Event
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("demo: %w", err)
		}
		e := like
		e.Filename, e.Data = filepath.Base(name), data
		events = append(events, e)
	}
	return events, nil
}

func sampleEvents() []gracedb.Event {
	var events []gracedb.Event
	for _, s := range append(samples.Events(), samples.LargeEvents()...) {
		events = append(events, gracedb.Event{
			Group: s.Group, Pipeline: s.Pipeline, Search: s.Search, Filename: s.Filename, Data: s.Data,
		})
	}
	return events
}
