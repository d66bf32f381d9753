package main

import (
	"context"
	"time"

	"github.com/gracedb-go/gracedb"
)

// A library is this library, as its users have it.
type library struct {
	place
	client   *gracedb.Client
	producer *gracedb.Producer
}

func (l *library) cluster() gracedb.Cluster {
	return gracedb.Cluster{Brokers: []string{l.Brokers}, Instance: l.Instance, CAFile: l.CAFile}
}

func (l *library) open(ctx context.Context) (err error) {
	l.client, err = gracedb.NewClient(gracedb.ClientConfig{ServiceURL: l.ServiceURL, CAFile: l.CAFile})
	if err == nil {
		l.producer, err = gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: l.cluster()})
	}
	return err
}

func (l *library) ping(ctx context.Context) error {
	_, err := l.producer.Ping(ctx, "test")
	return err
}

func (l *library) publish(ctx context.Context, e event) (s steps, err error) {
	start := time.Now()
	r, err := l.client.PublishEvent(ctx, l.producer, gracedb.Event{
		Group: "CBC", Pipeline: e.pipeline, Search: "AllSky", Filename: "coinc.xml", Data: e.data,
	}, gracedb.PublishOptions{})
	s.Total = time.Since(start).Seconds()
	s.Reserve, s.Publish = r.Timing.Reserve.Seconds(), r.Timing.Publish.Seconds()
	s.Encode = s.Total - s.Reserve - s.Publish
	return s, err
}

func (l *library) sync(ctx context.Context, topic string, key, value []byte) error {
	_, err := l.producer.ProduceSync(ctx, gracedb.Message{Topic: topic, Key: key, Value: value})
	return err
}

func (l *library) queue(ctx context.Context, topic string, key, value []byte) error {
	return l.producer.Produce(ctx, gracedb.Message{Topic: topic, Key: key, Value: value}, nil)
}

func (l *library) queueJSON(ctx context.Context, topic string, v any) error {
	m, err := gracedb.JSONMessage(topic, v)
	if err != nil {
		return err
	}
	return l.producer.Produce(ctx, m, nil)
}

func (l *library) flush(ctx context.Context) error { return l.producer.Flush(ctx) }

func (l *library) receive(ctx context.Context, from source, opened func(), each func([]byte, func() ([]byte, error)) (bool, error)) error {
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
		Cluster: l.cluster(), Topics: from.topics, GroupID: from.group, FromBeginning: from.earliest,
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	opened()
	for m, err := range c.Stream(ctx) {
		if err != nil {
			return err
		}
		more, err := each(m.Value, func() ([]byte, error) {
			u, err := m.Upload()
			return u.Data, err
		})
		if !more || err != nil {
			return err
		}
	}
	return ctx.Err()
}
