package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
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

// The findings about ligo-gracedb 2.16.1 that concern tokens, by their numbers: what
// happens there must not happen here.

// tokenPlaces makes all places where tokens are looked for empty, and returns a
// directory for files.
func tokenPlaces(t testing.TB) string {
	t.Helper()
	for _, name := range []string{
		"IGWN_AUTH_UTILS_FIND_SCITOKEN", "SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR",
	} {
		t.Setenv(name, "") // restored afterwards
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	return t.TempDir()
}

// put writes a file that is not young, which would be read twice.
func put(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	return path
}

// tokenFileTest runs f in virtual time with BEARER_TOKEN_FILE and a cluster whose
// clients look there.
func tokenFileTest(t *testing.T, f func(t *testing.T, c *kafkatest.Cluster, cluster gracedb.Cluster, write func(text string), live func(time.Duration) string)) {
	path := filepath.Join(tokenPlaces(t), "token")
	t.Setenv("BEARER_TOKEN_FILE", path)
	synctest.Test(t, func(t *testing.T) {
		c := testrig.StartCluster(t, kafkatest.Config{Virtual: true})
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Token = nil
		f(t, c, cluster, func(text string) { put(t, path, text) }, func(life time.Duration) string {
			return testrig.Mint(t, c, testauth.Claims{Subject: "alice", Expires: time.Now().Add(life)})
		})
	})
}

// 12: once a token has expired, no new one helps.
func TestPeerFinding_12_ForEver(t *testing.T) {
	tokenFileTest(t, func(t *testing.T, c *kafkatest.Cluster, cluster gracedb.Cluster, write func(string), live func(time.Duration) string) {
		write(live(30 * time.Second))
		p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		con := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})

		// Load: what is accepted has an outcome that is true, and what is not accepted
		// is told at once.
		var accepted, refused atomic.Int32
		var mu sync.Mutex
		outcomes := make(map[string]error)
		end := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				for n := 0; ; n++ {
					select {
					case <-end:
						return
					case <-tick.C:
					}
					text := fmt.Sprint(i, " ", n)
					err := p.Produce(context.Background(), gracedb.Message{Key: fmt.Append(nil, i), Value: []byte(text)}, func(_ gracedb.Message, err error) {
						mu.Lock()
						defer mu.Unlock()
						outcomes[text] = err
					})
					if err != nil {
						refused.Add(1)
						testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrToken, gracedb.ErrDelivery), nil, "expired")
					} else {
						accepted.Add(1)
					}
				}
			})
		}
		time.Sleep(85 * time.Second) // 55 s without
		testrig.WantErr(t, p.Check(testrig.Within(t, time.Second)), testrig.Kinds(gracedb.ErrToken, gracedb.ErrProducer), testrig.Kinds(gracedb.ErrConnection), "expired")
		if refused.Load() == 0 {
			t.Error("nobody was told")
		}
		write(live(time.Hour))
		time.Sleep(time.Second)
		for name, call := range map[string]func() error{
			"Ping":           func() error { _, err := p.Ping(t.Context(), ""); return err },
			"Check":          func() error { return p.Check(t.Context()) },
			"ProduceSync":    func() error { _, err := p.ProduceSync(t.Context(), gracedb.Message{Key: []byte("0")}); return err },
			"Consumer.Check": func() error { return con.Check(t.Context()) },
		} {
			if err := call(); err != nil {
				t.Errorf("%s after the token's return: %v", name, err)
			}
		}
		before := refused.Load()
		time.Sleep(10 * time.Second)
		close(end)
		wg.Wait()
		if err := p.Flush(testrig.Within(t, time.Second)); err != nil {
			t.Error(err)
		}
		if refused.Load() != before || len(outcomes) != int(accepted.Load()) {
			t.Errorf("%d accepted, %d told, %d refused after the token's return", accepted.Load(), len(outcomes), refused.Load()-before)
		}
		inLog := make(map[string]int)
		for _, v := range testrig.Values(t, c, testrig.Topic) {
			inLog[v]++
		}
		unknown := 0
		for text, err := range outcomes {
			switch n := inLog[text]; {
			case err == nil && n != 1, n > 1:
				t.Errorf("%s is in the log %d times: %v", text, n, err)
			case errors.Is(err, gracedb.ErrOutcomeUnknown):
				unknown++
			case err != nil:
				t.Errorf("%s was accepted, and lost: %v", text, err)
			}
		}
		t.Logf("%d accepted, %d of these with an unknown outcome; %d refused meanwhile", accepted.Load(), unknown, refused.Load())
		if unknown > 4 { // what is in flight as the session ends: one of each key
			t.Errorf("%d unknown", unknown)
		}
		want := len(testrig.Values(t, c, testrig.Topic))

		// The consumer says it once, and misses nothing.
		said := 0
		for next := int64(0); next < int64(want); {
			m, err := con.Poll(testrig.Within(t, 5*time.Second))
			switch {
			case err != nil:
				said++
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrToken, gracedb.ErrConsumer), nil, "expired")
				if said > 1 {
					t.Fatal("said again")
				}
			case m.Offset != next:
				t.Fatalf("got %d, want %d", m.Offset, next)
			default:
				next++
			}
		}
	})
}

