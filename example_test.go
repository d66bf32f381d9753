package gracedb_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gracedb-go/gracedb"
)

// An event goes from a file through a reserved graceid and Kafka to a consumer.
func Example() {
	services, err := startServices() // in a program: real brokers, a real GraceDB, and FindToken
	if err != nil {
		log.Fatal(err)
	}
	defer services.stop()

	run := func(ctx context.Context) (err error) {
		cluster := gracedb.Cluster{
			Brokers:    services.brokers,
			ServiceURL: services.serviceURL,
			CAFile:     services.caFile,
			Token:      services.token,
		}
		consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"gstlal"}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, consumer.Close()) }()

		client, err := gracedb.NewClient(gracedb.ClientConfig{
			ServiceURL: services.serviceURL, CAFile: services.caFile, Token: services.token,
		})
		if err != nil {
			return err
		}
		producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: gracedb.Cluster{
			Brokers: services.brokers, CAFile: services.caFile,
		}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, producer.Close()) }()

		data, err := os.ReadFile("testdata/events/coinc.xml")
		if err != nil {
			return err
		}
		receipt, err := client.PublishEvent(ctx, producer, gracedb.Event{
			Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc.xml", Data: data,
		}, gracedb.PublishOptions{HTTPFallback: true})
		if err != nil {
			return err
		}
		fmt.Println("published", receipt.GraceID, "to", receipt.Message.Topic)
		for _, warning := range receipt.Warnings { // if it went over HTTP
			fmt.Println("GraceDB warns:", warning)
		}

		for message, err := range consumer.Stream(ctx) {
			if err != nil {
				return err
			}
			upload, err := message.Upload()
			if err != nil {
				return err
			}
			fmt.Println("received", upload.GraceID, upload.Filename, len(upload.Data) == len(data))
			break
		}
		return nil
	}
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// published G1001 to localhost.gstlal
	// received G1001 coinc.xml true
}

// A program that follows topics until it is told to stop.
func ExampleConsumer_Stream() {
	services, err := startServices()
	if err != nil {
		log.Fatal(err)
	}
	defer services.stop()

	run := func() (err error) {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		cluster := gracedb.Cluster{
			Brokers: services.brokers, Instance: "localhost", CAFile: services.caFile, Token: services.token,
		}
		consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
			Cluster: cluster, Topics: []string{"test"}, GroupID: "my-broker",
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, consumer.Close()) }()

		producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, producer.Close()) }()
		if _, err := producer.Ping(ctx, ""); err != nil {
			return err
		}

		for message, err := range consumer.Stream(ctx) {
			if err != nil {
				return err // refused token, topic gone, messages lost: ranging again resumes
			}
			upload, err := message.Upload()
			if errors.Is(err, gracedb.ErrNotUpload) {
				fmt.Println("a ping on", message.Topic)
				stop() // as Ctrl-C does
				continue
			}
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Println(upload.GraceID, upload.Pipeline)
		}
		return nil
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
	// Output: a ping on localhost.test
}

// An error after the reservation holds the graceid, so that the event can be
// finished later, over either way.
func ExampleClient_PublishEvent() {
	services, err := startServices()
	if err != nil {
		log.Fatal(err)
	}
	defer services.stop()

	ctx := context.Background()
	client, err := gracedb.NewClient(gracedb.ClientConfig{
		ServiceURL: services.serviceURL, CAFile: services.caFile, Token: services.token,
	})
	if err != nil {
		log.Fatal(err)
	}
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{
		Cluster: gracedb.Cluster{Brokers: services.brokers, CAFile: services.caFile},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := producer.Close(); err != nil {
			log.Print(err)
		}
	}()

	event := gracedb.Event{Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>")}
	receipt, err := client.PublishEvent(ctx, producer, event, gracedb.PublishOptions{})
	if reserved, ok := errors.AsType[*gracedb.ReservedError](err); ok {
		receipt, err = client.UploadReservedEvent(ctx, reserved.Reservation.GraceID, event, gracedb.Provenance{})
	}
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(receipt.GraceID, receipt.Warnings) // "No alert issued" is a warning, not an error
	// Output: T1001 []
}

// Tokens are found where IGWN tools keep them, and looked for again five minutes
// before they expire.
func ExampleReloadToken() {
	source := gracedb.ReloadToken(gracedb.FindToken(gracedb.TokenQuery{
		Audience: []string{"https://gracedb-test.ligo.org"},
		Scopes:   []string{"gracedb.read"},
	}), 5*time.Minute)
	client, err := gracedb.NewClient(gracedb.ClientConfig{
		ServiceURL: "https://gracedb-test.ligo.org/api/", Token: source,
	})
	fmt.Println(client != nil, err)
	// Output: true <nil>
}

// JSON of one's own travels the same way.
func ExampleJSONMessage() {
	message, err := gracedb.JSONMessage("test", map[string]any{"type": "heartbeat", "seq": 7})
	if err != nil {
		log.Fatal(err)
	}
	var v struct {
		Type string
		Seq  int
	}
	if err := message.Decode(&v); err != nil {
		log.Fatal(err)
	}
	fmt.Println(message.Topic, v.Type, v.Seq)
	// Output: test heartbeat 7
}

// A group goes back to a time, to do again what was done since. It begins there, too, if the
// program ends and is started anew.
func ExampleConsumer_Seek() {
	services, err := startServices()
	if err != nil {
		log.Fatal(err)
	}
	defer services.stop()

	run := func(ctx context.Context) (err error) {
		cluster := gracedb.Cluster{
			Brokers: services.brokers, Instance: "localhost", CAFile: services.caFile, Token: services.token,
		}
		consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
			Cluster: cluster, Topics: []string{"test"}, GroupID: "my-follow-up",
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, consumer.Close()) }()
		producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, producer.Close()) }()

		began := time.Now().Truncate(time.Hour)
		for i := range 3 {
			m := gracedb.Message{Topic: "test", Value: fmt.Append(nil, "message ", i), Time: began.Add(time.Duration(i) * time.Minute)}
			if _, err := producer.ProduceSync(ctx, m); err != nil {
				return err
			}
			if _, err := consumer.Poll(ctx); err != nil {
				return err
			}
		}

		if err := consumer.Seek(ctx, began.Add(time.Minute)); err != nil {
			return err
		}
		for range 2 {
			message, err := consumer.Poll(ctx)
			if err != nil {
				return err
			}
			fmt.Println(string(message.Value))
		}
		return nil
	}
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// message 1
	// message 2
}

// How many messages are still to be read, for a program's own metrics.
func ExampleConsumer_Lag() {
	services, err := startServices()
	if err != nil {
		log.Fatal(err)
	}
	defer services.stop()

	run := func(ctx context.Context) (err error) {
		cluster := gracedb.Cluster{
			Brokers: services.brokers, Instance: "localhost", CAFile: services.caFile, Token: services.token,
		}
		consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, consumer.Close()) }()
		producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, producer.Close()) }()
		for range 2 {
			if _, err := producer.Ping(ctx, ""); err != nil {
				return err
			}
		}
		if _, err := consumer.Poll(ctx); err != nil {
			return err
		}

		lags, err := consumer.Lag(ctx) // may be called by another goroutine
		if err != nil {
			return err
		}
		for _, l := range lags {
			if l.Position < 0 || l.End < 0 {
				continue // not known yet, or no broker leads the partition
			}
			fmt.Println(l.Topic, l.Partition, "behind by", l.End-l.Position)
		}
		return nil
	}
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: localhost.test 0 behind by 1
}
