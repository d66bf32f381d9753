package gracedb_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// What is wrong with a configuration is said by every constructor, before anything
// is connected to, and names the field.
func TestClusterConfig(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	if err := os.WriteFile(noPEM, []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*gracedb.Cluster)
		names  []string
	}{
		{"no instance", func(c *gracedb.Cluster) { c.Instance = "" }, []string{"ServiceURL", "Instance"}},
		{"two instances", func(c *gracedb.Cluster) { c.ServiceURL = "https://gracedb.ligo.org/api/" }, []string{"ServiceURL", "Instance"}},
		{"bad URL", func(c *gracedb.Cluster) { c.Instance, c.ServiceURL = "", "://" }, nil},
		{"bad instance", func(c *gracedb.Cluster) { c.Instance = "gracedb test" }, []string{`"gracedb test"`}},
		{"instance with a dot", func(c *gracedb.Cluster) { c.Instance = "gracedb.test" }, []string{`"gracedb.test"`}},
		{"no brokers", func(c *gracedb.Cluster) { c.Brokers = nil }, []string{"Brokers"}},
		{"no port", func(c *gracedb.Cluster) { c.Brokers = []string{"localhost"} }, []string{`"localhost"`, "host:port"}},
		{"no host", func(c *gracedb.Cluster) { c.Brokers = []string{":9092"} }, []string{`":9092"`, "host:port"}},
		{"a URL", func(c *gracedb.Cluster) { c.Brokers = []string{"kafka://localhost:9092"} }, []string{"host:port"}},
		{"a list", func(c *gracedb.Cluster) { c.Brokers = []string{"a:1,b:2"} }, []string{"host:port"}},
		{"plaintext far away", func(c *gracedb.Cluster) {
			c.Plaintext, c.Brokers = true, []string{"localhost:1", "kafka.ligo.org:9092"}
		}, []string{"Plaintext", "kafka.ligo.org:9092"}},
		{"plaintext and TLS", func(c *gracedb.Cluster) { c.Plaintext, c.CAFile = true, "ca.pem" }, []string{"Plaintext", "CAFile"}},
		{"CA file missing", func(c *gracedb.Cluster) { c.CAFile = noPEM + "x" }, []string{"CAFile", noPEM + "x"}},
		{"CA file empty", func(c *gracedb.Cluster) { c.CAFile = noPEM }, []string{"CAFile", noPEM}},
		{"engine's option", func(c *gracedb.Cluster) { c.Opts = []kgo.Opt{kgo.MetadataMinAge(time.Millisecond)} }, []string{"Cluster"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster := gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "gracedb-test", Token: gracedb.StaticToken("a.b.c")}
			cluster.Dial = func(context.Context, string, string) (net.Conn, error) {
				t.Error("connects")
				return nil, os.ErrPermission
			}
			tt.change(&cluster)
			if tt.name != "engine's option" { // which only a client of it refuses
				_, err := cluster.ClientOpts()
				wantErr(t, err, kinds(gracedb.ErrConfig), nil, tt.names...)
			}
			p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Lazy: true})
			if p != nil {
				t.Error("a producer")
			}
			wantErr(t, err, kinds(gracedb.ErrConfig), kinds(gracedb.ErrConnection), tt.names...)
			c, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Lazy: true})
			if c != nil {
				t.Error("a consumer")
			}
			wantErr(t, err, kinds(gracedb.ErrConfig), kinds(gracedb.ErrConnection), tt.names...)
		})
	}
}

