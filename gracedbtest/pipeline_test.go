package gracedbtest_test

import (
	"context"
	"testing"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/gracedbtest"
)

// publish stands for a pipeline: what a program does with the configurations that it is given.
func publish(ctx context.Context, client gracedb.ClientConfig, cluster gracedb.Cluster) (gracedb.Receipt, error) {
	c, err := gracedb.NewClient(client)
	if err != nil {
		return gracedb.Receipt{}, err
	}
	p, err := c.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster})
	if err == nil {
		defer func() { _ = p.Close() }()
	}
	return c.PublishEvent(ctx, p, gracedb.Event{
		Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>"),
	}, gracedb.PublishOptions{HTTPFallback: true})
}

// A test of a pipeline, as its author writes it.
func TestPipeline(t *testing.T) {
	s := gracedbtest.Start(t, gracedbtest.Config{})
	receipt, err := publish(t.Context(), s.Client(), s.Cluster())
	if sent := s.Messages("gstlal"); err != nil || len(sent) != 1 || string(sent[0].Key) != receipt.GraceID {
		t.Error(err, sent)
	}
}

// The same while the broker is away: the event goes over HTTP.
func TestPipelineFallsBack(t *testing.T) {
	s := gracedbtest.Start(t, gracedbtest.Config{})
	s.Inject(gracedbtest.BrokerAway)
	receipt, err := publish(t.Context(), s.Client(), s.Cluster())
	if events := s.Events(); err != nil || receipt.Fallback == nil || len(events) != 1 || events[0].Kafka {
		t.Error(err, receipt.Fallback, events)
	}
}
