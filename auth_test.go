package gracedb_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// What a broker refuses without a reason, the error explains as far as the token tells.
// internal/interop asks Apache Kafka the same.
func TestRefusalText(t *testing.T) {
	virtually(t, kafkatest.Config{Audiences: []string{"kafka.test"}, ClockSkew: 30 * time.Second}, func(t *testing.T, c *kafkatest.Cluster) {
		stranger, err := testauth.NewIssuer(c.Issuer().URL())
		if err != nil {
			t.Fatal(err)
		}
		good := []string{"kafka.test"}
		now := time.Now()
		for _, tt := range []struct {
			name   string
			issuer *testauth.Issuer
			claims testauth.Claims
			says   []string
		}{
			{"ANY", nil, testauth.Claims{Audience: []string{"ANY"}}, []string{"may not list ANY in sasl.oauthbearer.expected.audience", "want https://localhost or localhost", "aud ANY,"}},
			{"another audience", nil, testauth.Claims{Audience: []string{"https://a", "https://b"}}, []string{"may want another audience", "aud https://a https://b,"}},
			{"audience in another form", nil, testauth.Claims{Audience: []string{"https://localhost"}}, []string{"another form of its name"}},
			{"no audience", nil, testauth.Claims{Extra: map[string]any{"aud": nil}}, []string{"it has no aud", "aud none,"}},
			{"issuer", nil, testauth.Claims{Audience: good, Extra: map[string]any{"iss": c.Issuer().URL() + "/"}}, []string{"may not know its issuer or its key", "iss " + c.Issuer().URL() + "/,"}},
			{"key", stranger, testauth.Claims{Audience: good}, []string{"may not know its issuer or its key", "kid test-"}},
			{"no iat", nil, testauth.Claims{Audience: good, Extra: map[string]any{"iat": nil}}, []string{"invalid_token: it has no iat; the token says", "iat none,"}},
			{"no exp", nil, testauth.Claims{Audience: good, Extra: map[string]any{"exp": nil}}, []string{"it has no exp;", "exp none;"}},
			{"exp of text", nil, testauth.Claims{Audience: good, Extra: map[string]any{"exp": "4102444800"}}, []string{"its exp is not a number of seconds;"}},
			{"no sub", nil, testauth.Claims{Audience: good, Extra: map[string]any{"sub": nil}}, []string{"it has no sub, which Kafka needs", "says sub none,"}},
			{"empty scope", nil, testauth.Claims{Audience: good, Extra: map[string]any{"scope": ""}}, []string{"its scope is empty;"}},
			{"scope twice", nil, testauth.Claims{Audience: good, Extra: map[string]any{"scope": []string{"a", "a"}}}, []string{"its scope lists one twice;"}},
			{"nbf ahead", nil, testauth.Claims{Audience: good, NotBefore: now.Add(time.Hour)}, []string{"it is not valid yet (nbf is 1h ahead of this machine's clock)"}},
			{"iat behind exp", nil, testauth.Claims{Audience: good, IssuedAt: now.Add(time.Hour), NotBefore: now, Expires: now.Add(time.Minute)}, []string{"its iat is later than its exp"}},
		} {
			issuer := tt.issuer
			if issuer == nil {
				issuer = c.Issuer()
			}
			tok, err := issuer.Token(tt.claims)
			if err != nil {
				t.Fatal(err)
			}
			cluster := clusterFor(t, c, "")
			cluster.Token = gracedb.StaticToken(tok)
			start := time.Now()
			_, err = gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			wantErr(t, err, kinds(gracedb.ErrAuthentication, kerr.SaslAuthenticationFailed), kinds(gracedb.ErrToken, gracedb.ErrConnection),
				append(tt.says, c.Addrs()[0], "invalid_token", "; the reason is in the broker's log")...)
			if err != nil && len(err.Error()) > 900 {
				t.Errorf("%s: %d bytes", tt.name, len(err.Error()))
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: told after %v", tt.name, took)
			}
			t.Logf("%s: %v", tt.name, err)
		}
		// What Kafka accepts.
		for name, claims := range map[string]testauth.Claims{
			"one of several audiences": {Audience: []string{"ANY", "kafka.test"}},
			"iat ahead":                {Audience: good, IssuedAt: now.Add(time.Minute), NotBefore: now},
			"nbf within the skew":      {Audience: good, NotBefore: now.Add(20 * time.Second)},
			"exp with a fraction":      {Audience: good, Extra: map[string]any{"exp": float64(now.Unix()) + 3600.5}},
			"no scope":                 {Audience: good, Extra: map[string]any{"scope": nil}},
		} {
			cluster := clusterFor(t, c, "")
			cluster.Token = gracedb.StaticToken(mint(t, c, claims))
			p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_ = p.Close()
		}
	})
}