// What keeps a client from working is said by its constructor, at once, and as what
// it is.
func TestConstructorErrors(t *testing.T) {
	rights := map[string][]kfake.ACL{"alice": {}}
	for _, op := range []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe} {
		rights["alice"] = append(rights["alice"], allow(kmsg.ACLResourceTypeTopic, testTopic, op))
	}
	c := startCluster(t, kafkatest.Config{Topics: map[string]int{testTopic: 1, "gracedb-test.gstlal": 1, "gracedb-dev.test": 1}})
	guarded := startCluster(t, kafkatest.Config{Topics: map[string]int{testTopic: 1, "gracedb-test.secret": 1}, Subjects: rights})
	plain := startCluster(t, kafkatest.Config{Plaintext: true})
	for _, tt := range []struct {
		name      string
		change    func(*gracedb.Cluster)
		topic     string
		is, isNot []error
		names     []string
	}{
		{
			"missing topic", func(*gracedb.Cluster) {}, "nosuch",
			kinds(gracedb.ErrTopic, kerr.UnknownTopicOrPartition), kinds(gracedb.ErrConnection),
			[]string{"gracedb-test.nosuch", c.Addrs()[0], "the token's sub is alice", "gstlal", "test"},
		},
		{
			"wrong instance", func(g *gracedb.Cluster) { g.Instance = "gracedb-playground" }, "test",
			kinds(gracedb.ErrTopic), nil,
			[]string{"gracedb-playground.test", "gracedb-dev", "gracedb-test"},
		},
		{
			"no right", func(g *gracedb.Cluster) { *g = clusterFor(t, guarded, "alice") }, "secret",
			kinds(gracedb.ErrTopic, kerr.TopicAuthorizationFailed), nil,
			[]string{"gracedb-test.secret", "the token's sub is alice", "does not exist"},
		},
		{
			"not a token", func(g *gracedb.Cluster) { g.Token = gracedb.StaticToken("a.b\x01c") }, "test",
			kinds(gracedb.ErrToken, gracedb.ErrAuthentication), kinds(gracedb.ErrConnection),
			[]string{"token"},
		},
		{"source fails", func(g *gracedb.Cluster) {
			g.Token = func(context.Context) (string, error) { return "", os.ErrPermission }
		}, "test", kinds(gracedb.ErrToken, os.ErrPermission), nil, []string{"permission denied"}},
		{"expired token", func(g *gracedb.Cluster) {
			g.Token = gracedb.StaticToken(mint(t, c, testauth.Claims{Expires: time.Now().Add(-3 * time.Hour)}))
		}, "test", kinds(gracedb.ErrToken), nil, []string{"expired 3h", "htgettoken"}},
		{"token just expired", func(g *gracedb.Cluster) {
			g.Token = gracedb.StaticToken(mint(t, c, testauth.Claims{Expires: time.Now().Add(-2 * time.Minute)}))
		}, "test", kinds(gracedb.ErrToken), nil, []string{"expired 2m", "htgettoken", "check the clock of this machine"}},
		{"wrong audience", func(g *gracedb.Cluster) {
			g.Token = gracedb.StaticToken(mint(t, c, testauth.Claims{Audience: []string{"https://elsewhere"}}))
		}, "test", kinds(gracedb.ErrAuthentication, kerr.SaslAuthenticationFailed), kinds(gracedb.ErrToken, gracedb.ErrConnection), []string{"invalid_token", c.Addrs()[0]}},
		{
			"refused port", func(g *gracedb.Cluster) { g.Brokers, g.Dial = []string{"localhost:1"}, nil }, "test",
			kinds(gracedb.ErrConnection), kinds(gracedb.ErrAuthentication),
			[]string{"localhost:1", "refused"},
		},
		{"unknown host", func(g *gracedb.Cluster) {
			g.Brokers = []string{"nosuch.invalid:9092"}
			g.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "nosuch.invalid", IsNotFound: true}}
			}
		}, "test", kinds(gracedb.ErrConnection), nil, []string{"nosuch.invalid", "no such host"}},
		{
			"wrong CA", func(g *gracedb.Cluster) { g.CAFile = guarded.CAFile() }, "test",
			kinds(gracedb.ErrConnection), kinds(gracedb.ErrAuthentication),
			[]string{"CAFile", c.Addrs()[0]},
		},
		{
			"no TLS there", func(g *gracedb.Cluster) { g.Brokers, g.Dial = plain.Addrs(), plain.Dial }, "test",
			kinds(gracedb.ErrConnection), kinds(gracedb.ErrAuthentication),
			[]string{plain.Addrs()[0]},
		},
		{
			"TLS there", func(g *gracedb.Cluster) { g.Plaintext, g.CAFile = true, "" }, "test",
			kinds(gracedb.ErrConnection), kinds(gracedb.ErrAuthentication),
			[]string{c.Addrs()[0], "TLS"},
		},
	} {
		for _, make := range constructors {
			t.Run(tt.name+"/"+make.Name, func(t *testing.T) {
				t.Parallel()
				cluster := clusterFor(t, c, "alice")
				tt.change(&cluster)
				start := time.Now()
				made, err := make.Make(t.Context(), cluster, tt.topic)
				if err == nil {
					_ = made.Close()
				}
				wantErr(t, err, append(kinds(make.Kind, gracedb.ErrKafka), tt.is...), append(kinds(gracedb.ErrConfig), tt.isNot...), tt.names...)
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("after %v", took)
				}
				t.Logf("after %v: %v", time.Since(start).Round(time.Millisecond), err)
			})
		}
	}
}

