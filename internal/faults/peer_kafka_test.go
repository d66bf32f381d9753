package faults_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testlog"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// The findings about ligo-gracedb 2.16.1 that concern connections, by their numbers:
// what happens there must not happen here. Those about producer, consumer, tokens and
// HTTP are in the other peer_*_test.go.

// away makes brokers unreachable, as a machine that is down: connections are cut and
// new ones refused.
func away(c *kafkatest.Cluster, nodes ...int32) {
	c.Refuse(nodes...)
	time.Sleep(10 * time.Millisecond) // for those that are being accepted
	c.Drop(kafkatest.RST, nodes...)
}

func back(t testing.TB, c *kafkatest.Cluster) {
	t.Helper()
	if err := c.Accept(); err != nil {
		t.Fatal(err)
	}
}

// 22: a wrong host name is reported as a wrong authority, and the advice for the one
// is given for the other.
func TestPeerFinding_22_WrongHostName(t *testing.T) {
	home := testrig.StartCluster(t, kafkatest.Config{})
	cert, err := home.Authority().Certificate("kafka.elsewhere.org")
	if err != nil {
		t.Fatal(err)
	}
	named := testrig.StartCluster(t, kafkatest.Config{
		Authority: home.Authority(), TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	})
	stranger := testrig.StartCluster(t, kafkatest.Config{}).CAFile()
	wrongName := []string{"another host name", "SkipHostnameVerification"}
	wrongCA := []string{"authority", "CAFile"}
	for _, make := range testrig.Constructors {
		for _, tt := range []struct {
			name      string
			c         *kafkatest.Cluster
			caFile    string
			skip      bool
			says, not []string // no says: it works
		}{
			{"wrong name", named, named.CAFile(), false, wrongName, wrongCA},
			{"wrong name, skipped", named, named.CAFile(), true, nil, nil},
			{"wrong authority", home, stranger, false, wrongCA, wrongName},
			{"wrong authority, skipped", home, stranger, true, wrongCA, wrongName},
			{"both wrong, skipped", named, stranger, true, wrongCA, wrongName},
		} {
			t.Run(tt.name+"/"+make.Name, func(t *testing.T) {
				cluster := testrig.ClusterFor(t, tt.c, "alice")
				cluster.CAFile, cluster.SkipHostnameVerification = tt.caFile, tt.skip
				made, err := make.Make(t.Context(), cluster, "test")
				if err == nil {
					_ = made.Close()
				}
				if tt.says == nil {
					if err != nil {
						t.Error(err)
					}
					return
				}
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConnection, make.Kind), testrig.Kinds(gracedb.ErrAuthentication, gracedb.ErrConfig), append(tt.says[:2:2], tt.c.Addrs()[0])...)
				for _, text := range tt.not {
					if err != nil && strings.Contains(err.Error(), text) {
						t.Errorf("%q speaks of %q", err, text)
					}
				}
			})
		}
	}
}

