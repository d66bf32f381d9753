package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// pipelines have a topic each on the embedded broker.
var pipelines = strings.Fields("test gstlal pycbc mbta spiir aframe mly cwb cwb2g olib")

// An embeddedConfig configures embedded services. The zero value is one of free
// ports and a token for three hours.
type embeddedConfig struct {
	kafkaPort, gracedbPort int
	tokenLife              time.Duration
}

// An embedded is a Kafka broker and a GraceDB with its supervisor in this process.
// One authority has signed both, and both accept the tokens of one issuer.
type embedded struct {
	dir     string // of the files, of which nothing stays
	caFile  string
	token   tokenFile
	issuer  *issuer
	kafka   *kafkatest.Cluster
	gracedb *gracetest.Server
	url     string // of the service

	end        context.CancelFunc
	supervisor sync.WaitGroup
	uploads    chan upload // closed when the supervisor has ended
}

// An upload is what the supervisor has done with an event.
type upload struct {
	graceID string
	err     error
}

var errSupervisor = errors.New("demo: the supervisor has ended")

// startEmbedded starts everything. The supervisor ends with ctx.
func startEmbedded(ctx context.Context, cfg embeddedConfig) (*embedded, error) {
	e := &embedded{uploads: make(chan upload), end: func() {}}
	if err := e.start(ctx, cfg); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *embedded) start(ctx context.Context, cfg embeddedConfig) error {
	authority, err := testauth.NewAuthority()
	if err != nil {
		return err
	}
	if e.dir, err = os.MkdirTemp("", "gracedb-demo-"); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	e.caFile = filepath.Join(e.dir, "ca.pem")
	if err := os.WriteFile(e.caFile, authority.PEM(), 0o600); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if e.issuer, err = startIssuer(ctx, authority); err != nil {
		return err
	}
	e.token = tokenFile{path: filepath.Join(e.dir, "token"), life: cfg.tokenLife, issuer: e.issuer.Issuer}
	if err := e.token.write(); err != nil {
		return err
	}

	topics := make(map[string]int)
	for _, p := range pipelines {
		topics[gracedb.MakeTopicName("localhost", p)] = 1
	}
	e.kafka, err = kafkatest.Start(kafkatest.Config{
		Ports: []int{cfg.kafkaPort}, Topics: topics, Authority: authority, Issuer: e.issuer.Issuer,
	})
	if err != nil {
		return err
	}
	e.gracedb, err = gracetest.Start(gracetest.Config{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.gracedbPort)), Authority: authority, Issuer: e.issuer.Issuer,
	})
	if err != nil {
		return err
	}
	u, err := url.Parse(e.gracedb.URL())
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	// The service names the topics' instance, which an address could not.
	u.Host = net.JoinHostPort("localhost", u.Port())
	e.url = u.String()
	return e.startSupervisor(ctx)
}

// services returns how to reach e, with the token in its file.
func (e *embedded) services() services {
	token := gracedb.ReloadToken(e.token.read, 5*time.Minute)
	return services{
		cluster: gracedb.Cluster{Brokers: e.kafka.Addrs(), ServiceURL: e.url, CAFile: e.caFile, Token: token},
		client:  gracedb.ClientConfig{ServiceURL: e.url, CAFile: e.caFile, Token: token},
	}
}

func (e *embedded) startSupervisor(ctx context.Context) error {
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: e.services().cluster, Topics: pipelines})
	if err != nil {
		return err
	}
	ctx, e.end = context.WithCancel(ctx)
	e.supervisor.Go(func() {
		defer close(e.uploads)
		err := e.supervise(ctx, consumer)
		if err = errors.Join(err, consumer.Close()); err != nil {
			e.report(ctx, upload{err: err})
		}
	})
	return nil
}

// supervise has GraceDB's supervisor do one message after the other, so as to tell
// what became of each.
func (e *embedded) supervise(ctx context.Context, consumer *gracedb.Consumer) error {
	for m, err := range consumer.Stream(ctx) {
		if err != nil {
			return err
		}
		u, err := m.Upload()
		if errors.Is(err, gracedb.ErrNotUpload) {
			continue // a ping
		}
		err = e.gracedb.Supervise(ctx, func(yield func(gracedb.Message, error) bool) { yield(m, nil) })
		e.report(ctx, upload{u.GraceID, err})
	}
	return nil
}

func (e *embedded) report(ctx context.Context, u upload) {
	select {
	case e.uploads <- u:
	case <-ctx.Done():
	}
}

// awaitUpload waits until the supervisor has completed an event, with that data.
func (e *embedded) awaitUpload(ctx context.Context, graceID string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	for {
		select {
		case u, ok := <-e.uploads:
			if u.err != nil || !ok {
				return cmp.Or(u.err, errSupervisor)
			}
			if u.graceID == graceID {
				return e.check(graceID, data)
			}
		case <-ctx.Done():
			return fmt.Errorf("demo: %s has arrived and is not in GraceDB: %w", graceID, ctx.Err())
		}
	}
}

// check compares an event in GraceDB with what was published.
func (e *embedded) check(graceID string, data []byte) error {
	for _, event := range e.gracedb.Events() {
		switch {
		case event.GraceID != graceID:
		case !bytes.Equal(event.Data, data):
			return fmt.Errorf("demo: %s is in GraceDB with other data than were published", graceID)
		default:
			return nil
		}
	}
	return fmt.Errorf("demo: %s is not in GraceDB", graceID)
}

// close ends everything.
func (e *embedded) close() error {
	e.end()
	e.supervisor.Wait()
	if e.kafka != nil {
		e.kafka.Close()
	}
	if e.gracedb != nil {
		e.gracedb.Close()
	}
	if e.issuer != nil {
		e.issuer.close()
	}
	if e.dir == "" {
		return nil
	}
	return os.RemoveAll(e.dir)
}
