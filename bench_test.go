package gracedb_test

import (
	"bytes"
	stdbase64 "encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrace"
	"github.com/gracedb-go/gracedb/internal/wire"
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

// benchUploads are uploads like those of aframe (0.2 kB) and gstlal.
func benchUploads() []gracedb.Upload {
	uploads := []gracedb.Upload{}
	for _, data := range [][]byte{samples.Aframe(1), samples.Coinc(50_000, 1), samples.Coinc(360_000, 1), samples.Coinc(800_000, 1)} {
		uploads = append(uploads, gracedb.Upload{
			Server: "https://gracedb-test.ligo.org/api/", GraceID: "G123456", Submitter: "gstlal.online@ligo.org",
			Pipeline: "gstlal", Labels: []string{"INJ"}, Filename: "coinc.xml", Data: data, ContentID: wire.ContentID(data),
			Time: time.Unix(1732288000, 123456000), Group: "CBC", Search: "AllSky",
		})
	}
	return uploads
}

// A stdUpload is the same message for encoding/json.
type stdUpload struct {
	Type           string    `json:"type"`
	Server         string    `json:"gracedb_server"`
	GraceID        *string   `json:"graceid"`
	Submitter      *string   `json:"submitter"`
	Pipeline       string    `json:"pipeline"`
	GraceDBUpload  bool      `json:"gracedb_upload"`
	SkipSupervisor bool      `json:"skip_supervisor"`
	Labels         []string  `json:"labels"`
	EventFile      [2]string `json:"eventFile"`
	Timestamp      float64   `json:"_producer_timestamp"`
	ContentID      string    `json:"content_id"`
	Group          string    `json:"group"`
	Search         string    `json:"search,omitempty"`
}

func encodeStd(u gracedb.Upload) ([]byte, error) {
	return json.Marshal(stdUpload{
		Type: "upload", Server: u.Server, GraceID: &u.GraceID, Submitter: &u.Submitter, Pipeline: u.Pipeline,
		GraceDBUpload: true, Labels: u.Labels, EventFile: [2]string{u.Filename, stdbase64.StdEncoding.EncodeToString(u.Data)},
		Timestamp: float64(u.Time.UnixMicro()) / 1e6, ContentID: u.ContentID, Group: u.Group, Search: u.Search,
	})
}

func decodeStd(value []byte) (stdUpload, []byte, error) {
	var u stdUpload
	if err := json.Unmarshal(value, &u); err != nil {
		return u, nil, err
	}
	data, err := stdbase64.StdEncoding.DecodeString(u.EventFile[1])
	return u, data, err
}

func BenchmarkEncode(b *testing.B) {
	for _, u := range benchUploads() {
		size := fmt.Sprintf("%dkB", (len(u.Data)+500)/1000)
		bench := func(name string, f func()) {
			b.Run(size+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(u.Data)))
				for b.Loop() {
					f()
				}
			})
		}
		bench("gracedb", func() { wire.Encode(wire.Upload(u)) })
		bench("stdlib base64 alone", func() {
			dst := make([]byte, stdbase64.StdEncoding.EncodedLen(len(u.Data)))
			stdbase64.StdEncoding.Encode(dst, u.Data)
		})
		bench("encoding json", func() {
			if _, err := encodeStd(u); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, u := range benchUploads() {
		size := fmt.Sprintf("%dkB", (len(u.Data)+500)/1000)
		m := gracedb.Message{Value: wire.Encode(wire.Upload(u))}
		bench := func(name string, f func() error) {
			b.Run(size+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(u.Data)))
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		bench("Upload", func() error { _, err := m.Upload(); return err })
		bench("Decode", func() error { return m.Decode(new(stdUpload)) })
		bench("encoding json and base64", func() error { _, _, err := decodeStd(m.Value); return err })
	}
}

func TestUploadAllocations(t *testing.T) {
	if testrace.Enabled {
		t.Skip("the race detector allocates")
	}
	for _, u := range benchUploads() {
		if got := testing.AllocsPerRun(20, func() { wire.Encode(wire.Upload(u)) }); got != 1 {
			t.Errorf("encoding %d bytes: %v allocations, want 1", len(u.Data), got)
		}
		if got := testing.AllocsPerRun(20, func() { wire.Size(wire.Upload(u)) }); got != 0 {
			t.Errorf("size of %d bytes: %v allocations, want 0", len(u.Data), got)
		}
		m := gracedb.Message{Value: wire.Encode(wire.Upload(u))}
		// The data, 8 strings, the slice of labels and its one.
		got := testing.AllocsPerRun(20, func() {
			if _, err := m.Upload(); err != nil {
				t.Fatal(err)
			}
		})
		if got != 11 {
			t.Errorf("decoding %d bytes: %v allocations, want 11", len(u.Data), got)
		}
	}
}
