package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A kgo.Client of the caller's, with ClientOpts, shows no token that a broker's refusal by
// code 58 repeats, and shows a reason that holds none as it is.
func TestCanaryOfClientOpts(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		token := testrig.Mint(t, c, testauth.Claims{Subject: "alice"})
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Token = gracedb.StaticToken(token)
		forms := disguises(token)
		forms["none"] = "alice may not log in here"
		for name, said := range forms {
			for version := range int16(3) {
				l := newLeak(t, token)
				l.causes = true
				i := c.Inject(kafkatest.Fault{
					Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.SASLAuthenticate, kmsg.ApiVersions}, Count: -1,
					Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
						switch r := resp.(type) {
						case *kmsg.SASLAuthenticateResponse:
							r.ErrorCode, r.ErrorMessage, r.SASLAuthBytes = kerr.SaslAuthenticationFailed.Code, &said, nil
						case *kmsg.ApiVersionsResponse:
							i := slices.IndexFunc(r.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == int16(kmsg.SASLAuthenticate) })
							r.ApiKeys[i].MaxVersion = version
						}
					},
				})
				err := pingWithOpts(t, cluster, l)
				i.Remove()
				l.show(name, err)
				l.check()
				if err == nil || !strings.Contains(err.Error(), "SASL_AUTHENTICATION_FAILED") {
					t.Errorf("%s: %v", name, err)
				}
				if name == "none" && !strings.Contains(err.Error(), said) {
					t.Errorf("%v does not say %q", err, said)
				}
			}
		}
	})
}

// pingWithOpts asks a broker something as a program does that uses kgo itself.
func pingWithOpts(t *testing.T, cluster gracedb.Cluster, l *leak) error {
	t.Helper()
	opts, err := cluster.ClientOpts()
	if err != nil {
		t.Fatal(err)
	}
	opts = append(opts, kgo.WithLogger(kgo.BasicLogger(l, kgo.LogLevelDebug, nil)))
	client, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	return client.Ping(ctx)
}

// Nor does its error for a broker that another calls like the token.
func TestCanaryOfClientOptsAddress(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		token := testrig.Mint(t, c, testauth.Claims{Subject: "alice"})
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Token = gracedb.StaticToken(token)
		for name, said := range disguises(token) {
			i := c.Inject(kafkatest.Fault{
				Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1,
				Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
					r := resp.(*kmsg.MetadataResponse)
					b := kmsg.NewMetadataResponseBroker()
					b.NodeID, b.Host, b.Port = 7, said, 9092
					r.Brokers = append(r.Brokers, b)
				},
			})
			opts, err := cluster.ClientOpts()
			if err != nil {
				t.Fatal(err)
			}
			client, err := kgo.NewClient(opts...)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client); err != nil {
				t.Error(err)
			}
			_, err = client.Broker(7).Request(ctx, kmsg.NewPtrMetadataRequest())
			cancel()
			client.Close()
			i.Remove()
			if err == nil || !strings.Contains(err.Error(), "dial") {
				t.Errorf("%s: %v", name, err)
			}
			l := newLeak(t, token)
			l.causes = true
			l.show(name, err)
			l.check()
		}
	})
}

// A broker that claims to be older than SaslAuthenticate is not sent the token, since none of
// its answers could be judged.
func TestNoRawLogin(t *testing.T) {
	for name, change := range map[string]func(*kmsg.ApiVersionsResponseApiKey){
		"version 0":    func(k *kmsg.ApiVersionsResponseApiKey) { k.MaxVersion = 0 },
		"no handshake": func(k *kmsg.ApiVersionsResponseApiKey) { k.ApiKey = 999 },
	} {
		t.Run(name, func(t *testing.T) {
			testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				c.Inject(kafkatest.Fault{
					Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.ApiVersions}, Count: -1,
					Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
						r := resp.(*kmsg.ApiVersionsResponse)
						i := slices.IndexFunc(r.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == int16(kmsg.SASLHandshake) })
						change(&r.ApiKeys[i])
					},
				})
				for _, make := range testrig.Constructors {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					_, err := make.Make(ctx, testrig.ClusterFor(t, c, "alice"), "test")
					cancel()
					testrig.WantErr(t, err, testrig.Kinds(make.Kind, gracedb.ErrConnection), nil, c.Addrs()[0], "login of before Kafka 1.0")
				}
			})
		})
	}
}

// What OAuthBearer's mechanism returns is formatted by whoever debugs an engine.
func TestSessionShowsNoToken(t *testing.T) {
	_, token := aliceToken(t)
	mechanism := gracedb.OAuthBearer(gracedb.StaticToken(token))
	session, first, err := mechanism.Authenticate(t.Context(), "localhost:1")
	if err != nil || !strings.Contains(string(first), token) {
		t.Fatalf("%v, and the first message has no token", err)
	}
	l := newLeak(t, token)
	l.show("session", session)
	l.show("mechanism", mechanism)
	fmt.Fprintf(l, "%x %d %T", session, session, session)
	l.check()
	if text := fmt.Sprintf("%#v", session); strings.Contains(text, "alice") {
		t.Error(text)
	}
}
