package gracedb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
)

// The examples are whole programs: paste one, and say in KAFKA_BROKER and TEST_SERVICE
// which broker and which GraceDB it is for. "go run ./internal/demo serve", in a clone of
// the repository, starts both and prints what to source.

// An event goes from a file to a graceid and through Kafka.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := gracedb.NewClient(gracedb.ClientConfig{
		ServiceURL: os.Getenv("TEST_SERVICE"), // such as https://gracedb-test.ligo.org/api/
		Logger:     slog.Default(),
	})
	if err != nil {
		log.Fatal(err)
	}
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: gracedb.Cluster{
		Brokers: []string{os.Getenv("KAFKA_BROKER")}, // such as kafka-dev.ligo.org:9092
		Logger:  slog.Default(),
	}})
	if err != nil {
		log.Fatal(err) // the token, the network or the topics: the error says which, and what to do
	}
	defer producer.Close()

	data, err := os.ReadFile("coinc.xml")
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := client.PublishEvent(ctx, producer, gracedb.Event{
		Group: "Test", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc.xml", Data: data,
	}, gracedb.PublishOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.GraceID, "is on", receipt.Message.Topic, "at offset", receipt.Message.Offset)
	// Output: T1001 is on localhost.test at offset 0
}

// With HTTPFallback the event reaches GraceDB while Kafka is away, too.
func ExampleClient_PublishEvent_fallback() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: os.Getenv("TEST_SERVICE"), Logger: slog.Default()})
	if err != nil {
		log.Fatal(err)
	}
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{
		Cluster: gracedb.Cluster{Brokers: []string{"localhost:1"}}, // where nobody listens
	})
	if err != nil {
		log.Print(err) // producer is nil, which PublishEvent takes
	} else {
		defer producer.Close()
	}

	data, err := os.ReadFile("coinc.xml")
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := client.PublishEvent(ctx, producer, gracedb.Event{
		Group: "Test", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc.xml", Data: data,
	}, gracedb.PublishOptions{HTTPFallback: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, warning := range receipt.Warnings {
		log.Print(warning) // GraceDB has the event, but could not read it, or sends no alert
	}
	fmt.Println(receipt.GraceID, "over HTTP:", errors.Is(receipt.Fallback, gracedb.ErrConnection))
	// Output: T1001 over HTTP: true
}

// An error after the reservation holds the graceid, so that the event can be finished
// under it: now or, if graceid and event are kept, by another process.
func ExampleReservedError() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: os.Getenv("TEST_SERVICE")})
	if err != nil {
		log.Fatal(err)
	}
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{
		Cluster:      gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}},
		FlushTimeout: time.Nanosecond, // in which no broker answers: this is what an outage looks like
	})
	if err != nil {
		log.Fatal(err)
	}

	event := gracedb.Event{Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>")}
	_, err = client.PublishEvent(ctx, producer, event, gracedb.PublishOptions{})
	reserved, ok := errors.AsType[*gracedb.ReservedError](err)
	if !ok {
		log.Fatal(err) // nothing is reserved: publish the event again, as a new one
	}
	fmt.Println(reserved.Reservation.GraceID, "is reserved")
	// If the error is ErrOutcomeUnknown, the event may still arrive until Close. That does no
	// harm: both would be for one graceid.
	producer.Close()

	producer, err = client.NewProducer(ctx, gracedb.ProducerConfig{
		Cluster: gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}},
	})
	if err != nil {
		log.Print(err)
	} else {
		defer producer.Close()
	}
	receipt, err := client.PublishEvent(ctx, producer, event, gracedb.PublishOptions{
		Reservation: &reserved.Reservation, HTTPFallback: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.GraceID, "is on", receipt.Message.Topic)
	// Output:
	// T1001 is reserved
	// T1001 is on localhost.test
}

// Messages of one's own: queued, and told one by one what became of them.
func ExampleProducer_Produce() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{
		Cluster: gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")},
		Topic:   "test", // of messages that name none
	})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()

	var written atomic.Int64
	for seq := range 100 {
		message, err := gracedb.JSONMessage("", map[string]any{"type": "heartbeat", "seq": seq})
		if err != nil {
			log.Fatal(err)
		}
		message.Key = []byte("detector-1") // messages of one key stay in order
		message.Headers = []gracedb.Header{{Key: "source", Value: []byte("example")}}
		err = producer.Produce(ctx, message, func(m gracedb.Message, err error) {
			switch {
			case err == nil:
				written.Add(1)
			case errors.Is(err, gracedb.ErrOutcomeUnknown):
				log.Print("may be written: ", err) // sending it again may double it
			default:
				log.Print("not written: ", err) // sending it again is safe
			}
		})
		if err != nil {
			log.Fatal(err) // not queued, and the function is not called
		}
	}
	if err := producer.Flush(ctx); err != nil { // waits until all of them are settled
		log.Fatal(err)
	}
	fmt.Println(written.Load(), "written,", producer.Pending(), "pending")
	// Output: 100 written, 0 pending
}

