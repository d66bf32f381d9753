package gracedb_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A hint is what an error says to whoever reads it at night: what is wrong, where, and
// what to do.
type hint struct {
	name  string
	meet  func(*testing.T) error // meets what is wrong
	is    []error
	says  []string
	never []string // what it used to say, or would mislead
}

func testHints(t *testing.T, hints []hint) {
	for _, h := range hints {
		t.Run(h.name, func(t *testing.T) {
			err := h.meet(t)
			wantErr(t, err, h.is, nil, h.says...)
			for _, text := range h.never {
				if err != nil && strings.Contains(err.Error(), text) {
					t.Errorf("%q says %q", err, text)
				}
			}
			t.Log(err)
		})
	}
}

func TestKafkaHints(t *testing.T) {
	testHints(t, []hint{
		{
			name: "a broker without TLS", meet: meetBroker(func(t *testing.T, _ *testauth.Authority, c *gracedb.Cluster) {
				c.Brokers = []string{listen(t, hangUp)}
			}),
			is: kinds(gracedb.ErrConnection, io.EOF), says: []string{"localhost:", "TLS handshake: EOF", "a broker without TLS on this port?"},
		},
		{
			name: "an answer without TLS", meet: meetBroker(func(t *testing.T, _ *testauth.Authority, c *gracedb.Cluster) {
				c.Brokers = []string{listen(t, answer("\x00\x00\x00\x0a\x00\x00\x00\x00\x00\x23\x00\x00\x00\x00"))}
			}),
			is: kinds(gracedb.ErrConnection), says: []string{"localhost:", "does not speak TLS on this port"},
		},
		{
			name: "a web server", meet: meetBroker(func(t *testing.T, _ *testauth.Authority, c *gracedb.Cluster) {
				c.Brokers = []string{webServer(t, nil)}
			}),
			is: kinds(gracedb.ErrConnection), says: []string{"localhost:", "this port speaks HTTP, not Kafka"}, never: []string{"does not speak TLS"},
		},
		{
			name: "a web server, and TLS", meet: meetBroker(func(t *testing.T, a *testauth.Authority, c *gracedb.Cluster) {
				c.Brokers = []string{webServer(t, a)}
			}),
			is: kinds(gracedb.ErrConnection), says: []string{"localhost:", "this port speaks HTTP, not Kafka", `"HTTP/1.1 400 Bad`}, never: []string{"response size"},
		},
		{
			name: "a web server that answers without headers", meet: meetBroker(func(t *testing.T, _ *testauth.Authority, c *gracedb.Cluster) {
				c.Brokers, c.Plaintext, c.CAFile = []string{listen(t, answer("<!DOCTYPE HTML>\r\n"))}, true, ""
			}),
			is: kinds(gracedb.ErrConnection), says: []string{"localhost:", "this port speaks HTTP, not Kafka"}, never: []string{"response size"},
		},
		{
			name: "a mail server", meet: meetBroker(func(t *testing.T, _ *testauth.Authority, c *gracedb.Cluster) {
				c.Brokers, c.Plaintext, c.CAFile = []string{listen(t, answer("220 mx.ligo.org ESMTP\r\n"))}, true, ""
			}),
			is: kinds(gracedb.ErrConnection), says: []string{"localhost:", "another protocol, not Kafka", `"220 mx.ligo.org`},
		},
		{
			name: "a name that is not found", meet: meetBroker(func(_ *testing.T, _ *testauth.Authority, c *gracedb.Cluster) {
				c.Brokers, c.Dial = []string{"kafak.ligo.org:9092"}, unknownHost
			}),
			is: kinds(gracedb.ErrConnection), says: []string{"kafak.ligo.org:9092", "check Brokers", "no such host"}, never: []string{"calls itself"},
		},
		{
			name: "a broker that calls itself otherwise", meet: meetAdvertised,
			is: kinds(gracedb.ErrConnection), says: []string{"the broker reached at 127.0.0.1:9092 calls itself localhost:", "which cannot be found", "advertised.listeners", "no such host"},
		},
	})
}

// meetBroker returns what makes a Producer with a changed configuration, whose CAFile is
// that of the authority.
func meetBroker(change func(*testing.T, *testauth.Authority, *gracedb.Cluster)) func(*testing.T) error {
	return func(t *testing.T) error {
		authority, err := testauth.NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		cluster := clusterFor(t, startCluster(t, kafkatest.Config{Authority: authority}), "alice")
		cluster.Dial = nil
		change(t, authority, &cluster)
		return makeProducer(t, cluster)
	}
}

// makeProducer returns what NewProducer fails with.
func makeProducer(t *testing.T, cluster gracedb.Cluster) error {
	t.Helper()
	p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	if err == nil {
		_ = p.Close()
	}
	return err
}

// meetAdvertised makes a Producer of a broker whose own name for itself is unknown here.
func meetAdvertised(t *testing.T) (err error) {
	virtually(t, kafkatest.Config{Plaintext: true}, func(t *testing.T, c *kafkatest.Cluster) {
		cluster := clusterFor(t, c, "alice")
		cluster.Brokers, cluster.Plaintext, cluster.CAFile = []string{"127.0.0.1:9092"}, true, ""
		cluster.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == cluster.Brokers[0] {
				return c.Dial(ctx, network, c.Addrs()[0])
			}
			return unknownHost(ctx, network, address)
		}
		err = makeProducer(t, cluster)
	})
	return err
}

func unknownHost(_ context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
}

// listen starts a server on this machine that does as serve with each connection, once
// something came, and returns its address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				if _, err := conn.Read(make([]byte, 4096)); err == nil {
					serve(conn)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return strings.Replace(l.Addr().String(), "127.0.0.1", "localhost", 1)
}

func hangUp(net.Conn) {}

func answer(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

// webServer starts a web server, with TLS if there is an authority, and returns its
// address.
func webServer(t *testing.T, authority *testauth.Authority) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if authority == nil {
		s.Start()
	} else {
		cert, err := authority.Certificate("localhost")
		if err != nil {
			t.Fatal(err)
		}
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return strings.Replace(s.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
}
