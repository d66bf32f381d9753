package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A badPeer is a reason not to trust a peer, and how callers can tell.
type badPeer struct {
	name  string
	peer  func(*testing.T, *rig) *impostor
	typed func(error) bool
	says  string
}

// The broker that it might be has a good certificate for localhost by r.Authority.
func signed(t *testing.T, by *testauth.Authority, from, to time.Duration, host string) *impostor {
	t.Helper()
	now := time.Now()
	certificate, err := by.CertificateValid(now.Add(from), now.Add(to), host)
	if err != nil {
		t.Fatal(err)
	}
	return &impostor{tls: &tls.Config{Certificates: []tls.Certificate{certificate}}}
}

const day = 24 * time.Hour

func otherAuthority(t *testing.T) *testauth.Authority {
	t.Helper()
	other, err := testauth.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func isError[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func isExpired(err error) bool {
	e, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && e.Reason == x509.Expired
}

var (
	wrongAuthority = badPeer{"wrong authority", func(t *testing.T, _ *rig) *impostor {
		return signed(t, otherAuthority(t), -day, day, "localhost")
	}, isError[x509.UnknownAuthorityError], "CAFile"}
	selfSigned = badPeer{"self-signed", func(t *testing.T, _ *rig) *impostor {
		i := signed(t, otherAuthority(t), -day, day, "localhost")
		leaf := i.tls.Certificates[0]
		der, err := x509.CreateCertificate(nil, leaf.Leaf, leaf.Leaf, leaf.Leaf.PublicKey, leaf.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		i.tls.Certificates[0] = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leaf.PrivateKey}
		return i
	}, isError[x509.UnknownAuthorityError], "CAFile"}
	expired = badPeer{"expired", func(t *testing.T, r *rig) *impostor {
		return signed(t, r.Authority(), -2*day, -time.Hour, "localhost")
	}, isExpired, "expired"}
	notYet = badPeer{"not valid yet", func(t *testing.T, r *rig) *impostor {
		return signed(t, r.Authority(), time.Hour, day, "localhost")
	}, isExpired, "not yet valid"}
	wrongHost = badPeer{"wrong host", func(t *testing.T, r *rig) *impostor {
		return signed(t, r.Authority(), -day, day, "kafka.example.org")
	}, isError[x509.HostnameError], "SkipHostnameVerification"}
)

// A peer that cannot prove who it is gets to hear nothing, whoever asks; it is
// reported at once, and as what it is.
func TestFault_S1_WrongCertificate(t *testing.T) {
	for _, bad := range []badPeer{wrongAuthority, selfSigned, expired, notYet, wrongHost} {
		t.Run(bad.name, func(t *testing.T) { refuses(t, bad, nil) })
	}
}

// Without the host name, all else is still looked at.
func TestFault_S2_OnlyTheNameIsSkipped(t *testing.T) {
	skip := func(c *gracedb.Cluster) { c.SkipHostnameVerification = true }
	for _, bad := range []badPeer{wrongAuthority, selfSigned, expired, notYet} {
		t.Run(bad.name, func(t *testing.T) { refuses(t, bad, skip) })
	}
}

// refuses checks that neither constructor says anything to a bad peer, in any
// version of TLS, and that a running producer does not either.
func refuses(t *testing.T, bad badPeer, edit func(*gracedb.Cluster)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
			peer := bad.peer(t, r)
			if peer.tls != nil && peer.tls.MaxVersion == 0 {
				peer.tls.MaxVersion = version
			}
			cluster := r.cluster("alice")
			if edit != nil {
				edit(&cluster)
			}
			cluster.Dial = peer.Dial
			_, pErr := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			_, cErr := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: "g"})
			for _, err := range []error{pErr, cErr} {
				wantKinds(t, err, is(gracedb.ErrConnection, gracedb.ErrKafka), is(gracedb.ErrAuthentication, gracedb.ErrTopic), bad.says, r.Addrs()[0])
				if bad.typed != nil && !bad.typed(err) {
					t.Errorf("the certificate's failure cannot be told: %v", err)
				}
			}
			t.Log(pErr)
			peer.wantNothing(t)
			runningRefuses(t, r, bad, edit, time.Second)
		})
	}
}