// The place where FindToken has found a token is named.
func TestRefusalNamesThePlace(t *testing.T) {
	c := startCluster(t, kafkatest.Config{Audiences: []string{"kafka.test"}})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(mint(t, c, testauth.Claims{Subject: "carol"})), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, "")
	}
	t.Setenv("BEARER_TOKEN_FILE", file)
	cluster := clusterFor(t, c, "")
	cluster.Token = nil
	_, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
	wantErr(t, err, kinds(gracedb.ErrAuthentication), kinds(gracedb.ErrToken), "the token says sub carol", "(found at $BEARER_TOKEN_FILE "+file+")")
}

// A token that no broker takes is not sent; at one of 600 kB Kafka hangs up without a word.
func TestTokenTooLongForKafka(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		for size, fits := range map[int]bool{300_000: true, 450_000: false} {
			cluster := clusterFor(t, c, "")
			tok := mint(t, c, testauth.Claims{Extra: map[string]any{"note": strings.Repeat("x", size)}})
			cluster.Token = gracedb.StaticToken(tok)
			p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			switch {
			case fits && err != nil:
				t.Errorf("%d bytes: %v", len(tok), err)
			case fits:
				_ = p.Close()
			default:
				wantErr(t, err, kinds(gracedb.ErrToken), kinds(gracedb.ErrConnection), "Kafka takes none of more than 512 KiB (sasl.server.max.receive.size 524288)")
			}
		}
	})
}

// In the last second of a token that nobody renews, no call tells of the protocol:
// sessions of less than two seconds are not begun.
func TestTokenEndsWithoutAnother(t *testing.T) {
	virtually(t, kafkatest.Config{Brokers: 3, MaxSession: time.Minute, Topics: map[string]int{testTopic: 3}}, func(t *testing.T, c *kafkatest.Cluster) {
		for _, offset := range []int{0, 300, 600, 900, 1200, 1700} {
			cluster := clusterFor(t, c, "")
			expires := time.Now().Add(20 * time.Second).Truncate(time.Second)
			cluster.Token = gracedb.StaticToken(mint(t, c, testauth.Claims{Subject: "alice", Expires: expires}))
			time.Sleep(time.Duration(offset) * time.Millisecond)
			p := newProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test", AuthGrace: -1})
			ends := 0
			for time.Until(expires) > -time.Second {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				for _, err := range []error{p.Check(ctx), sendOne(ctx, p)} {
					switch {
					case err == nil:
					case strings.Contains(err.Error(), "ILLEGAL_SASL_STATE") || !errors.Is(err, gracedb.ErrToken) && !errors.Is(err, context.DeadlineExceeded):
						t.Errorf("%v before the end: %v", time.Until(expires), err)
					case strings.Contains(err.Error(), "and there is no newer one"):
						ends++
					}
				}
				cancel()
				time.Sleep(30 * time.Millisecond)
			}
			if ends == 0 {
				t.Error("no call says that the token ends")
			}
		}
	})
}

func sendOne(ctx context.Context, p *gracedb.Producer) error {
	_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("x")})
	return err
}

// A broker names another host as its own, which has a certificate for that name.
func TestTokenHosts(t *testing.T) {
	for _, tt := range []struct {
		hosts []string
		shown bool
	}{
		{nil, true},
		{[]string{".example.org", "LocalHost."}, true},
		{[]string{"example.org"}, false},
		{[]string{".localhost"}, false},
		{[]string{".host"}, false},
		{[]string{"127.0.0.1"}, false},
	} {
		t.Run(fmt.Sprint(tt.hosts), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				cluster := clusterFor(t, c, "alice")
				cluster.Brokers, cluster.TokenHosts = []string{"127.0.0.1:9092"}, tt.hosts
				var mu sync.Mutex
				var dialed []string
				cluster.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					dialed = append(dialed, address)
					if address == cluster.Brokers[0] {
						address = c.Addrs()[0]
					}
					return c.Dial(ctx, network, address)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
				if err == nil {
					defer func() { _ = p.Close() }()
				}
				mu.Lock()
				defer mu.Unlock()
				if shown := slices.Contains(dialed, c.Addrs()[0]); shown != tt.shown {
					t.Errorf("dialed %q", dialed)
				}
				if tt.shown {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantErr(t, err, kinds(gracedb.ErrConnection), nil, c.Addrs()[0], "TokenHosts")
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("told after %v", took)
				}
			})
		})
	}
}

func TestTokenHostsAndBrokersAreChecked(t *testing.T) {
	for _, host := range []string{"", ".", "*.example.org", "https://example.org", "alice:hunter2@example.org", "example.org:9092", "a,b"} {
		_, err := gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "gracedb-test", TokenHosts: []string{host}}.ClientOpts()
		wantErr(t, err, kinds(gracedb.ErrConfig), nil, "TokenHosts")
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	}
	for _, broker := range []string{"alice:hunter2@host:9092", "SASL_SSL://alice:hunter2@host:9092", "SASL_SSL://hunter2:9092", "alice:hunter2@", "@hunter2"} {
		_, err := gracedb.Cluster{Brokers: []string{broker}, Instance: "gracedb-test"}.ClientOpts()
		wantErr(t, err, kinds(gracedb.ErrConfig), nil, "host:port")
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	}
}