// 13: a token file that is read while it is written is handed to the broker, with a
// made-up life.
func TestPeerFinding_13_PartlyWritten(t *testing.T) {
	for _, part := range []string{"empty", "half", "garbage"} {
		t.Run(part, func(t *testing.T) {
			tokenFileTest(t, func(t *testing.T, c *kafkatest.Cluster, cluster gracedb.Cluster, write func(string), live func(time.Duration) string) {
				first := live(40 * time.Second)
				write(first)
				p := testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
				time.Sleep(10 * time.Second)
				write(map[string]string{"empty": "", "half": first[:len(first)/2], "garbage": "\x00\xff <html>"}[part])
				for range 28 { // the first is still good
					if _, err := p.ProduceSync(testrig.Within(t, time.Second), gracedb.Message{}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				time.Sleep(7 * time.Second)
				write(live(time.Hour))
				time.Sleep(time.Second)
				if _, err := p.ProduceSync(testrig.Within(t, time.Second), gracedb.Message{}); err != nil {
					t.Error(err)
				}
				for _, l := range c.Logins() {
					if l.Refused != "" || l.Lifetime > time.Hour {
						t.Errorf("shown to the broker: %+v", l)
					}
				}
			})
		})
	}
}

// 14: SCITOKEN, SCITOKEN_FILE and _CONDOR_CREDS work for HTTP only, so that Kafka
// and HTTP may use two different tokens.
func TestPeerFinding_14_OneSearch(t *testing.T) {
	c := testrig.StartCluster(t, kafkatest.Config{})
	place := func(t *testing.T, name, tok string) {
		dir := t.TempDir()
		switch name {
		case "SCITOKEN", "BEARER_TOKEN":
			t.Setenv(name, tok)
		case "SCITOKEN_FILE", "BEARER_TOKEN_FILE":
			t.Setenv(name, put(t, filepath.Join(dir, "token"), tok))
		case "_CONDOR_CREDS":
			put(t, filepath.Join(dir, "igwn.use"), tok)
			t.Setenv(name, dir)
		case "_CONDOR_CREDS, JSON":
			put(t, filepath.Join(dir, "igwn.use"), `{"access_token": "`+tok+`", "expires_in": 10800}`)
			t.Setenv("_CONDOR_CREDS", dir)
		}
	}
	// who authenticates with what is found is who the broker saw.
	who := func(t *testing.T) {
		cluster := testrig.ClusterFor(t, c, "nobody")
		cluster.Token = nil
		before := len(c.Logins())
		testrig.Send(t, testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"}), "x")
		testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
		for _, l := range c.Logins()[before:] {
			if l.Subject != "worker" || l.Refused != "" {
				t.Errorf("%+v", l)
			}
		}
	}
	worker := testrig.Mint(t, c, testauth.Claims{Subject: "worker"})
	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "_CONDOR_CREDS, JSON", "BEARER_TOKEN", "BEARER_TOKEN_FILE"} {
		t.Run(name, func(t *testing.T) {
			tokenPlaces(t)
			place(t, name, worker)
			who(t)
		})
	}
	t.Run("all, and HTTP", func(t *testing.T) {
		tokenPlaces(t)
		for _, name := range []string{"SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "BEARER_TOKEN_FILE"} {
			place(t, name, testrig.Mint(t, c, testauth.Claims{Subject: name}))
		}
		place(t, "SCITOKEN", worker)
		who(t)
		// Whose token HTTP uses is what the server says of the reservation.
		s := testrig.NewService(t, gracetest.Config{Issuer: c.Issuer()}, func(cc *gracedb.ClientConfig) { cc.Token = nil })
		if r, err := s.Client.Reserve(t.Context(), testrig.Event()); err != nil || r.Submitter != "worker" {
			t.Errorf("HTTP: %+v, %v", r, err)
		}
	})
}

// 15: any undamaged token is used, whatever it is for.
func TestPeerFinding_15_BestToken(t *testing.T) {
	c := testrig.StartCluster(t, kafkatest.Config{Audiences: []string{"https://localhost"}})
	right := testauth.Claims{Subject: "right", Audience: []string{"https://localhost"}}
	for name, wrong := range map[string]testauth.Claims{
		"audience": {Audience: []string{"https://elsewhere.org"}},
		"scope":    {Audience: []string{"https://localhost"}, Scope: "compute.read"},
		"nbf":      {Audience: []string{"https://localhost"}, NotBefore: time.Now().Add(time.Hour)},
		"exp":      {Audience: []string{"https://localhost"}, IssuedAt: time.Now().Add(-3 * time.Hour), Expires: time.Now().Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tokenPlaces(t)
			wrong.Subject = "wrong"
			t.Setenv("SCITOKEN", testrig.Mint(t, c, wrong))
			t.Setenv("BEARER_TOKEN_FILE", put(t, filepath.Join(dir, "token"), testrig.Mint(t, c, right)))
			cluster := testrig.ClusterFor(t, c, "nobody")
			cluster.Token = nil
			before := len(c.Logins())
			testrig.Send(t, testrig.NewProducer(t, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"}), "x")
			testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
			for _, l := range c.Logins()[before:] {
				if l.Subject != "right" || l.Refused != "" {
					t.Errorf("%+v", l)
				}
			}
		})
	}
	// Issuer and signature are for the broker to judge, and its judgement is told.
	for name, iss := range map[string]string{"issuer": "https://elsewhere.org", "signature": c.Issuer().URL()} {
		t.Run(name, func(t *testing.T) {
			tokenPlaces(t)
			other, err := testauth.NewIssuer(iss)
			if err != nil {
				t.Fatal(err)
			}
			tok, err := other.Token(right)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("BEARER_TOKEN", tok)
			cluster := testrig.ClusterFor(t, c, "nobody")
			cluster.Token = nil
			for _, make := range testrig.Constructors {
				_, err := make.Make(t.Context(), cluster, "test")
				testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrAuthentication, make.Kind), testrig.Kinds(gracedb.ErrToken, gracedb.ErrConnection), "invalid_token", c.Addrs()[0])
			}
		})
	}
}

// 26: a consumer without a token is a SystemError after ten seconds; one whose token
// expires in the far future an OSError.
func TestPeerFinding_26_ForeignErrors(t *testing.T) {
	tokenPlaces(t)
	if _, err := os.Lstat(fmt.Sprintf("/tmp/bt_u%d", os.Geteuid())); err == nil {
		t.Skip("this user has a token in /tmp, so that none is missing")
	}
	synctest.Test(t, func(t *testing.T) {
		c := testrig.StartCluster(t, kafkatest.Config{Virtual: true})
		for _, make := range testrig.Constructors {
			cluster := testrig.ClusterFor(t, c, "alice")
			cluster.Token = nil
			start := time.Now()
			_, err := make.Make(t.Context(), cluster, "test")
			testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrToken, make.Kind), testrig.Kinds(gracedb.ErrConnection), "SCITOKEN", "_CONDOR_CREDS", "BEARER_TOKEN", "htgettoken")
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s: after %v", make.Name, took)
			}
			for _, exp := range []any{1e18, int64(1) << 62, 1e300} {
				cluster.Token = gracedb.StaticToken(testrig.Mint(t, c, testauth.Claims{Extra: map[string]any{"exp": exp}}))
				start := time.Now()
				made, err := make.Make(t.Context(), cluster, "test")
				if err == nil {
					_ = made.Close()
				} else {
					testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrAuthentication, make.Kind), testrig.Kinds(gracedb.ErrConnection))
				}
				t.Logf("%s, exp %v: %v", make.Name, exp, err)
				if took := time.Since(start); took > 3*time.Second {
					t.Errorf("%s: after %v", make.Name, took)
				}
			}
		}
	})
}