// runningRefuses checks that a producer that meets a bad peer where its broker was
// says nothing to it, and delivers what was queued when the broker is back.
func runningRefuses(t *testing.T, r *rig, bad badPeer, edit func(*gracedb.Cluster), healing time.Duration) {
	t.Helper()
	peer := bad.peer(t, r)
	var mu sync.Mutex
	dial := r.Dial
	p := r.producer(t, func(c *gracedb.ProducerConfig) {
		if edit != nil {
			edit(&c.Cluster)
		}
		c.Cluster.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			return dial(ctx, network, addr)
		}
	})
	r.send(t, p, "k")
	mu.Lock()
	dial = peer.Dial
	mu.Unlock()
	r.Drop(kafkatest.RST)
	if err := r.async(t, t.Context(), p, "k"); err != nil {
		t.Error(err)
	}
	took, err := r.try(t, p, "k", 10*time.Second)
	within(t, "ProduceSync", took, 10*time.Second+100*time.Millisecond)
	wantKinds(t, err, is(context.DeadlineExceeded, gracedb.ErrConnection), is(gracedb.ErrAuthentication), bad.says)
	if bad.typed != nil && !bad.typed(err) {
		t.Errorf("the certificate's failure cannot be told: %v", err)
	}
	peer.wantNothing(t)
	mu.Lock()
	dial = r.Dial
	mu.Unlock()
	within(t, "the first acknowledgement", r.firstAck(t, p), healing)
	closeProducer(t, p)
	r.judge(t)
}

// A name that is not the certificate's is accepted if it is to be skipped: the
// tests above are about all the rest.
func TestFault_S2_NameIsSkipped(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		peer := wrongHost.peer(t, r)
		cluster := r.cluster("alice")
		cluster.Dial, cluster.SkipHostnameVerification = peer.Dial, true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		wantKinds(t, err, is(gracedb.ErrConnection), nil, "no answer")
		peer.mu.Lock()
		defer peer.mu.Unlock()
		if !bytes.Contains(peer.plain.Bytes(), []byte("gracedb-go")) {
			t.Errorf("the impostor has heard %q", peer.plain.Bytes())
		}
	})
}

// A certificate that expires ends no connection, but the next one is not made, even
// if the broker would resume the session of one that was good: no session is ever
// resumed, since the library keeps none. Each connection verifies the certificate anew,
// at the cost of a whole handshake, and one that was good once counts for nothing.
func TestFault_S2_Resumed(t *testing.T) {
	for _, skip := range []bool{false, true} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			synctest.Test(t, func(t *testing.T) {
				authority := otherAuthority(t)
				peer := signed(t, authority, -time.Hour, time.Hour, "localhost")
				peer.tls.MaxVersion = version
				var mu sync.Mutex
				handshakes, resumed := 0, 0
				peer.tls.VerifyConnection = func(s tls.ConnectionState) error {
					mu.Lock()
					defer mu.Unlock()
					handshakes++
					if s.DidResume {
						resumed++
					}
					return nil
				}
				r := newRig(t, kafkatest.Config{Virtual: true, Authority: authority, TLS: peer.tls})
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.SkipHostnameVerification = skip })
				for range 3 {
					r.send(t, p, "k")
					r.Drop(kafkatest.FIN)
				}
				r.send(t, p, "k")
				time.Sleep(2*time.Hour + 7*time.Second) // between two keep-warm requests
				r.send(t, p, "k")
				requests := r.Requests()
				r.Drop(kafkatest.FIN)
				_, err := r.try(t, p, "k", 10*time.Second)
				wantKinds(t, err, is(context.DeadlineExceeded, gracedb.ErrConnection), nil, "expired")
				if !isExpired(err) {
					t.Errorf("not expired: %v", err)
				}
				for key, n := range r.Requests() {
					if n != requests[key] {
						t.Errorf("%d requests %v over a connection that was not verified", n-requests[key], key)
					}
				}
				_ = p.Close()
				r.judge(t)
				mu.Lock()
				defer mu.Unlock()
				if handshakes < 5 || resumed != 0 {
					t.Errorf("%d sessions resumed in %d handshakes", resumed, handshakes)
				}
			})
		}
	}
}

