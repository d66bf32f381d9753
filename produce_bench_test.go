package gracedb_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/samples"
)

// bareClient returns the engine as one would use it by hand.
func bareClient(b *testing.B, c *kafkatest.Cluster, opts ...kgo.Opt) *kgo.Client {
	b.Helper()
	base, err := clusterFor(b, c, "alice").ClientOpts()
	if err != nil {
		b.Fatal(err)
	}
	client, err := kgo.NewClient(append(base, append(opts, kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(10<<20),
		kgo.ProducerBatchCompression(kgo.NoCompression()))...)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	return client
}

// A number of messages is queued and all are waited for; the figures are theirs
// together, since what is only queued has cost nothing yet.
func BenchmarkProduce(b *testing.B) {
	for _, size := range []struct {
		name  string
		n     int
		value []byte
	}{{"small", 1000, samples.Aframe(1)}, {"large", 10, samples.Coinc(500_000, 1)}} {
		bench := func(name string, start func(*testing.B, *kafkatest.Cluster) (one func() error, flush func() error)) {
			b.Run(size.name+"/"+name, func(b *testing.B) {
				one, flush := start(b, startCluster(b, kafkatest.Config{}))
				b.ReportAllocs()
				b.SetBytes(int64(size.n * len(size.value)))
				for b.Loop() {
					for range size.n {
						if err := one(); err != nil {
							b.Fatal(err)
						}
					}
					if err := flush(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		bench("gracedb", func(b *testing.B, c *kafkatest.Cluster) (func() error, func() error) {
			p := newProducer(b, gracedb.ProducerConfig{Cluster: clusterFor(b, c, "alice"), Topic: "test"})
			m := gracedb.Message{Value: size.value}
			return func() error { return p.Produce(b.Context(), m, nil) }, func() error { return p.Flush(b.Context()) }
		})
		bench("franz-go", func(b *testing.B, c *kafkatest.Cluster) (func() error, func() error) {
			client := bareClient(b, c, kgo.MaxBufferedBytes(64<<20))
			must := func(_ *kgo.Record, err error) {
				if err != nil {
					b.Error(err)
				}
			}
			return func() error {
				client.Produce(b.Context(), &kgo.Record{Topic: testTopic, Value: size.value}, must)
				return nil
			}, func() error { return client.Flush(b.Context()) }
		})
	}
}

// A topic of 1,000 messages is read from its beginning, the constructor included.
func BenchmarkStream(b *testing.B) {
	const n = 1000
	c := startCluster(b, kafkatest.Config{})
	p := newProducer(b, gracedb.ProducerConfig{Cluster: clusterFor(b, c, "alice"), Topic: "test"})
	for range n {
		if err := p.Produce(b.Context(), gracedb.Message{Value: samples.Aframe(1)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	bench := func(name string, read func(*testing.B) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := read(b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	bench("gracedb", func(b *testing.B) error {
		reader, err := gracedb.NewConsumer(b.Context(), gracedb.ConsumerConfig{
			Cluster: clusterFor(b, c, "alice"), Topics: []string{"test"}, FromBeginning: true,
		})
		if err != nil {
			return err
		}
		got := 0
		for _, err := range reader.Stream(b.Context()) {
			if got++; err != nil || got == n {
				break
			}
		}
		if got != n {
			return fmt.Errorf("%d of %d messages", got, n)
		}
		return reader.Close()
	})
	bench("franz-go", func(b *testing.B) error {
		base, err := clusterFor(b, c, "alice").ClientOpts()
		if err != nil {
			return err
		}
		client, err := kgo.NewClient(append(base, kgo.ConsumeTopics(testTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
		if err != nil {
			return err
		}
		defer client.Close()
		for got := 0; got < n; {
			fetches := client.PollFetches(b.Context())
			if err := fetches.Err(); err != nil {
				return err
			}
			got += fetches.NumRecords()
		}
		return nil
	})
}
