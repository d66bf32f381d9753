// Publish sends a file as a test event: publish [-service URL] [-broker HOST:PORT] FILE
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/gracedb-go/gracedb"
)

func main() {
	service := flag.String("service", "https://gracedb-test.ligo.org/api/", "`URL` of GraceDB")
	broker := flag.String("broker", "kafka-dev.ligo.org:9092", "`address` of a Kafka broker")
	flag.Parse()
	if err := publish(*service, *broker, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func publish(service, broker, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: service, Logger: slog.Default()})
	if err != nil {
		return err
	}
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{
		Cluster: gracedb.Cluster{Brokers: []string{broker}, Logger: slog.Default()},
	})
	if err != nil {
		log.Print(err) // a dead token, a wrong instance or an unreachable broker shows here
	} else {
		defer producer.Close()
	}
	// With HTTPFallback the event goes over HTTP where Kafka does not take it, or was not there.
	receipt, err := client.PublishEvent(ctx, producer, gracedb.Event{
		Group: "Test", Pipeline: "gstlal", Search: "AllSky", Filename: file, Data: data,
	}, gracedb.PublishOptions{HTTPFallback: true})
	if err != nil {
		return err
	}
	for _, warning := range receipt.Warnings {
		log.Print(warning) // GraceDB has the event, but could not read it, or sends no alert
	}
	if receipt.Fallback != nil {
		fmt.Printf("%s over HTTP: %v\n", receipt.GraceID, receipt.Fallback)
		return nil
	}
	fmt.Printf("%s over Kafka: topic %s, offset %d\n", receipt.GraceID, receipt.Message.Topic, receipt.Message.Offset)
	return nil
}