// A constructor waits for a silent broker until ctx ends, at most 30 seconds, and
// says who is silent.
func TestConstructorSilence(t *testing.T) {
	for _, tt := range []struct {
		name    string
		silence func(*kafkatest.Cluster)
		timeout time.Duration // of ctx
		want    time.Duration
	}{
		{"mute", func(c *kafkatest.Cluster) { c.Mute(kafkatest.MuteRequests) }, 0, 30 * time.Second},
		{"mute, with ctx", func(c *kafkatest.Cluster) { c.Mute(kafkatest.MuteRequests) }, 2 * time.Second, 2 * time.Second},
		{"frozen, with ctx", func(c *kafkatest.Cluster) { c.Freeze() }, 2 * time.Second, 2 * time.Second},
	} {
		for _, make := range constructors {
			t.Run(tt.name+"/"+make.Name, func(t *testing.T) {
				virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
					cluster := clusterFor(t, c, "alice")
					tt.silence(c)
					ctx := t.Context()
					if tt.timeout > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tt.timeout)
						defer cancel()
					}
					start := time.Now()
					_, err := make.Make(ctx, cluster, "test")
					wantErr(t, err, kinds(gracedb.ErrConnection, make.Kind, context.DeadlineExceeded), nil, c.Addrs()[0])
					if took := time.Since(start); took < tt.want || took > tt.want+100*time.Millisecond {
						t.Errorf("after %v, want %v", took, tt.want)
					}
					t.Log(err)
				})
			})
		}
	}
}

// A cluster is plain data: nothing of it is changed or kept.
func TestClusterIsData(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	cluster := clusterFor(t, c, "alice")
	p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	cluster.Brokers[0] = "nobody:1"
	send(t, p, "x")
	if err := p.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// A bare kgo client works with ClientOpts, and with OAuthBearer alone.
func TestBareClient(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	opts, err := clusterFor(t, c, "alice").ClientOpts()
	if err != nil {
		t.Fatal(err)
	}
	authority := c.Authority().Pool()
	for name, opts := range map[string][]kgo.Opt{
		"ClientOpts": opts,
		"OAuthBearer": {
			kgo.SeedBrokers(c.Addrs()...), kgo.DialTLSConfig(&tls.Config{RootCAs: authority, MinVersion: tls.VersionTLS12}),
			kgo.SASL(gracedb.OAuthBearer(clusterFor(t, c, "bob").Token)),
		},
	} {
		t.Run(name, func(t *testing.T) {
			cl, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic(testTopic))...)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			if err := cl.ProduceSync(t.Context(), kgo.StringRecord(name)).FirstErr(); err != nil {
				t.Error(err)
			}
			topics, err := kadm.NewClient(cl).ListTopics(t.Context())
			if err != nil || !topics.Has(testTopic) {
				t.Errorf("%v, %v", topics, err)
			}
		})
	}
}