// 23: an error names the trouble of long ago.
func TestPeerFinding_23_StaleText(t *testing.T) {
	cfg := kafkatest.Config{Brokers: 2, MaxSession: 10 * time.Second, Topics: map[string]int{testrig.Topic: 2}}
	testrig.Virtually(t, cfg, func(t *testing.T, c *kafkatest.Cluster) {
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topic: "test"})
		con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Topics: []string{"test"}})
		// now checks that everybody names the trouble of now, and no other.
		now := func(name string, is, isNot []error, not ...string) {
			_, pinged := p.Ping(testrig.Within(t, 2*time.Second), "")
			for who, err := range map[string]error{
				"Ping": pinged, "Producer.Check": p.Check(testrig.Within(t, 2*time.Second)), "Consumer.Check": con.Check(testrig.Within(t, 2*time.Second)),
			} {
				if err == nil {
					t.Errorf("%s, %s: no error", name, who)
					continue
				}
				testrig.WantErr(t, err, is, isNot)
				for _, text := range not {
					if strings.Contains(err.Error(), text) {
						t.Errorf("%s, %s: %q speaks of %q", name, who, err, text)
					}
				}
			}
		}
		// well checks that all is, but for a topic that is not there.
		well := func() {
			time.Sleep(30 * time.Second)
			if err := errors.Join(p.Flush(t.Context()), p.Check(t.Context()), con.Check(t.Context())); err != nil {
				t.Fatal(err)
			}
			testrig.Send(t, p, "well")
			not := testrig.Kinds(gracedb.ErrConnection, gracedb.ErrAuthentication)
			_, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: "nosuch"})
			testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrTopic, gracedb.ErrDelivery), not, "gracedb-test.nosuch")
			testrig.WantErr(t, con.Subscribe(t.Context(), "nosuch"), testrig.Kinds(gracedb.ErrTopic), not, "gracedb-test.nosuch")
		}

		away(c)
		now("away", testrig.Kinds(gracedb.ErrConnection), testrig.Kinds(gracedb.ErrAuthentication), "token", "no answer")
		back(t, c)
		well()
		c.RefuseTokens(kafkatest.Refusal{})
		time.Sleep(20 * time.Second)
		now("refused", testrig.Kinds(gracedb.ErrAuthentication), testrig.Kinds(gracedb.ErrConnection), "cannot connect", "no answer")
		c.AcceptTokens()
		well()
		c.Freeze()
		now("mute", testrig.Kinds(gracedb.ErrConnection), testrig.Kinds(gracedb.ErrAuthentication), "refused", "token")
		c.Thaw()
		well()
	})
}

// 23: what could not be connected to is not in the way of Check when all is well
// without it, nor named when something else fails long after.
func TestPeerFinding_23_AddressOfLongAgo(t *testing.T) {
	const alias = "bootstrap.test:9092"
	byAlias := func(g *gracedb.Cluster) { g.Brokers = []string{alias} }
	for _, tt := range []struct {
		name   string
		change func(*gracedb.Cluster) // before the clients are made
		lose   func(*testing.T, *kafkatest.Cluster)
	}{
		{"a bootstrap host goes", byAlias, func(*testing.T, *kafkatest.Cluster) {}},
		{"a bootstrap host goes, and all are away for a while", byAlias, func(t *testing.T, c *kafkatest.Cluster) {
			away(c)
			time.Sleep(20 * time.Second)
			back(t, c)
		}},
		{"a broker moves", func(g *gracedb.Cluster) { g.Brokers = g.Brokers[:1] }, func(t *testing.T, c *kafkatest.Cluster) {
			if err := c.Move(0); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Brokers: 2}, func(t *testing.T, c *kafkatest.Cluster) {
				cluster := testrig.ClusterFor(t, c, "alice")
				cluster.SkipHostnameVerification = true // the alias is not in the certificate
				var gone atomic.Bool
				cluster.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					switch {
					case addr == alias && gone.Load():
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}}
					case addr == alias:
						addr = c.Addrs()[1]
					}
					return c.Dial(ctx, network, addr)
				}
				tt.change(&cluster)
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
				con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
				gone.Store(true)
				tt.lose(t, c)
				time.Sleep(10 * time.Minute)
				testrig.Send(t, p, "well")
				testrig.Poll(t, con)
				for range 5 {
					if err := errors.Join(p.Check(t.Context()), con.Check(t.Context())); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Minute)
				c.Freeze()
				_, err := p.ProduceSync(testrig.Within(t, time.Second), gracedb.Message{})
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConnection), nil, "no answer")
				c.Thaw()
			})
		})
	}
}

// 23: Check tries before it says that nobody can be reached.
func TestPeerFinding_23_ChecksAnew(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{Brokers: 2}, func(t *testing.T, c *kafkatest.Cluster) {
		c.Refuse()
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: testrig.ClusterFor(t, c, "alice"), Lazy: true})
		for range 2 {
			start := time.Now()
			testrig.WantErr(t, p.Check(t.Context()), testrig.Kinds(gracedb.ErrConnection), nil, c.Addrs()[0], c.Addrs()[1], "refused")
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("after %v", took)
			}
			time.Sleep(time.Minute)
		}
		back(t, c)
		if err := p.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// 24: busy failing while a broker is away, and all of it is written to stderr.
