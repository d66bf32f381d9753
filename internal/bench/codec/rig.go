package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/bench/shape"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

const (
	instance = "127"               // as the service URL says, by the rule for names
	topic    = instance + ".codec" // of the batches whose codec is given
)

// A rig is a broker and a GraceDB, each behind a proxy.
type rig struct {
	dir    string
	kafka  *realkafka.Cluster
	grace  *gracetest.Server
	broker *shape.Proxy
	web    *shape.Proxy
	token  string
	caFile string
	link   shape.Link // that is set
}

func newRig(ctx context.Context) (_ *rig, err error) {
	r := &rig{}
	defer func() {
		if err != nil {
			_ = r.close()
		}
	}()
	if r.dir, err = os.MkdirTemp("", "codec"); err != nil {
		return nil, err
	}
	if r.broker, err = shape.Listen(ctx, ""); err != nil {
		return nil, err
	}
	if r.web, err = shape.Listen(ctx, ""); err != nil {
		return nil, err
	}
	r.kafka, err = realkafka.Start(ctx, realkafka.Config{FullJIT: true, Advertise: r.broker.Addr(), SessionLife: time.Hour})
	if err != nil {
		return nil, err
	}
	r.broker.Target(r.kafka.Addrs()[0])
	var own string // where the server listens, which its documents name
	r.grace, err = gracetest.Start(gracetest.Config{
		Authority: r.kafka.Authority, Issuer: r.kafka.Issuer,
		EditRoot: func(doc map[string]any) { shape.Redirect(doc, own, r.web.Addr()) },
	})
	if err != nil {
		return nil, err
	}
	own = strings.TrimSuffix(strings.TrimPrefix(r.grace.URL(), "https://"), "/api/")
	r.web.Target(own)
	r.caFile = filepath.Join(r.dir, "ca.pem")
	if r.token, err = r.kafka.Issuer.Token(testauth.Claims{}); err != nil {
		return nil, err
	}
	errs := []error{
		os.WriteFile(r.caFile, r.kafka.Authority.PEM(), 0o600),
		r.kafka.Allow(ctx, "alice", "*", kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs), // the last lets the library read the limit
		r.kafka.CreateTopic(ctx, topic, 1, nil),
	}
	for _, pipeline := range pipelines() {
		errs = append(errs, r.kafka.CreateTopic(ctx, gracedb.MakeTopicName(instance, pipeline), 1, nil))
	}
	return r, errors.Join(errs...)
}

func (r *rig) close() error {
	var errs []error
	if r.grace != nil {
		r.grace.Close()
	}
	for _, p := range []*shape.Proxy{r.broker, r.web} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	if r.kafka != nil {
		errs = append(errs, r.kafka.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

func (r *rig) set(l shape.Link) {
	r.link = l
	r.broker.Set(l)
	r.web.Set(l)
}

func (r *rig) idle() {
	r.broker.Idle()
	r.web.Idle()
}

// cluster is the broker, through its proxy or past it.
func (r *rig) cluster(past bool) gracedb.Cluster {
	c := gracedb.Cluster{
		Brokers: []string{r.broker.Addr()}, Instance: instance,
		Token: gracedb.StaticToken(r.token), CAFile: r.caFile,
	}
	if past {
		c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.kafka.Addrs()[0])
		}
	}
	return c
}

func (r *rig) serviceURL() string { return "https://" + r.web.Addr() + "/api/" }

// bare returns a client of the engine with what the library sets for it.
func (r *rig) bare(past bool, opts ...kgo.Opt) (*kgo.Client, error) {
	base, err := r.cluster(past).ClientOpts()
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(slices.Concat(base, []kgo.Opt{
		kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(10 << 20), kgo.BrokerMaxWriteBytes(20 << 20), kgo.ConnIdleTimeout(15 * time.Minute),
	}, opts)...)
}

// events returns the sample files.
func events() []samples.Event { return slices.Concat(samples.Events(), samples.LargeEvents()) }

// pipelines returns the topics that the sample events go to, and the one that the
// peer looks for.
func pipelines() []string {
	names := []string{"test"}
	for _, e := range events() {
		if name := strings.ToLower(e.Pipeline); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// messages returns what the library makes of the sample files: it publishes each,
// and they are read back.
func (r *rig) messages(ctx context.Context) ([][]byte, error) {
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: r.serviceURL(), Token: gracedb.StaticToken(r.token), CAFile: r.caFile})
	if err != nil {
		return nil, err
	}
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: r.cluster(true)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.Close() }()
	reader, err := r.bare(true)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var all [][]byte
	for _, s := range events() {
		receipt, err := client.PublishEvent(ctx, p, event(s), gracedb.PublishOptions{})
		if err != nil {
			return nil, err
		}
		m := receipt.Message
		reader.AddConsumePartitions(map[string]map[int32]kgo.Offset{m.Topic: {m.Partition: kgo.NewOffset().At(m.Offset)}})
		fetched := reader.PollRecords(ctx, 1)
		if err := fetched.Err(); err != nil {
			return nil, fmt.Errorf("reading %s back: %w", s.Filename, err)
		}
		all = append(all, fetched.Records()[0].Value)
		reader.RemoveConsumePartitions(map[string][]int32{m.Topic: {m.Partition}})
	}
	return all, nil
}

func event(s samples.Event) gracedb.Event {
	return gracedb.Event{Group: s.Group, Pipeline: s.Pipeline, Search: s.Search, Filename: s.Filename, Data: s.Data}
}