// The error of a bare client with OAuthBearer shows what the broker said.
func TestBareClientRefused(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	c.RefuseTokens(kafkatest.Refusal{Status: "insufficient_scope", Scope: "kafka.write"})
	opts, err := clusterFor(t, c, "alice").ClientOpts()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = cl.Ping(ctx)
	for _, want := range []string{"insufficient_scope", "kafka.write"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	wantIs(t, err, gracedb.ErrAuthentication, kerr.SaslAuthenticationFailed)
}

// Opts of the user win over ours.
func TestClusterOpts(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	cluster := clusterFor(t, c, "alice")
	cluster.Opts = []kgo.Opt{kgo.ClientID("search")}
	opts, err := cluster.ClientOpts()
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if got := cl.OptValue(kgo.ClientID); got != "search" {
		t.Errorf("client id %v", got)
	}
}

// What is logged is about trouble, and holds no token.
func TestClusterLogger(t *testing.T) {
	c := startCluster(t, kafkatest.Config{})
	var log lockedBuffer
	cluster := clusterFor(t, c, "alice")
	cluster.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
	send(t, p, "x")
	c.Drop(kafkatest.RST)
	send(t, p, "y")
	text := log.String()
	if strings.Contains(text, "eyJ") {
		t.Error("a token is logged")
	}
	if !strings.Contains(text, "gracedb: kafka: ") {
		t.Errorf("nothing of the engine: %.300s", text)
	}
}

// As users write them, where the compiler puts the functions of options into their callers.
func TestOptsRefused(t *testing.T) {
	with := func(opts ...kgo.Opt) gracedb.Cluster {
		return gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "x", Token: gracedb.StaticToken("a.b.c"), Opts: opts}
	}
	for name, opt := range map[string]kgo.Opt{
		"Dialer":                  kgo.Dialer(nil),
		"DialTLSConfig":           kgo.DialTLS(),
		"SASL":                    kgo.SASL(),
		"WithContext":             kgo.WithContext(context.Background()),
		"ProducerBatchMaxBytesFn": kgo.ProducerBatchMaxBytes(1 << 20),
		"ProducerLinger":          kgo.ProducerLinger(time.Second),
		"ProduceRequestTimeout":   kgo.ProduceRequestTimeout(time.Second),
		"RequiredAcks":            kgo.RequiredAcks(kgo.LeaderAck()),
		"DisableIdempotentWrite":  kgo.DisableIdempotentWrite(),
		"RecordDeliveryTimeout":   kgo.RecordDeliveryTimeout(time.Second),
		"ConsumeStartOffset":      kgo.ConsumeStartOffset(kgo.NewOffset().AtEnd()),
		"ConsumeResetOffset":      kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		"WithDecompressor":        kgo.WithDecompressor(kgo.DefaultDecompressor()),
		"DisableAutoCommit":       kgo.DisableAutoCommit(),
		"OnPartitionsLost":        kgo.OnPartitionsLost(nil),
	} {
		c := with(opt)
		_, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: c, Topics: []string{"test"}, Lazy: true, GroupID: "g"})
		_, err2 := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: c, Lazy: true})
		for _, err := range []error{err, err2} {
			if !errors.Is(err, errs.Config) || !strings.Contains(err.Error(), "kgo."+name+": ") {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err = c.ClientOpts()
		if _, refused := cluster.Connecting[name]; refused != errors.Is(err, errs.Config) {
			t.Errorf("ClientOpts with %s: %v", name, err)
		}
	}
	if _, err := with(nil).ClientOpts(); !errors.Is(err, errs.Config) {
		t.Errorf("a nil option: %v", err)
	}
}

