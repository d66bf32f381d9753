//go:build unix

package realkafka

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// asChild makes the test binary start a broker, say its process number, and wait
// to be killed.
const asChild = "REALKAFKA_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		c, err := Start(context.Background(), Config{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(c.PID(0), c.dir)
		select {}
	}
	os.Exit(m.Run())
}

func needKafka(t *testing.T) {
	t.Helper()
	if os.Getenv("GRACEDB_INTEROP") != "1" {
		t.Skip("needs Java 17 and Maven to run Apache Kafka: set GRACEDB_INTEROP=1")
	}
}

func startForTest(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	needKafka(t)
	began := time.Now()
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d broker(s) up after %v", len(c.Addrs()), time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Log(30))
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %s", c.dir)
		}
	})
	return c
}

// client returns one that shows a token with these claims.
func client(t *testing.T, c *Cluster, claims testauth.Claims) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...),
		kgo.DialTLSConfig(&tls.Config{RootCAs: c.Authority.Pool()}),
		kgo.SASL(oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := c.Issuer.Token(claims)
			return oauth.Auth{Token: token}, err
		})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestOneBroker(t *testing.T) {
	c := startForTest(t, Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if !c.nodes[0].log.contains("Kafka version: " + Version()) {
		t.Errorf("it does not say that it is Kafka %s", Version())
	}
	must(t, c.CreateTopic(ctx, "a.b", 3, map[string]string{"max.message.bytes": "100000"}))
	must(t, c.Allow(ctx, "alice", "a.b", kadm.OpRead, kadm.OpWrite, kadm.OpDescribe))
	must(t, c.AllowGroups(ctx, "alice"))

	alice := client(t, c, testauth.Claims{})
	for i := range 20 {
		r := &kgo.Record{Topic: "a.b", Key: []byte(strconv.Itoa(i)), Value: []byte("v")}
		must(t, alice.ProduceSync(ctx, r).FirstErr())
	}
	records, err := c.Records(ctx, "a.b")
	must(t, err)
	if len(records) != 20 {
		t.Errorf("%d records, want 20", len(records))
	}
	bob := client(t, c, testauth.Claims{Subject: "bob"})
	err = bob.ProduceSync(ctx, &kgo.Record{Topic: "a.b"}).FirstErr()
	if !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("bob, who may not write: %v", err)
	}
	for name, claims := range map[string]testauth.Claims{
		"audience": {Audience: []string{"https://elsewhere.test"}},
		"expired":  {IssuedAt: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)},
	} {
		if err := client(t, c, claims).Ping(ctx); err == nil {
			t.Errorf("%s: the token was accepted", name)
		}
	}

	must(t, c.Stop(0))
	// The signal takes a moment to halt every thread of a busy broker.
	for answered := 0; ; answered++ {
		halted, cancelHalted := context.WithTimeout(ctx, 300*time.Millisecond)
		err := alice.Ping(halted)
		cancelHalted()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil || answered == 100 {
			t.Fatalf("ping %d of a halted broker: %v", answered, err)
		}
	}
	must(t, c.Cont(0))
	must(t, alice.Ping(ctx))

	must(t, c.Kill(0))
	must(t, c.Restart(ctx, 0))
	must(t, alice.ProduceSync(ctx, &kgo.Record{Topic: "a.b", Value: []byte("after")}).FirstErr())
}

// A version becomes part of a path and of what Maven reads.
func TestVersionThatIsNone(t *testing.T) {
	t.Setenv("GRACEDB_CACHE", t.TempDir())
	for _, version := range []string{"latest", "4", "../4.3.1", "4.3.1</version>", "4.3.1\n"} {
		t.Setenv("GRACEDB_KAFKA", version)
		if dir, err := jars(t.Context()); err == nil || !strings.Contains(err.Error(), "GRACEDB_KAFKA is") {
			t.Errorf("%q: %s, %v", version, dir, err)
		}
	}
}

func TestThreeBrokers(t *testing.T) {
	c := startForTest(t, Config{Brokers: 3, SessionLife: 10 * time.Second})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must(t, c.CreateTopic(ctx, "a.b", 1, nil))
	must(t, c.Allow(ctx, "alice", "a.b", kadm.OpWrite, kadm.OpDescribe))
	alice := client(t, c, testauth.Claims{})
	for i := range c.Addrs() {
		must(t, alice.ProduceSync(ctx, &kgo.Record{Topic: "a.b", Value: []byte("up")}).FirstErr())
		must(t, c.Kill(i))
		must(t, alice.ProduceSync(ctx, &kgo.Record{Topic: "a.b", Value: []byte("one down")}).FirstErr())
		must(t, c.Restart(ctx, i))
		waitInSync(t, ctx, c, "a.b")
	}
	must(t, c.Restart(ctx, 1)) // clean
	records, err := c.Records(ctx, "a.b")
	must(t, err)
	if len(records) != 6 {
		t.Errorf("%d records, want 6", len(records))
	}
}

func waitInSync(t *testing.T, ctx context.Context, c *Cluster, topic string) {
	t.Helper()
	for {
		meta, err := c.Admin().Metadata(ctx, topic)
		must(t, err)
		if isr := meta.Topics[topic].Partitions[0].ISR; len(isr) == len(c.Addrs()) {
			return
		}
		time.Sleep(50 * time.Millisecond) // another process: nothing to be told by
	}
}

func TestPortTaken(t *testing.T) {
	needKafka(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	p, err := new(Cluster).freePorts(t.Context())
	must(t, err)
	listeners := fmt.Sprintf("CLIENT://%s,INTERNAL://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", l.Addr(), p.internal, p.controller)
	_, err = start(t.Context(), Config{Brokers: 1, Properties: map[string]string{
		"listeners": listeners, "advertised.listeners": listeners,
		"controller.quorum.voters": fmt.Sprintf("1@127.0.0.1:%d", p.controller),
	}})
	if !errors.Is(err, errPortTaken) {
		t.Errorf("%v, want %v", err, errPortTaken)
	}
}

func TestBrokersEndWithTheProgram(t *testing.T) {
	needKafka(t)
	if !deathSignal {
		t.Skip("this system has no parent death signal")
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), asChild+"=1")
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	pidText, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(pidText)
	if err != nil {
		t.Fatal(line)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, child.Process.Kill())
	_ = child.Wait()
	for began := time.Now(); syscall.Kill(pid, 0) == nil && !isZombie(pid); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("broker %d outlives the program that started it", pid)
		}
	}
}

// isZombie reports whether pid has ended but nobody has collected it, as in a
// container whose first process does not.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(state, "Z")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
