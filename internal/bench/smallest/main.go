// Command smallest is what a program has to have that publishes events and consumes
// them: it is built for its size, and not run.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/gracedb-go/gracedb"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: os.Args[1]})
	if err != nil {
		return err
	}
	cluster := gracedb.Cluster{Brokers: os.Args[2:], ServiceURL: os.Args[1]}
	p, err := client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster})
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"gstlal"}})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for m, err := range c.Stream(ctx) {
		if err != nil {
			return err
		}
		u, err := m.Upload()
		if err != nil {
			return err
		}
		if _, err := client.PublishEvent(ctx, p, u.Event(), gracedb.PublishOptions{HTTPFallback: true}); err != nil {
			return err
		}
	}
	return nil
}