// A running producer that meets a peer which accepts connections and is silent before
// the handshake gives each of them up, and finds the broker when it is back.
func TestFault_N11_SilentBeforeHandshake(t *testing.T) {
	silent := badPeer{"silent", spoken(func(c net.Conn) net.Conn { return c }), nil, "no answer"}
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		runningRefuses(t, r, silent, nil, 6*time.Second)
	})
}

// spoken returns a peer that does not speak TLS.
func spoken(speak func(net.Conn) net.Conn) func(*testing.T, *rig) *impostor {
	return func(*testing.T, *rig) *impostor { return &impostor{speak: speak} }
}

// only returns a peer with a good certificate that knows no other version of TLS.
func only(version uint16) func(*testing.T, *rig) *impostor {
	return func(t *testing.T, r *rig) *impostor {
		i := signed(t, r.Authority(), -day, day, "localhost")
		i.tls.MinVersion, i.tls.MaxVersion = version, version //nolint:gosec // that is the fault
		return i
	}
}

// A peer without TLS, or with one that is too old, gets to hear nothing.
func TestFault_S3_NoGoodTLS(t *testing.T) {
	for _, bad := range []badPeer{
		{"TLS 1.0", only(tls.VersionTLS10), nil, "protocol version"},
		{"TLS 1.1", only(tls.VersionTLS11), nil, "protocol version"},
		{"a server that speaks first", spoken(func(c net.Conn) net.Conn {
			_, _ = c.Write([]byte("220 mail.example.org ESMTP\r\n"))
			return c
		}), isError[tls.RecordHeaderError], "not Kafka"},
		{"a web server", spoken(func(c net.Conn) net.Conn {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			return c
		}), isError[tls.RecordHeaderError], "not Kafka"},
		{"Kafka without TLS", spoken(func(c net.Conn) net.Conn {
			// It takes a ClientHello for a request of 369 MB, and hangs up.
			_, _ = c.Read(make([]byte, 4))
			return nil
		}), nil, "TLS handshake"},
	} {
		t.Run(bad.name, func(t *testing.T) { refuses(t, bad, nil) })
	}
}

// Without TLS nothing is said to a host that is not this one: not if it is
// configured, and not if a broker on this host names it.
func TestFault_S12_Plaintext(t *testing.T) {
	virtually(t, kafkatest.Config{Plaintext: true}, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		var dialed []string
		cluster := r.cluster("alice")
		cluster.Plaintext = true
		cluster.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			dialed = append(dialed, addr)
			mu.Unlock()
			return r.Dial(ctx, network, r.Addrs()[0])
		}
		configured := cluster
		for _, addr := range []string{
			"kafka.example.org:9092", "192.0.2.1:9092", "[2001:db8::1]:9092", "0.0.0.0:9092", "[::]:9092", "localhost.example.org:9092",
			"127.0.0.1.example.org:9092", "127.1:9092", "2130706433:9092", "0x7f000001:9092", "[::ffff:192.0.2.1]:9092",
		} {
			configured.Brokers = []string{r.Addrs()[0], addr}
			_, pErr := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: configured, Topic: "test"})
			_, cErr := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: configured, Topics: []string{"test"}})
			_, oErr := configured.ClientOpts()
			for _, err := range []error{pErr, cErr, oErr} {
				wantKinds(t, err, is(gracedb.ErrConfig), nil, "Plaintext", addr)
			}
		}
		if len(dialed) > 0 {
			t.Errorf("dialed %q", dialed)
		}

		for _, host := range []string{"kafka.example.org:9092", "192.0.2.1:9092", "localhost.example.org:9092"} {
			r.Advertise(0, host)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			_, pErr := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			_, cErr := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
			cancel()
			for _, err := range []error{pErr, cErr} {
				wantKinds(t, err, is(gracedb.ErrConnection), nil, host, "plaintext")
			}
			t.Log(pErr)
			mu.Lock()
			if slices.Contains(dialed, host) {
				t.Errorf("dialed %q", dialed)
			}
			mu.Unlock()
		}

		r.Advertise(0, "")
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster = cluster })
		r.send(t, p, "k")
		closeProducer(t, p)
		r.judge(t)
	})
}
