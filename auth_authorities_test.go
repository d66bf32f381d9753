package gracedb_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

func newAuthority(t testing.TB) *testauth.Authority {
	t.Helper()
	a, err := testauth.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// writeCAs makes file hold the certificates of all authorities.
func writeCAs(t testing.TB, file string, all ...*testauth.Authority) {
	t.Helper()
	var pem []byte
	for _, a := range all {
		pem = append(pem, a.PEM()...)
	}
	if err := os.WriteFile(file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
}

// loads returns what each way to load a CA file says of file.
func loads(ctx context.Context, file string, log *slog.Logger) map[string]error {
	cluster := gracedb.Cluster{
		Brokers: []string{"localhost:1"}, Instance: "gracedb-test", CAFile: file, Token: gracedb.StaticToken("x"), Logger: log,
	}
	p, producer := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Lazy: true, Cluster: cluster})
	if producer == nil {
		_ = p.Close()
	}
	c, consumer := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Lazy: true, Cluster: cluster, Topics: []string{"test"}})
	if consumer == nil {
		_ = c.Close()
	}
	_, opts := cluster.ClientOpts()
	_, client := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: "https://localhost:1/api/", CAFile: file, Logger: log})
	return map[string]error{"NewProducer": producer, "NewConsumer": consumer, "ClientOpts": opts, "NewClient": client}
}

// Both halves refuse the same CA files, in the same words, and hang at none.
func TestCAFileRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	huge := file("huge.pem", "")
	if err := os.Truncate(huge, 1<<31); err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		file("empty.pem", ""):             "no certificate in PEM form",
		file("not.pem", "hello"):          "no certificate in PEM form",
		filepath.Join(dir, "missing.pem"): "no such file",
		dir:                               "it is a directory",
		huge:                              "longer than such a file can be (8192 KiB)",
	}
	if runtime.GOOS == "windows" {
		delete(tests, dir)
		delete(tests, filepath.Join(dir, "missing.pem"))
	} else {
		tests["/dev/zero"] = "it is not a regular file"
	}
	if fifo := testrig.MakeFIFO(t, dir); fifo != "" {
		tests[fifo] = "it is not a regular file"
	}
	for path, want := range tests {
		start := time.Now()
		for how, err := range loads(t.Context(), path, nil) {
			wantErr(t, err, kinds(gracedb.ErrConfig), kinds(gracedb.ErrConnection), "gracedb: CAFile "+path+": "+want)
			if t.Failed() {
				t.Fatalf("%s: %v", how, err)
			}
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %v", path, took)
		}
	}
}

func TestCAFileOthersMayWrite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the mode of a file says nothing of others there")
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	writeCAs(t, file, newAuthority(t))
	for mode, want := range map[os.FileMode]int{0o644: 0, 0o664: 0, 0o646: 1} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		var out lockedBuffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		for range 3 {
			for how, err := range loads(t.Context(), file, log) {
				if err != nil {
					t.Errorf("%s: %v", how, err)
				}
			}
		}
		if n := strings.Count(out.String(), "may be changed by other users"); n != want {
			t.Errorf("mode %v: warned %d times, want %d:\n%s", mode, n, want, out.String())
		}
	}
}

// Programs that run survive the rotation of an authority: the CA file gets the new
// one beside the old one, and then the brokers come back with a new certificate. The
// other way round they fail until the file has it.
func TestCAFileRotationKafka(t *testing.T) {
	for _, early := range []bool{true, false} {
		for _, skip := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) { rotateKafka(t, early, skip) })
		}
	}
}

func rotateKafka(t *testing.T, early, skip bool) {
	old, next := newAuthority(t), newAuthority(t)
	var signer atomic.Pointer[testauth.Authority]
	signer.Store(old)
	c := startCluster(t, kafkatest.Config{Virtual: true, Authority: old, TLS: &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := signer.Load().Certificate("localhost")
			return &cert, err
		},
	}})
	file := filepath.Join(t.TempDir(), "ca.pem")
	writeCAs(t, file, old)
	var out lockedBuffer
	cluster := clusterFor(t, c, "alice")
	cluster.CAFile, cluster.SkipHostnameVerification = file, skip
	cluster.Logger = slog.New(slog.NewTextHandler(&out, nil))
	p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	con := newConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
	send(t, p, "before")
	poll(t, con)

	if early {
		writeCAs(t, file, old, next)
	}
	signer.Store(next)
	c.Drop(kafkatest.RST)
	if !early {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("waits")})
		wantErr(t, err, kinds(gracedb.ErrConnection), kinds(gracedb.ErrAuthentication), "the certificate's authority is not in CAFile "+file)
		// A file that is written just now is looked at again.
		if err := os.WriteFile(file, next.PEM()[:100], 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		writeCAs(t, file, old, next)
	}
	start := time.Now()
	send(t, p, "after")
	for m := poll(t, con); string(m.Value) != "after"; {
		m = poll(t, con)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the first message took %v", took)
	}
	if err := con.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if n := strings.Count(out.String(), "was read again"); n != 2 {
		t.Errorf("%d lines say that the file was read again, want one of each client:\n%s", n, out.String())
	}
}

