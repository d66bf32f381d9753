package gracedb_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
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

// What a user reads when the HTTP half does not work: what is wrong, and what to do.
func TestTextsOfHTTP(t *testing.T) {
	const html = "text/html; charset=utf-8"
	answers := func(status int, contentType, body string) func(*testing.T) error {
		return func(t *testing.T) error {
			s := newService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) { c.Retries = -1 })
			s.Script(gracetest.Fault{On: "root", Status: status, Header: http.Header{"Content-Type": {contentType}}, Body: body, Times: -1})
			return s.Call(t.Context(), "root")
		}
	}
	serviceURL := func(s string) func(*testing.T) error {
		return func(*testing.T) error {
			_, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: s, Token: tokenIs("t")})
			return err
		}
	}
	for _, tt := range []struct {
		name string
		err  func(*testing.T) error
		kind error // nil: a StatusError
		want []string
	}{
		{
			"entities", answers(400, "application/json", `{"error": "labels: [&quot;INJ&quot;] &amp; &#x27;x&#x27; &lt;b&gt;"}`), nil,
			[]string{`400 Bad Request: labels: ["INJ"] & 'x' <b>`},
		},
		{
			"login page", answers(200, html, "<!DOCTYPE html><html><head><title>LIGO Login</title>"), nil,
			[]string{"the answer is not a JSON object", "LIGO Login", "a page instead of data: is ServiceURL right, or does a login stand before it?"},
		},
		{"login page that calls itself JSON", answers(200, "application/json", "\n<html>"), nil, []string{"a page instead of data"}},
		{
			"404 on the root", answers(404, html, "Not Found"), nil,
			[]string{"404 Not Found: Not Found", "is ServiceURL right? It usually ends in /api/"},
		},
		{
			"GraceDB down", answers(503, html, "<h1>503 Service Unavailable</h1>"), nil,
			[]string{"503 Service Unavailable", "GraceDB is down for a while, or overloaded"},
		},
		{"GraceDB behind a gateway", answers(502, html, "<h1>502 Bad Gateway</h1>"), nil, []string{"does not reach GraceDB, which may be restarting"}},
		{
			"GraceDB away", func(t *testing.T) error { return errorAt(t, "http://"+closedPort(t)+"/api/") }, gracedb.ErrConnection,
			[]string{"connection refused", "GraceDB is away, or ServiceURL is wrong"},
		},
		{"unknown host", func(t *testing.T) error {
			return dialFails(t, &net.DNSError{Err: "no such host", Name: "gracedb.nowhere.test", IsNotFound: true})
		}, gracedb.ErrConnection, []string{"lookup gracedb.nowhere.test: no such host", "is ServiceURL right?"}},

		{
			"authority", func(t *testing.T) error { return errorAt(t, newService(t, gracetest.Config{}, nil).URL()) }, gracedb.ErrConnection,
			[]string{"the certificate's authority is not trusted (set CAFile", "x509: certificate signed by unknown authority"},
		},
		{"another authority", func(t *testing.T) error {
			authority, err := testauth.NewAuthority()
			if err != nil {
				t.Fatal(err)
			}
			return errorWithCA(t, gracetest.Config{}, authority.PEM())
		}, gracedb.ErrConnection, []string{"the certificate's authority is not in CAFile ", "ca.pem"}},
		{
			"authority, with HTTP", func(t *testing.T) error {
				return errorThrough(t, newService(t, gracetest.Config{}, nil).URL(), &http.Transport{})
			},
			gracedb.ErrConnection,
			[]string{"is not one that ClientConfig.HTTP trusts (it is for its Transport's TLSClientConfig.RootCAs): ", "x509: certificate signed by unknown authority"},
		},
		{
			"another host", func(t *testing.T) error {
				return errorWithCA(t, gracetest.Config{Hosts: []string{"elsewhere.test"}}, nil)
			},
			gracedb.ErrConnection,
			[]string{"the certificate is for another host name (a wrong ServiceURL)", "127.0.0.1"},
		},

		{"no scheme", serviceURL("gracedb-test.ligo.org/api/"), gracedb.ErrConfig, []string{"no scheme: write https://"}},
		{"no scheme, but a port", serviceURL("gracedb-test.ligo.org:443/api/"), gracedb.ErrConfig, []string{"no scheme: write https://"}},
		{"no scheme, but a password", serviceURL("user:hunter2@gracedb-test.ligo.org/api/"), gracedb.ErrConfig, []string{"no scheme: write https://"}},
		{"space behind", serviceURL("https://gracedb-test.ligo.org/api/ "), gracedb.ErrConfig, []string{"spaces: remove them"}},
		{"space before", serviceURL(" https://gracedb-test.ligo.org/api/"), gracedb.ErrConfig, []string{"spaces: remove them"}},
		{"newline", serviceURL("https://gracedb-test.ligo.org/api/\n"), gracedb.ErrConfig, []string{"spaces: remove them"}},
		{
			"version", serviceURL("https://gracedb-test.ligo.org/api/v2/"), gracedb.ErrConfig,
			[]string{`ends in a version of the API: give the root, such as "https://gracedb-test.ligo.org/api/"`, "APIVersion"},
		},
		{
			"version without a slash", serviceURL("https://gracedb-test.ligo.org/api/v1"), gracedb.ErrConfig,
			[]string{`such as "https://gracedb-test.ligo.org/api/"`},
		},

		{
			"proxy refuses", proxyAnswers("403 Forbidden", 1), gracedb.ErrConnection,
			[]string{"the proxy 127.0.0.1:", " of $HTTPS_PROXY refused: 403 Forbidden (set NO_PROXY if GraceDB can be reached without)"},
		},
		{
			"proxy wants a login", proxyAnswers("407 Proxy Authentication Required", 1), gracedb.ErrConnection,
			[]string{" refused: 407 Proxy Authentication Required (set NO_PROXY"},
		},
		{
			"proxy does not reach GraceDB", proxyAnswers("502 Bad Gateway", 2), gracedb.ErrConnection,
			[]string{" of $HTTPS_PROXY refused: 502 Bad Gateway", "(2 attempts)"},
		},
		{
			"proxy that is dead", func(t *testing.T) error { return throughProxy(t, closedPort(t)) }, gracedb.ErrConnection,
			[]string{"the proxy of $HTTPS_PROXY cannot be used (set NO_PROXY if GraceDB can be reached without): proxyconnect tcp: dial tcp 127.0.0.1:", "connection refused"},
		},
		{
			"proxy of HTTP refuses", proxyOfHTTPAnswers("407 Proxy Authentication Required"), gracedb.ErrConnection,
			[]string{"by way of 127.0.0.1:", ", the proxy that ClientConfig.HTTP uses: Proxy Authentication Required"},
		},
		{
			"proxy of HTTP that is dead", func(t *testing.T) error {
				return errorThrough(t, "https://gracedb.nowhere.test/api/", proxiedBy(closedPort(t)))
			},
			gracedb.ErrConnection,
			[]string{"by way of 127.0.0.1:", ", the proxy that ClientConfig.HTTP uses: proxyconnect tcp: dial tcp 127.0.0.1:", "connection refused"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.err(t)
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q shows the password, or has more than one line", err)
			}
			if _, ok := errors.AsType[*gracedb.StatusError](err); ok != (tt.kind == nil) || tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("%v: is a StatusError: %v; want %v", err, ok, tt.kind)
			}
		})
	}
}

