package gracedb_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// Events are published in this process and without TLS, beside the least that it takes: one
// POST, and one record that is ready.
func BenchmarkPublish(b *testing.B) {
	issuer, err := testauth.NewIssuer("https://issuer.test")
	if err != nil {
		b.Fatal(err)
	}
	kafka := startCluster(b, kafkatest.Config{Plaintext: true, Issuer: issuer, Topics: map[string]int{"127.gstlal": 1}})
	grace, err := gracetest.Start(gracetest.Config{Plain: true, Issuer: issuer})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(grace.Close)
	token := mint(b, kafka, testauth.Claims{Subject: "alice"})
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: grace.URL(), Token: gracedb.StaticToken(token)})
	if err != nil {
		b.Fatal(err)
	}
	cluster := gracedb.Cluster{
		Brokers: kafka.Addrs(), Instance: "127", Token: gracedb.StaticToken(token), Plaintext: true,
	}
	p := newProducer(b, gracedb.ProducerConfig{Cluster: cluster})
	opts, err := cluster.ClientOpts()
	if err != nil {
		b.Fatal(err)
	}
	bare, err := kgo.NewClient(append(opts, kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(10<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(bare.Close)

	for _, data := range [][]byte{samples.Aframe(1), samples.Coinc(360_000, 1)} {
		bench := func(name string, publish func() error) {
			b.Run(fmt.Sprintf("%dkB/%s", (len(data)+500)/1000, name), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if err := publish(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		event := gracedb.Event{Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Filename: "coinc.xml", Data: data}
		bench("gracedb", func() error {
			_, err := client.PublishEvent(b.Context(), p, event, gracedb.PublishOptions{})
			return err
		})
		value := bytes.Repeat([]byte("A"), (len(data)+2)/3*4+400)
		bench("post and produce", func() error {
			if err := post(b, grace.URL()+"events/reserve/", token); err != nil {
				return err
			}
			return bare.ProduceSync(b.Context(), &kgo.Record{Topic: "127.gstlal", Key: []byte("G1234"), Value: value}).FirstErr()
		})
	}
}

// post reserves a graceid, and does not look at it.
func post(b *testing.B, url, token string) error {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url,
		strings.NewReader("group=CBC&pipeline=gstlal&search=AllSky&content_id=a3d4e5f6-0000-4000-8000-000000000000"))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "bench")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return err
}
