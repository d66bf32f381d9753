package gracedb_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gracedb-go/gracedb"
)

// More programs to paste: those that consume.

// A program that follows several topics until it is told to stop, by Ctrl-C or as services
// are. Here it pings a topic, and stops when it has seen that.
func ExampleConsumer_Stream() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cluster := gracedb.Cluster{
		Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE"), Logger: slog.Default(),
	}
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
		Cluster: cluster, Topics: []string{"test", "gstlal", "pycbc"}, // Subscribe adds more
	})
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Close()

	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	if _, err := producer.Ping(ctx, "pycbc"); err != nil {
		log.Fatal(err)
	}

	for message, err := range consumer.Stream(ctx) {
		if err != nil {
			log.Print(err) // a refused token, a topic that is gone, messages that are lost: ranging again goes on
			return
		}
		upload, err := message.Upload()
		switch {
		case errors.Is(err, gracedb.ErrNotUpload):
			fmt.Println("a ping on", message.Topic)
			stop() // as a signal does; the loop ends without an error
		case err != nil:
			log.Print(err) // a damaged message: the next may be good
		default:
			fmt.Println(upload.GraceID, "from", upload.Pipeline)
		}
	}
	// Output: a ping on localhost.pycbc
}

// In a group the position survives the program. Commit after a message is handled, and a
// program that is killed receives at most that one again.
func ExampleConsumer_Commit() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")}
	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	for _, value := range []string{"first", "second"} {
		if _, err := producer.ProduceSync(ctx, gracedb.Message{Value: []byte(value)}); err != nil {
			log.Fatal(err)
		}
	}

	for range 2 { // a program that is started twice
		consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
			Cluster: cluster, Topics: []string{"test"}, GroupID: "example",
			FromBeginning: true, // where the group has no position yet
		})
		if err != nil {
			log.Fatal(err)
		}
		message, err := consumer.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s at offset %d\n", message.Value, message.Offset) // here it is handled
		if err := consumer.Commit(ctx); err != nil {
			log.Fatal(err)
		}
		if err := consumer.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// first at offset 0
	// second at offset 1
}

// A group goes back to a time, to do again what was done since. It begins there, too, if the
// program ends and is started anew.
func ExampleConsumer_Seek() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")}
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
		Cluster: cluster, Topics: []string{"test"}, GroupID: "my-follow-up",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Close()
	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()

	began := time.Now().Truncate(time.Hour)
	for i := range 3 {
		m := gracedb.Message{Value: fmt.Append(nil, "message ", i), Time: began.Add(time.Duration(i) * time.Minute)}
		if _, err := producer.ProduceSync(ctx, m); err != nil {
			log.Fatal(err)
		}
		if _, err := consumer.Poll(ctx); err != nil {
			log.Fatal(err)
		}
	}

	if err := consumer.Seek(ctx, began.Add(time.Minute)); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		message, err := consumer.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(message.Value))
	}
	// Output:
	// message 1
	// message 2
}

// Since replays what several topics have received in the last hour, and reads on from there.
func ExampleNewConsumer_since() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")}
	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	for _, topic := range []string{"gstlal", "pycbc"} {
		if _, err := producer.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: []byte("a candidate")}); err != nil {
			log.Fatal(err)
		}
	}

	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
		Cluster: cluster, Topics: []string{"gstlal", "pycbc"}, Since: time.Now().Add(-time.Hour),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Close()
	for range 2 {
		message, err := consumer.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(message.Topic, string(message.Value))
	}
	// Unordered output:
	// localhost.gstlal a candidate
	// localhost.pycbc a candidate
}

// How many messages are still to be read, for a program's own metrics.
func ExampleConsumer_Lag() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")}
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Close()
	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	for range 2 {
		if _, err := producer.Ping(ctx, ""); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := consumer.Poll(ctx); err != nil {
		log.Fatal(err)
	}

	lags, err := consumer.Lag(ctx) // may be called by another goroutine
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range lags {
		if l.Position < 0 || l.End < 0 {
			continue // not known yet, or no broker leads the partition
		}
		fmt.Println(l.Topic, l.Partition, "behind by", l.End-l.Position)
	}
	// Output: localhost.test 0 behind by 1
}

// Each event is saved once, also where it comes twice.
func ExampleUpload_Save() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")}
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Close()
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: os.Getenv("TEST_SERVICE")})
	if err != nil {
		log.Fatal(err)
	}
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	event := gracedb.Event{Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>")}
	if _, err := client.PublishEvent(ctx, producer, event, gracedb.PublishOptions{}); err != nil {
		log.Fatal(err)
	}

	message, err := consumer.Poll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	upload, err := message.Upload()
	if err != nil {
		log.Fatal(err) // not an event, or damaged
	}
	for range 2 { // twice is harmless
		path, err := upload.Save(".")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(upload.ID(), "is in", path)
	}
	// Output:
	// T1001 is in T1001-coinc.xml
	// T1001 is in T1001-coinc.xml
}