// errorAt returns what a client with everything as usual makes of a service.
func errorAt(t *testing.T, serviceURL string) error {
	t.Helper()
	c := newClient(t, gracedb.ClientConfig{ServiceURL: serviceURL, Token: tokenIs("t"), Retries: 1})
	_, err := c.ServiceInfo(t.Context())
	return err
}

// errorWithCA is errorAt with a CA file, which has the server's authority if pem is nil.
func errorWithCA(t *testing.T, cfg gracetest.Config, pem []byte) error {
	t.Helper()
	s := newService(t, cfg, nil)
	if pem == nil {
		pem = s.PEM()
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), CAFile: file, Token: tokenIs("t")}).ServiceInfo(t.Context())
	return err
}

// errorThrough is errorAt with a transport of the caller's.
func errorThrough(t *testing.T, serviceURL string, transport *http.Transport) error {
	t.Helper()
	c := newClient(t, gracedb.ClientConfig{ServiceURL: serviceURL, Token: tokenIs("t"), Retries: 1, HTTP: &http.Client{Transport: transport}})
	defer transport.CloseIdleConnections()
	_, err := c.ServiceInfo(t.Context())
	return err
}

func proxiedBy(address string) *http.Transport {
	return &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: address, User: url.UserPassword("user", "hunter2")})}
}

func dialFails(t *testing.T, err error) error {
	t.Helper()
	s := newService(t, gracetest.Config{}, func(c *gracedb.ClientConfig) {
		c.HTTP.Transport.(*http.Transport).DialContext = dialError{err}.dial
	})
	return s.Call(t.Context(), "root")
}

// closedPort returns an address of this machine where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// proxyAnswers returns what a client makes of a proxy that answers so, and fails unless
// that is asked a number of times.
func proxyAnswers(status string, times int64) func(*testing.T) error {
	return func(t *testing.T) error {
		proxy, asked := newProxy(t, status)
		err := throughProxy(t, proxy)
		if n := asked.Load(); n != times {
			t.Errorf("the proxy was asked %d times, want %d", n, times)
		}
		return err
	}
}

// proxyOfHTTPAnswers is proxyAnswers for a proxy that the caller's own transport uses.
func proxyOfHTTPAnswers(status string) func(*testing.T) error {
	return func(t *testing.T) error {
		proxy, _ := newProxy(t, status)
		return errorThrough(t, "https://gracedb.nowhere.test/api/", proxiedBy(proxy))
	}
}

// newProxy starts a proxy that answers so, and counts how often it is asked.
func newProxy(t *testing.T, status string) (address string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil || r.Method != http.MethodConnect {
			t.Error(r.Method, err)
			return
		}
		_, _ = conn.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n"))
		_ = conn.Close()
	}))
	t.Cleanup(proxy.Close)
	return proxy.Listener.Addr().String(), asked
}

// throughProxy is errorAt with a proxy.
func throughProxy(t *testing.T, address string) error {
	t.Helper()
	c := newClient(t, gracedb.ClientConfig{ServiceURL: "https://gracedb.nowhere.test/api/", Token: tokenIs("t"), Retries: 1})
	gracedb.SetProxy(c, &url.URL{Scheme: "http", Host: address, User: url.UserPassword("user", "hunter2")})
	_, err := c.ServiceInfo(t.Context())
	return err
}

type dialError struct{ err error }

func (d dialError) dial(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: d.err}
}