// A Metadata answer names hundreds of leaders that are silent: a client dials no more than
// 16 addresses at a time, and the good broker answers meanwhile.
func TestDialsAtOnce(t *testing.T) {
	const strangers = 300
	for _, make := range constructors {
		t.Run(make.Name, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
					m := resp.(*kmsg.MetadataResponse)
					for i := range int32(strangers) {
						b := kmsg.NewMetadataResponseBroker()
						b.NodeID, b.Host, b.Port = 1000+i, fmt.Sprintf("b%d.invalid", i), 9092
						m.Brokers = append(m.Brokers, b)
					}
					for i := range m.Topics {
						for n := range int32(strangers) {
							p := kmsg.NewMetadataResponseTopicPartition()
							p.Partition, p.Leader = int32(len(m.Topics[i].Partitions)), 1000+n
							m.Topics[i].Partitions = append(m.Topics[i].Partitions, p)
						}
					}
				}})
				var now, most, all atomic.Int64
				cluster := clusterFor(t, c, "alice")
				good := c.Addrs()[0]
				cluster.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					defer now.Add(-1)
					for n := now.Add(1); ; {
						if was := most.Load(); n <= was || most.CompareAndSwap(was, n) {
							break
						}
					}
					if address == good {
						return c.Dial(ctx, network, address)
					}
					all.Add(1)
					<-ctx.Done() // silent
					return nil, ctx.Err()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				start := time.Now()
				got, err := make.Make(ctx, cluster, "test")
				if err == nil {
					defer got.Close()
				}
				if took := time.Since(start); took > 21*time.Second {
					t.Errorf("after %v", took)
				}
				if n := most.Load(); n > 16 || n < 2 {
					t.Errorf("%d dials at a time, want at most 16", n)
				}
				if all.Load() < 16 {
					t.Errorf("%d dials to strangers: %v", all.Load(), err)
				}
			})
		})
	}
}

// A Dial that heeds no ctx keeps no call past its own, a Producer's Close not past FlushTimeout,
// and a Consumer's not past its 3 seconds.
func TestDialHeedsNoContext(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		cluster := clusterFor(t, c, "alice")
		var deaf atomic.Bool
		release := make(chan struct{})
		defer close(release)
		cluster.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if deaf.Load() {
				<-release
				return nil, net.ErrClosed
			}
			return c.Dial(ctx, network, address)
		}
		cfg := gracedb.ProducerConfig{Cluster: cluster, Topic: "test", FlushTimeout: 2 * time.Second}
		p, err := gracedb.NewProducer(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		// kgo (v1.22.3) holds a mutex while it joins a group. A commit that comes due meanwhile waits
		// for it, and virtual time stands still, but where kgo is built with the tag synctests.
		seldom := cluster
		seldom.Opts = []kgo.Opt{kgo.AutoCommitInterval(time.Hour)}
		con, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: seldom, Topics: []string{"test"}, GroupID: "g"})
		if err != nil {
			t.Fatal(err)
		}
		deaf.Store(true)
		c.Drop(0)
		for what, call := range map[string]func(context.Context) error{
			"ProduceSync": func(ctx context.Context) error { return sendOne(ctx, p) },
			"Check":       p.Check,
			"Poll":        func(ctx context.Context) error { _, err := con.Poll(ctx); return err },
			"NewProducer": func(ctx context.Context) error { _, err := gracedb.NewProducer(ctx, cfg); return err },
			"Close":       func(context.Context) error { p.Close(); return context.DeadlineExceeded },
			"Consumer's":  func(context.Context) error { con.Close(); return context.DeadlineExceeded },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			start := time.Now()
			err := call(ctx)
			bound := 2200 * time.Millisecond
			if what == "Consumer's" {
				bound = 3 * time.Second
			}
			if took := time.Since(start); took > bound {
				t.Errorf("%s: after %v", what, took)
			}
			if err == nil {
				t.Errorf("%s: no error", what)
			}
			cancel()
		}
	})
}
