package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
)

// A byHand is the least that does the same work with franz-go and net/http: it
// checks little, reports little and keeps nothing warm.
type byHand struct {
	place
	compress bool // with zstd as it comes, as the peer does; else not at all
	http     *http.Client
	client   *kgo.Client
}

// token reads the token; what is in it is left to those who check it.
func token() (string, error) {
	data, err := os.ReadFile(os.Getenv("BEARER_TOKEN_FILE"))
	return strings.TrimSpace(string(data)), err
}

func (b *byHand) trust() (*tls.Config, error) {
	pem, err := os.ReadFile(b.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no authority in " + b.CAFile)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

func (b *byHand) options() ([]kgo.Opt, error) {
	trust, err := b.trust()
	if err != nil {
		return nil, err
	}
	codec := kgo.NoCompression()
	if b.compress {
		codec = kgo.ZstdCompression()
	}
	return []kgo.Opt{
		kgo.SeedBrokers(b.Brokers), kgo.DialTLSConfig(trust),
		kgo.SASL(oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			t, err := token()
			return oauth.Auth{Token: t}, err
		})),
		kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(10 << 20), kgo.ProducerBatchCompression(codec),
	}, nil
}

func (b *byHand) open(ctx context.Context) error {
	trust, err := b.trust()
	if err != nil {
		return err
	}
	b.http = &http.Client{Transport: &http.Transport{TLSClientConfig: trust, MaxIdleConnsPerHost: 64}, Timeout: time.Minute}
	opts, err := b.options()
	if err != nil {
		return err
	}
	if b.client, err = kgo.NewClient(opts...); err != nil {
		return err
	}
	return b.metadata(ctx)
}

// metadata asks for the topic "test", which has to exist.
func (b *byHand) metadata(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = new(b.full("test"))
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, b.client)
	if err == nil && (len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0) {
		err = errors.New("no such topic")
	}
	return err
}

func (b *byHand) full(pipeline string) string { return b.Instance + "." + pipeline }

func (b *byHand) ping(ctx context.Context) error {
	return b.sync(ctx, "test", nil, fmt.Appendf(nil, `{"type":"ping","_producer_timestamp":%f}`, float64(time.Now().UnixMicro())/1e6))
}

// reserve posts what the library posts.
func (b *byHand) reserve(ctx context.Context, pipeline, contentID string) (id, submitter string, err error) {
	form := url.Values{"group": {"CBC"}, "pipeline": {pipeline}, "search": {"AllSky"}, "content_id": {contentID}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.ServiceURL+"events/reserve/", strings.NewReader(form.Encode()))
	if err != nil {
		return "", "", err
	}
	t, err := token()
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", "bench")
	req.Header.Set("Authorization", "Bearer "+t)
	resp, err := b.http.Do(req)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	var made struct{ GraceID, Submitter string }
	if err == nil {
		err = json.Unmarshal(body, &made)
	}
	return made.GraceID, made.Submitter, err
}

func contentID(data []byte) string {
	sum := sha256.Sum256(data)
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// envelope is the message that carries a file, put together in one buffer.
func envelope(server, id, submitter, pipeline string, data []byte) []byte {
	b := make([]byte, 0, base64.StdEncoding.EncodedLen(len(data))+512)
	b = fmt.Appendf(b, `{"type":"upload","gracedb_server":%q,"graceid":%q,"submitter":%q,"pipeline":%q,"gracedb_upload":true,`+
		`"skip_supervisor":false,"labels":null,"eventFile":["coinc.xml","`, server, id, submitter, pipeline)
	b = base64.StdEncoding.AppendEncode(b, data)
	return fmt.Appendf(b, `"],"_producer_timestamp":%f}`, float64(time.Now().UnixMicro())/1e6)
}

func (b *byHand) publish(ctx context.Context, e event) (s steps, err error) {
	start := time.Now()
	sum := contentID(e.data)
	hashed := time.Now()
	id, submitter, err := b.reserve(ctx, e.pipeline, sum)
	if err != nil {
		return s, err
	}
	s.Reserve = time.Since(hashed).Seconds()
	value := envelope(b.ServiceURL, id, submitter, e.pipeline, e.data)
	encoded := time.Now()
	err = b.sync(ctx, e.pipeline, []byte(id), value)
	s.Publish, s.Total = time.Since(encoded).Seconds(), time.Since(start).Seconds()
	s.Encode = s.Total - s.Reserve - s.Publish
	return s, err
}

func (b *byHand) sync(ctx context.Context, topic string, key, value []byte) error {
	return b.client.ProduceSync(ctx, &kgo.Record{Topic: b.full(topic), Key: key, Value: value}).FirstErr()
}

func (b *byHand) queue(ctx context.Context, topic string, key, value []byte) error {
	b.client.Produce(ctx, &kgo.Record{Topic: b.full(topic), Key: key, Value: value}, mustArrive)
	return nil
}

// mustArrive ends the child: there is nobody to tell, and no figure without it.
func mustArrive(_ *kgo.Record, err error) {
	if err != nil {
		panic(err)
	}
}

func (b *byHand) queueJSON(ctx context.Context, topic string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.queue(ctx, topic, nil, value)
}

func (b *byHand) flush(ctx context.Context) error { return b.client.Flush(ctx) }

func (b *byHand) receive(ctx context.Context, from source, opened func(), each func([]byte, func() ([]byte, error)) (bool, error)) error {
	opts, err := b.options()
	if err != nil {
		return err
	}
	topics := make([]string, len(from.topics))
	for i, name := range from.topics {
		topics[i] = b.full(name)
	}
	reset := kgo.NewOffset().AtEnd()
	if from.earliest {
		reset = kgo.NewOffset().AtStart()
	}
	opts = append(opts, kgo.ConsumeTopics(topics...), kgo.ConsumerGroup(from.group), kgo.ConsumeResetOffset(reset))
	assigned := make(chan struct{}, 1)
	opts = append(opts, kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned <- struct{}{} }))
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	if from.earliest {
		opened()
	} else {
		<-assigned
		time.Sleep(100 * time.Millisecond) // until it knows the end: there is nothing to wait for
		opened()
	}
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for r := range fetches.RecordsAll() {
			more, err := each(r.Value, func() ([]byte, error) { return decodeStd(r.Value) })
			if !more || err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// decodeStd is how one decodes an event with the standard library.
func decodeStd(value []byte) ([]byte, error) {
	var m struct {
		Type, GraceID, Submitter, Pipeline string
		EventFile                          [2]string
	}
	if err := json.Unmarshal(value, &m); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(m.EventFile[1])
}

// floor returns what nobody can be below in publishing a file: a POST, a round trip
// to the broker, and a copy. One of each, N times.
func (b *byHand) floor(ctx context.Context, o order) (any, error) {
	data, err := os.ReadFile(o.Path)
	if err != nil {
		return nil, err
	}
	var took []float64
	for range o.N {
		start := time.Now()
		if _, _, err := b.reserve(ctx, "gstlal", ""); err != nil {
			return nil, err
		}
		if err := b.metadata(ctx); err != nil {
			return nil, err
		}
		_ = bytes.Clone(data)
		took = append(took, time.Since(start).Seconds())
	}
	return took, nil
}
