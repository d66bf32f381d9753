// Consume prints the test events until Ctrl-C: consume [-service URL] [-broker HOST:PORT]
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/gracedb-go/gracedb"
)

func main() {
	service := flag.String("service", "https://gracedb-test.ligo.org/api/", "`URL` of GraceDB")
	broker := flag.String("broker", "kafka-dev.ligo.org:9092", "`address` of a Kafka broker")
	flag.Parse()
	if err := consume(*service, *broker); err != nil {
		log.Fatal(err)
	}
}

func consume(service, broker string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
		Cluster: gracedb.Cluster{Brokers: []string{broker}, ServiceURL: service, Logger: slog.Default()},
		Topics:  []string{"test"}, // and "gstlal", "pycbc", …; with a GroupID it goes on where it has stopped
	})
	if err != nil {
		return err
	}
	defer consumer.Close()
	log.Print("whatever is published from now on is received")
	for message, err := range consumer.Stream(ctx) {
		if err != nil {
			return err
		}
		upload, err := message.Upload()
		if err != nil {
			log.Print(err) // a ping (gracedb.ErrNotUpload), or damaged: the next may be good
			continue
		}
		fmt.Printf("%s from %s: %s, %d bytes\n", upload.GraceID, upload.Pipeline, upload.Filename, len(upload.Data))
	}
	return nil
}
