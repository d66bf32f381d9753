package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gracedb-go/gracedb"
)

// A demonstration publishes events and receives them again.
type demonstration struct {
	report
	to       services
	embedded *embedded // what those are, unless they are real

	events []gracedb.Event
	topic  string   // of the events; if empty, the library chooses
	topics []string // to receive from
	flush  time.Duration

	client   *gracedb.Client
	producer *gracedb.Producer
	arrivals <-chan arrival
	started  map[string]time.Time // when PublishEvent was called, by graceid
}

// runEmbedded runs with a broker and a GraceDB of its own, and in the end takes the
// broker away.
func (d *demonstration) runEmbedded(ctx context.Context) (err error) {
	start := time.Now()
	if d.embedded, err = startEmbedded(ctx, embeddedConfig{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.embedded.close()) }()
	d.say("Kafka broker    %s (embedded: TLS, OAUTHBEARER, %d topics)", d.embedded.kafka.Addrs()[0], len(pipelines))
	d.say("GraceDB         %s (embedded, with its supervisor), both up in %s ms", d.embedded.url, millis(time.Since(start)))
	d.to, d.flush = d.embedded.services(), 2*time.Second // an event of 800 kB has to fit on a busy machine
	if err := d.run(ctx); err != nil {
		return err
	}
	return d.err
}

// run publishes and receives all events.
func (d *demonstration) run(ctx context.Context) (err error) {
	if d.client, err = gracedb.NewClient(d.to.client); err != nil {
		return err
	}
	start := time.Now()
	info, err := d.client.ServiceInfo(ctx)
	if err != nil {
		return err
	}
	d.say("REST client     GraceDB %s knows %d pipelines; asked in %s ms", info.ServerVersion, len(info.Pipelines), millis(time.Since(start)))

	start = time.Now()
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: d.to.cluster, Topics: d.topics})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()
	d.say("Kafka consumer  in position in %s ms", millis(time.Since(start)))

	start = time.Now()
	d.producer, err = d.client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: d.to.cluster, Topic: d.topic, FlushTimeout: d.flush})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.producer.Close()) }()
	d.say("Kafka producer  connected and warm in %s ms", millis(time.Since(start)))

	arrivals, stop := follow(ctx, consumer)
	defer stop()
	d.arrivals, d.started = arrivals, make(map[string]time.Time)
	return d.publishAll(ctx)
}

func (d *demonstration) publishAll(ctx context.Context) error {
	instance, err := gracedb.DeriveInstanceName(d.to.client.ServiceURL)
	if err != nil {
		return err
	}
	var names []string
	for _, topic := range d.topics {
		names = append(names, gracedb.MakeTopicName(instance, topic))
	}
	if err := d.header(names); err != nil {
		return err
	}
	for _, e := range d.events {
		if err := d.publish(ctx, e); err != nil {
			return err
		}
	}
	if d.embedded == nil {
		return d.err
	}
	if err := d.fallBack(ctx); err != nil {
		return err
	}
	d.say("\nGraceDB has all %d events, byte for byte as published.", len(d.embedded.gracedb.Events()))
	return d.err
}

// publish does one event, until it is where it belongs.
func (d *demonstration) publish(ctx context.Context, e gracedb.Event) error {
	start := time.Now()
	receipt, err := d.client.PublishEvent(ctx, d.producer, e, gracedb.PublishOptions{Topic: d.topic, HTTPFallback: true})
	if err != nil {
		return err
	}
	total := time.Since(start)
	m, t := receipt.Message, receipt.Timing
	r := row{
		step: "published", graceID: receipt.GraceID, topic: m.Topic, partition: number(m.Partition), offset: number(m.Offset),
		file: number(len(e.Data)), reserve: millis(t.Reserve), encode: millis(t.Encode), publish: millis(t.Publish), total: millis(total),
		note: e.Filename,
	}
	if receipt.Fallback != nil {
		r.step, r.topic, r.partition, r.offset = "fallback", "", "", ""
		r.note += " over HTTP in " + millis(t.Upload) + " ms"
	}
	if err := d.row(r); err != nil {
		return err
	}
	d.started[receipt.GraceID] = start
	if receipt.Fallback == nil {
		return d.receive(ctx, e, receipt.GraceID)
	}
	d.say("          because: %v", receipt.Fallback)
	for _, warning := range receipt.Warnings {
		d.say("          GraceDB warns: %s", warning)
	}
	if d.embedded == nil {
		return d.err
	}
	return d.embedded.check(receipt.GraceID, e.Data)
}

// arrivalTimeout is how long an acknowledged event is waited for.
const arrivalTimeout = 20 * time.Second

// receive waits for an event that was published.
func (d *demonstration) receive(ctx context.Context, e gracedb.Event, graceID string) error {
	wait, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	for arrived := ""; arrived != graceID; {
		select {
		case a := <-d.arrivals:
			if a.err != nil {
				return a.err
			}
			if arrived = a.upload.GraceID; arrived == graceID && !bytes.Equal(a.upload.Data, e.Data) {
				return fmt.Errorf("demo: %s has arrived with other data than were published", graceID)
			}
			if err := d.arrived(a, arrived != graceID); err != nil {
				return err
			}
		case <-wait.Done():
			return fmt.Errorf("demo: %s was acknowledged and has not been received: %w", graceID, wait.Err())
		}
	}
	if d.embedded == nil {
		return nil
	}
	if err := d.embedded.awaitUpload(ctx, graceID, e.Data); err != nil {
		return err
	}
	return d.row(row{
		step: "completed", graceID: graceID, file: number(len(e.Data)), total: millis(time.Since(d.started[graceID])),
		note: "in GraceDB, by its supervisor",
	})
}

// arrived tells of an arrival, unless it is somebody else's. One that is late was
// not waited for, since its outcome was unknown.
func (d *demonstration) arrived(a arrival, late bool) error {
	start, ours := d.started[a.upload.GraceID]
	if !ours {
		return nil
	}
	m, note := a.message, a.upload.Filename
	if late {
		note += ", by Kafka after all"
	}
	return d.row(row{
		step: "received", graceID: a.upload.GraceID, topic: m.Topic, partition: number(m.Partition), offset: number(m.Offset),
		file: number(len(a.upload.Data)), message: number(len(m.Value)), total: millis(a.at.Sub(start)), note: note,
	})
}

// fallBack shows what becomes of an event while the broker is away, and of the
// next when it is back. The first could not be withdrawn from Kafka, unless it is
// said to be gracedb.ErrDelivery, and arrives there too: the supervisor sees that
// its graceid has the event already.
func (d *demonstration) fallBack(ctx context.Context) error {
	kafka, e := d.embedded.kafka, d.events[0]
	d.say("\nThe broker is killed: Kafka is given %v, then HTTP takes over with the same graceid.", d.flush)
	if err := kafka.Kill(0); err != nil {
		return err
	}
	if err := d.publish(ctx, e); err != nil {
		return err
	}
	d.say("\nThe broker is back.")
	if err := kafka.Restart(0); err != nil {
		return err
	}
	return d.publish(ctx, e)
}
