// Trace publishes a file as a test event, tells of it on a topic, receives that again, and
// shows in OpenTelemetry's terms how it went:
//
//	trace [-service URL] [-broker HOST:PORT] FILE
//
// Spans and metrics are printed as JSON. To send them, put an exporter of
// go.opentelemetry.io/otel/exporters/otlp in the place of the two that print.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gracedb-go/gracedb"
)

func main() {
	service := flag.String("service", "https://gracedb-test.ligo.org/api/", "`URL` of GraceDB")
	broker := flag.String("broker", "kafka-dev.ligo.org:9092", "`address` of a Kafka broker")
	flag.Parse()
	if err := run(*service, *broker, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(service, broker, file string) (err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spans, err := stdouttrace.New(stdouttrace.WithPrettyPrint())
	if err != nil {
		return err
	}
	figures, err := stdoutmetric.New(stdoutmetric.WithPrettyPrint())
	if err != nil {
		return err
	}
	traces := sdk.NewTracerProvider(sdk.WithBatcher(spans))
	metrics := metric.NewMeterProvider(metric.WithReader(metric.NewPeriodicReader(figures)))
	defer func() { err = errors.Join(err, traces.Shutdown(ctx), metrics.Shutdown(ctx)) }()

	// The meter counts connections, bytes and errors by broker, of Producers and Consumers.
	// The tracer makes a span of each record that a Consumer fetches; a Producer calls none of
	// its hooks, so that what is published gets its span below.
	hooks := kotel.NewKotel(
		kotel.WithMeter(kotel.NewMeter(kotel.MeterProvider(metrics))),
		kotel.WithTracer(kotel.NewTracer(kotel.TracerProvider(traces), kotel.TracerPropagator(propagation.TraceContext{}))),
	).Hooks()
	cluster := gracedb.Cluster{
		Brokers: []string{broker}, ServiceURL: service, Logger: slog.Default(), Opts: []kgo.Opt{kgo.WithHooks(hooks...)},
	}
	tracer := traces.Tracer("example")
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: service, Logger: slog.Default()})
	if err != nil {
		return err
	}
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, producer.Close()) }()

	ctx, span := tracer.Start(ctx, "event")
	defer span.End()
	receipt, err := publish(ctx, tracer, client, producer, gracedb.Event{
		Group: "Test", Pipeline: "gstlal", Search: "AllSky", Filename: file, Data: data,
	})
	if err != nil {
		return err
	}
	if err := tell(ctx, tracer, producer, receipt.GraceID); err != nil {
		return err
	}
	return receive(ctx, consumer, receipt.GraceID)
}

// publish publishes an event in a span of its own.
func publish(ctx context.Context, tracer trace.Tracer, client *gracedb.Client, producer *gracedb.Producer, event gracedb.Event) (gracedb.Receipt, error) {
	ctx, span := tracer.Start(ctx, "PublishEvent", trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	receipt, err := client.PublishEvent(ctx, producer, event, gracedb.PublishOptions{HTTPFallback: true})
	span.SetAttributes(
		attribute.String("gracedb.graceid", receipt.GraceID),
		attribute.Int64("gracedb.reserve_us", receipt.Timing.Reserve.Microseconds()),
		attribute.Int64("gracedb.publish_us", receipt.Timing.Publish.Microseconds()),
		attribute.Int64("gracedb.upload_us", receipt.Timing.Upload.Microseconds()),
		attribute.Bool("gracedb.fallback", receipt.Fallback != nil),
	)
	if err != nil {
		span.SetStatus(codes.Error, err.Error()) // no error of this library shows a token
	}
	return receipt, err
}

// tell sends a message of its own, whose headers carry the trace. Messages of events have
// no headers.
func tell(ctx context.Context, tracer trace.Tracer, producer *gracedb.Producer, graceID string) error {
	ctx, span := tracer.Start(ctx, "tell", trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	message, err := gracedb.JSONMessage("", map[string]string{"type": "published", "graceid": graceID})
	if err != nil {
		return err
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	for key, value := range carrier {
		message.Headers = append(message.Headers, gracedb.Header{Key: key, Value: []byte(value)})
	}
	_, err = producer.ProduceSync(ctx, message)
	return err
}

// receive waits for what tell has sent.
func receive(ctx context.Context, consumer *gracedb.Consumer, graceID string) error {
	for {
		message, err := consumer.Poll(ctx)
		if err != nil {
			return err
		}
		var told struct {
			Type    string `json:"type"`
			GraceID string `json:"graceid"`
		}
		if message.Decode(&told) == nil && told.Type == "published" && told.GraceID == graceID {
			return nil
		}
	}
}
