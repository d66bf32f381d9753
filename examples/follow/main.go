// Follow is a service that follows topics, and lets Prometheus see how it goes:
//
//	follow [-service URL] [-broker HOST:PORT] [-group NAME] [-listen HOST:PORT] TOPIC…
//
// It answers /metrics, and /healthz with 200 as long as brokers answer and let it read.
// Ctrl-C, or SIGTERM, ends it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"

	"github.com/gracedb-go/gracedb"
)

func main() {
	service := flag.String("service", "https://gracedb-test.ligo.org/api/", "`URL` of GraceDB, which names the topics")
	brokers := flag.String("broker", "kafka-dev.ligo.org:9092", "`addresses` of Kafka brokers, with commas between them")
	group := flag.String("group", "", "`name` of a consumer group, to go on where it has stopped")
	listen := flag.String("listen", "localhost:2112", "`address` for /metrics and /healthz")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cluster := gracedb.Cluster{Brokers: strings.Split(*brokers, ","), ServiceURL: *service, Logger: slog.Default()}
	if err := follow(ctx, cluster, *group, *listen, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func follow(ctx context.Context, cluster gracedb.Cluster, group, listen string, topics []string) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	uploads := newUploads(registry)
	// Connections, bytes, errors and records, by broker and topic. A Metrics is for one client:
	// a Producer, or another Consumer, has one of its own, with another Subsystem.
	cluster.Opts = []kgo.Opt{kgo.WithHooks(
		kprom.NewMetrics("kafka", kprom.Registry(registry), kprom.Subsystem("consumer")),
	)}
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: topics, GroupID: group})
	if err != nil {
		return err
	}
	defer consumer.Close()
	address, stop, err := serve(ctx, listen, registry, consumer)
	if err != nil {
		return err
	}
	defer stop()
	cluster.Logger.InfoContext(ctx, "following; metrics are served", "address", address)
	for message, err := range consumer.Stream(ctx) {
		if err != nil {
			return err // whoever has started this starts it again
		}
		upload, err := message.Upload()
		uploads.count(upload, err)
		switch {
		case errors.Is(err, gracedb.ErrNotUpload):
		case err != nil:
			cluster.Logger.WarnContext(ctx, "passed over", "err", err)
		default: // here it is handled
			cluster.Logger.InfoContext(ctx, "upload", "graceid", upload.GraceID, "pipeline", upload.Pipeline, "bytes", len(upload.Data))
		}
	}
	return nil
}

// uploads is what this program counts itself.
type uploads struct {
	messages *prometheus.CounterVec
	age      prometheus.Histogram
}

func newUploads(registry prometheus.Registerer) uploads {
	factory := promauto.With(registry)
	return uploads{
		messages: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "gracedb_messages_total", Help: "Messages, by what they are and the pipeline.",
		}, []string{"kind", "pipeline"}),
		age: factory.NewHistogram(prometheus.HistogramOpts{
			Name: "gracedb_upload_age_seconds", Help: "How old uploads are when they arrive, by the producer's clock.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}),
	}
}

func (u uploads) count(upload gracedb.Upload, err error) {
	switch {
	case errors.Is(err, gracedb.ErrNotUpload):
		u.messages.WithLabelValues("other", "").Inc()
	case err != nil:
		u.messages.WithLabelValues("damaged", "").Inc()
	default:
		u.messages.WithLabelValues("upload", strings.ToLower(upload.Pipeline)).Inc()
		if !upload.Time.IsZero() {
			u.age.Observe(time.Since(upload.Time).Seconds())
		}
	}
}

// serve answers on an address, until stop is called. It returns which that is.
func serve(ctx context.Context, address string, registry *prometheus.Registry, consumer *gracedb.Consumer) (at net.Addr, stop func(), err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		if err := consumer.Check(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	return listener.Addr(), func() { _ = server.Close() }, nil
}