func TestPeerFinding_24_BusyFailing(t *testing.T) {
	for _, who := range []string{"constructor", "producer", "consumer", "group"} {
		t.Run(who, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{testrig.Topic: 3}}, func(t *testing.T, c *kafkatest.Cluster) {
				var dials atomic.Int32
				var log testlog.Log
				cluster := testrig.ClusterFor(t, c, "alice")
				cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
				cluster.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					n := dials.Add(1)
					conn, err := c.Dial(ctx, network, addr)
					if err != nil && n%2 == 0 { // a balancer that hangs up; the port is another each time
						err = fmt.Errorf("read tcp 10.0.0.1:%d->10.0.0.2:9092: connection reset by peer", 30000+n)
					}
					return conn, err
				}
				var begin func()
				switch who {
				case "constructor":
					begin = func() {
						_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
						testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConnection), nil)
					}
				case "producer":
					p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
					begin = func() { queue(t, p, "", "1", "2", "3") }
				default:
					con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.WithoutAutoCommit(cluster), Topics: []string{"test"}, GroupID: map[string]string{"group": "g"}[who]})
					begin = func() {
						if _, err := con.Poll(testrig.Within(t, time.Minute)); err != context.DeadlineExceeded { //nolint:errorlint // as it is
							t.Error(err)
						}
					}
				}
				away(c)
				dials.Store(0)
				start, before := time.Now(), len(log.String())
				begin()
				time.Sleep(time.Until(start.Add(time.Minute)))
				written := log.String()[before:]
				lines := strings.Count(written, "\n")
				t.Logf("in a minute: %d dials, %d lines, %d bytes", dials.Load(), lines, len(written))
				// Fetches, the engine's metadata and ours each try twice a second, and the
				// engine dials twice each time. Theirs dials 20 times a second.
				if n := dials.Load(); n > 3*10*60 {
					t.Errorf("%d dials: more than 10 a second and broker", n)
				}
				if lines == 0 || lines > 30 {
					t.Errorf("%d lines: %.3000s", lines, written)
				}
				back(t, c)
				time.Sleep(5 * time.Second)
			})
		})
	}
}

// 25: every constructor takes a second when all is well, and eleven when not. In
// virtual time, all that takes time is waiting.
func TestPeerFinding_25_SlowConstructor(t *testing.T) {
	for _, make := range testrig.Constructors {
		for _, tt := range []struct {
			name  string
			spoil func(*kafkatest.Cluster, *gracedb.Cluster)
			kind  error
			bound time.Duration
		}{
			{"well", func(*kafkatest.Cluster, *gracedb.Cluster) {}, nil, 50 * time.Millisecond},
			{"closed", func(c *kafkatest.Cluster, _ *gracedb.Cluster) { away(c) }, gracedb.ErrConnection, 3 * time.Second},
			{"refused", func(c *kafkatest.Cluster, _ *gracedb.Cluster) { c.RefuseTokens(kafkatest.Refusal{}) }, gracedb.ErrAuthentication, 3 * time.Second},
			{"no topic", func(c *kafkatest.Cluster, _ *gracedb.Cluster) { _ = c.DeleteTopic(testrig.Topic) }, gracedb.ErrTopic, 3 * time.Second},
			{"no token", func(_ *kafkatest.Cluster, g *gracedb.Cluster) {
				g.Token = func(context.Context) (string, error) { return "", os.ErrNotExist }
			}, gracedb.ErrToken, 50 * time.Millisecond},
		} {
			t.Run(tt.name+"/"+make.Name, func(t *testing.T) {
				testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
					cluster := testrig.ClusterFor(t, c, "alice")
					tt.spoil(c, &cluster)
					start := time.Now()
					made, err := make.Make(t.Context(), cluster, "test")
					if took := time.Since(start); took > tt.bound {
						t.Errorf("after %v", took)
					}
					if tt.kind != nil {
						testrig.WantErr(t, err, testrig.Kinds(tt.kind, make.Kind), nil)
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					_ = made.Close()
				})
			})
		}
	}
}