// The same for the HTTP half, with a request that has a body.
func TestCAFileRotationHTTP(t *testing.T) {
	old, next := newAuthority(t), newAuthority(t)
	start := func(addr string, by *testauth.Authority, issuer *testauth.Issuer) *gracetest.Server {
		s, err := gracetest.Start(gracetest.Config{Addr: addr, Authority: by, Issuer: issuer})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	issuer, err := testauth.NewIssuer("https://issuer.test")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := issuer.Token(testauth.Claims{})
	if err != nil {
		t.Fatal(err)
	}
	s := start("", old, issuer)
	file := filepath.Join(t.TempDir(), "ca.pem")
	writeCAs(t, file, old)
	c := newClient(t, gracedb.ClientConfig{ServiceURL: s.URL(), CAFile: file, Token: tokenIs(tok)})
	if _, err := c.CreateEvent(t.Context(), event()); err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSuffix(strings.TrimPrefix(s.URL(), "https://"), "/api/")
	s.Close()
	s = start(addr, next, issuer)
	_, err = c.CreateEvent(t.Context(), event())
	wantErr(t, err, kinds(gracedb.ErrConnection), kinds(gracedb.ErrOutcomeUnknown), "the certificate's authority is not in CAFile "+file)
	writeCAs(t, file, old, next)
	if _, err := c.CreateEvent(t.Context(), event()); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	if n := len(s.Events()); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// selfSigned returns a certificate that is its own authority, and a file with it.
func selfSigned(t *testing.T, names ...string) (tls.Certificate, string) {
	t.Helper()
	by, err := newAuthority(t).Certificate("localhost") // for its key
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}, by.Leaf, by.PrivateKey.(*ecdsa.PrivateKey).Public(), by.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	var b bytes.Buffer
	if err := errors.Join(pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}), os.WriteFile(file, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: by.PrivateKey}, file
}

// overTLS returns what both halves say of a server with this certificate, by its name.
func overTLS(t *testing.T, host, caFile string, certificate tls.Certificate) (kafka, http error) {
	t.Helper()
	s := httptest.NewUnstartedServer(http404{})
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort(host, port)
	_, kafka = gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: gracedb.Cluster{
		Brokers: []string{addr}, Instance: "gracedb-test", CAFile: caFile, Token: gracedb.StaticToken("x"),
	}})
	c := newClient(t, gracedb.ClientConfig{ServiceURL: "https://" + addr + "/api/", CAFile: caFile, Token: tokenIs("x")})
	_, http = c.ServiceInfo(t.Context())
	return kafka, http
}

type http404 struct{}

func (http404) ServeHTTP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

func TestCertificateAdvice(t *testing.T) {
	nameless, file := selfSigned(t)
	kafka, http := overTLS(t, "localhost", file, nameless)
	for _, err := range []error{kafka, http} {
		wantErr(t, err, kinds(gracedb.ErrConnection), nil, "the certificate names no host", "subject alternative names")
	}
	named, file := selfSigned(t, "kafka.example.org")
	kafka, http = overTLS(t, "localhost", file, named)
	wantErr(t, kafka, kinds(gracedb.ErrConnection), nil, "for another host name (a wrong address, or SkipHostnameVerification", "kafka.example.org")
	wantErr(t, http, kinds(gracedb.ErrConnection), nil, "for another host name (a wrong ServiceURL)", "kafka.example.org")
	stranger, _ := selfSigned(t, "localhost")
	_, other := selfSigned(t, "localhost")
	kafka, http = overTLS(t, "localhost", other, stranger)
	for _, err := range []error{kafka, http} {
		wantErr(t, err, kinds(gracedb.ErrConnection), nil, "the certificate's authority is not in CAFile "+other)
	}
}

// A machine without authorities says so, in both halves. They are read once for a
// process, so it takes another.
func TestNoAuthorities(t *testing.T) {
	const env = "GRACEDB_TEST_NO_AUTHORITIES_CHILD"
	if os.Getenv(env) != "" {
		certificate, _ := selfSigned(t, "localhost")
		kafka, http := overTLS(t, "localhost", "", certificate)
		for _, err := range []error{kafka, http} {
			wantErr(t, err, kinds(gracedb.ErrConnection), nil,
				"this machine has no certificate authorities (install ca-certificates, or set SSL_CERT_FILE or CAFile)")
		}
		return
	}
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere the system verifies itself")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoAuthorities$")
	cmd.Env = append(os.Environ(), env+"=1", "SSL_CERT_FILE="+filepath.Join(t.TempDir(), "none"), "SSL_CERT_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