// A ping shows that the token is good, the topic is there and the broker writes. Loops over
// uploads pass it by.
func ExampleProducer_Ping() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	producer, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{
		Cluster: gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	message, err := producer.Ping(ctx, "gstlal")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(message.Topic, "took it at offset", message.Offset)
	// Output: localhost.gstlal took it at offset 0
}

// Tokens are found where IGWN's tools leave them: this is what a Token that is nil stands for.
func ExampleFindToken() {
	source := gracedb.ReloadToken(gracedb.FindToken(gracedb.TokenQuery{
		Audience: []string{"https://gracedb-test.ligo.org"},
		Scopes:   []string{"gracedb.read"},
	}), 5*time.Minute)
	token, err := source(context.Background())
	if err != nil {
		log.Fatal(err) // names each place, and what is wrong there
	}
	fmt.Println(token != "")
	// Output: true
}

// A source of one's own, here a file that somebody else renews: it is read again five
// minutes before the token expires, and when the token was refused.
func ExampleReloadToken() {
	source := gracedb.ReloadToken(func(context.Context) (string, error) {
		token, err := os.ReadFile(os.Getenv("BEARER_TOKEN_FILE")) // or ask a vault, with the context
		return strings.TrimSpace(string(token)), err
	}, 5*time.Minute)
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: os.Getenv("TEST_SERVICE"), Token: source})
	if err != nil {
		log.Fatal(err)
	}
	info, err := client.ServiceInfo(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Groups)
	// Output: [CBC Burst Detchar External Test]
}

// A token that never changes, for a program that ends before it expires.
func ExampleStaticToken() {
	token, err := gracedb.FindToken(gracedb.TokenQuery{})(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	client, err := gracedb.NewClient(gracedb.ClientConfig{
		ServiceURL: os.Getenv("TEST_SERVICE"), Token: gracedb.StaticToken(token),
	})
	if err != nil {
		log.Fatal(err)
	}
	reservation, err := client.Reserve(context.Background(), gracedb.Event{
		Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>"),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reservation.GraceID)
	// Output: T1001
}

// A client of franz-go's own, for what this package does not offer: it connects, and
// authenticates, as this package does.
func ExampleCluster_ClientOpts() {
	cluster := gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE")}
	opts, err := cluster.ClientOpts()
	if err != nil {
		log.Fatal(err)
	}
	client, err := kgo.NewClient(append(opts, kgo.ClientID("example"))...)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	record := &kgo.Record{Topic: gracedb.MakeTopicName("localhost", "test"), Value: []byte(`{"type":"heartbeat"}`)}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(record.Topic, record.Offset)
	// Output: localhost.test 0
}

// JSON of one's own travels as events do.
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

// What follows an upload is a request of one's own: here an entry in the event's log, and a
// label, once GraceDB has the event's data.
func ExampleClient_HTTPClient() {
	serviceURL := os.Getenv("TEST_SERVICE") // such as https://gracedb-test.ligo.org/api/
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: serviceURL})
	if err != nil {
		log.Fatal(err)
	}
	// send is one request. Its answer has a status, which says what became of it.
	send := func(method, route string, form url.Values) error {
		req, err := http.NewRequestWithContext(ctx, method, serviceURL+"v2/"+route, strings.NewReader(form.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.HTTPClient().Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
			return fmt.Errorf("%s %s: %s: %s", method, route, resp.Status, said)
		}
		fmt.Println(method, route, resp.Status)
		return nil
	}

	receipt, err := client.CreateEvent(ctx, gracedb.Event{ // or PublishEvent
		Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>"),
	})
	if err == nil {
		err = client.WaitUploaded(ctx, receipt.GraceID)
	}
	if err == nil {
		err = send(http.MethodPost, "events/"+receipt.GraceID+"/log/", url.Values{
			"comment": {"the background looks good"}, "tagname": {"analyst_comments"},
		})
	}
	if err == nil {
		err = send(http.MethodPut, "events/"+receipt.GraceID+"/labels/SKYMAP_READY", nil)
	}
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// POST events/T1001/log/ 201 Created
	// PUT events/T1001/labels/SKYMAP_READY 201 Created
}

// What is wrong shows before the night: what is well is left out here.
func ExampleDiagnose() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	findings := gracedb.Diagnose(ctx, gracedb.DiagnoseConfig{
		Client:  gracedb.ClientConfig{ServiceURL: os.Getenv("TEST_SERVICE")},
		Cluster: gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}},
		Publish: []string{"gstlal"}, Consume: []string{"no-such-pipeline"}, GroupID: "my-follow-up",
	})
	for _, f := range findings {
		if f.Severity == gracedb.Failure {
			fmt.Println(f.Check, f.Target+":", f.Advice)
		}
	}
	// Output: topic localhost.no-such-pipeline: correct the name, or have whoever runs the brokers make the topic, and give rights to it
}
