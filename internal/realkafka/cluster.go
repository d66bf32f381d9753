//go:build unix

package realkafka

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// Audiences are what the aud claim of a token may say to be accepted.
var Audiences = []string{"https://kafka.test", "ANY"}

// A Config says what kind of cluster to start. The zero value is one broker.
type Config struct {
	// Brokers is 1 (a broker that is its own controller), or 3 beside a controller
	// that stands apart: topics then have three replicas, two of which must have a
	// record before it is acknowledged. If zero, it is 1.
	Brokers int
	// Authority signs the brokers' certificate, for localhost and 127.0.0.1; Issuer
	// signs the tokens that they accept. If nil, new ones are made.
	Authority *testauth.Authority
	Issuer    *testauth.Issuer
	// SessionLife is the longest that a connection lives on one token. If zero, it
	// is a minute.
	SessionLife time.Duration
	// MessageMaxBytes is the largest batch, after compression, that brokers take.
	// If zero, it is 10 MiB.
	MessageMaxBytes int
	// FullJIT leaves Java's second compiler on: slower to start, but without it
	// the broker's TLS costs 20 ms per MB. For measurements.
	FullJIT bool
	// Advertise is where clients are told to find the broker, if not where it
	// listens: a proxy. It is for one broker.
	Advertise string
	// Properties adds to or replaces lines of server.properties.
	Properties map[string]string
}

// A Cluster is a running Apache Kafka. Its methods are safe for concurrent use,
// save that one broker is to be killed, stopped or restarted by one goroutine.
type Cluster struct {
	Authority *testauth.Authority
	Issuer    *testauth.Issuer

	cfg        Config
	dir        string
	jars, java string
	keys       *keyServer
	nodes      []*node     // the brokers
	controller *node       // nodes[0], or one apart
	taken      []int       // ports
	client     *kgo.Client // of the super user
	admin      *kadm.Client
}

// A node is one Java process, now and then.
type node struct {
	id    int
	dir   string
	ports ports
	log   ring

	mu   sync.Mutex
	proc *process // guarded by mu; nil before the first start
}

// Start starts a cluster and returns when every broker answers. That takes some 3
// seconds for one broker, and as long as Maven needs if the jars are not there
// yet. Close it.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Brokers = cmp.Or(cfg.Brokers, 1); cfg.Brokers != 1 && cfg.Brokers != 3 {
		return nil, fmt.Errorf("realkafka: %d brokers: set Brokers to 1 or 3", cfg.Brokers)
	}
	for try := 1; ; try++ {
		c, err := start(ctx, cfg)
		if err == nil || try == 3 || !errors.Is(err, errPortTaken) {
			return c, err
		}
	}
}

// errPortTaken: between looking for free ports and Java's using them, another
// process was quicker.
var errPortTaken = errors.New("realkafka: a port was taken by another process")

func start(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	c := &Cluster{cfg: cfg, Authority: cfg.Authority, Issuer: cfg.Issuer}
	if c.jars, err = jars(ctx); err != nil {
		return nil, err
	}
	if c.java, err = java(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "realkafka-*"); err != nil {
		return nil, fmt.Errorf("realkafka: %w", err)
	}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	if err := c.identities(); err != nil {
		return nil, err
	}
	if c.keys, err = serveKeys(ctx, c.Issuer); err != nil {
		return nil, err
	}
	if err := c.makeNodes(ctx); err != nil {
		return nil, err
	}
	if err := c.format(ctx); err != nil {
		return nil, err
	}
	if c.client, err = kgo.NewClient(c.seeds()...); err != nil {
		return nil, fmt.Errorf("realkafka: %w", err)
	}
	c.admin = kadm.NewClient(c.client)
	for _, n := range c.all() {
		if err := c.launch(ctx, n); err != nil {
			return nil, err
		}
	}
	return c, c.waitReady(ctx, c.nodes...)
}

// identities makes the authority, the issuer and the brokers' certificate.
func (c *Cluster) identities() (err error) {
	if c.Authority == nil {
		if c.Authority, err = testauth.NewAuthority(); err != nil {
			return err
		}
	}
	if c.Issuer == nil {
		if c.Issuer, err = testauth.NewIssuer("https://issuer.test"); err != nil {
			return err
		}
	}
	cert, err := c.Authority.Certificate("localhost", "127.0.0.1")
	if err != nil {
		return err
	}
	server, err := testauth.ServerPEM(cert)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, "server.pem"), server, 0o600)
}

// makeNodes lays out the nodes' directories and ports.
func (c *Cluster) makeNodes(ctx context.Context) error {
	for i := range c.cfg.Brokers {
		c.nodes = append(c.nodes, &node{id: i + 1})
	}
	c.controller = c.nodes[0]
	if len(c.nodes) > 1 {
		c.controller = &node{id: controllerID}
	}
	for _, n := range c.all() {
		n.dir = filepath.Join(c.dir, fmt.Sprintf("node%d", n.id))
		if err := os.Mkdir(n.dir, 0o700); err != nil {
			return fmt.Errorf("realkafka: %w", err)
		}
		var err error
		if n.ports, err = c.freePorts(ctx); err != nil {
			return err
		}
	}
	return nil
}

// all returns every node, the controller first.
func (c *Cluster) all() []*node {
	if c.controller == nil {
		return nil
	}
	all := []*node{c.controller}
	for _, n := range c.nodes {
		if n != c.controller {
			all = append(all, n)
		}
	}
	return all
}

// format prepares the nodes' data directories, all at once.
func (c *Cluster) format(ctx context.Context) error {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	id[0] &= 0x7f // or the text might begin with '-', an option to the tool
	cluster := base64.RawURLEncoding.EncodeToString(id)
	all := c.all()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, n := range all {
		wg.Go(func() {
			file := filepath.Join(n.dir, "server.properties")
			if errs[i] = os.WriteFile(file, []byte(c.properties(n)), 0o600); errs[i] != nil {
				return
			}
			cmd := exec.CommandContext(ctx, c.java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", filepath.Join(c.jars, "*"),
				"kafka.tools.StorageTool", "format", "-t", cluster, "-c", file)
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("realkafka: format: %w\n%s", err, out)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// launch starts a node's process.
func (c *Cluster) launch(ctx context.Context, n *node) error {
	const logger = "-Dorg.slf4j.simpleLogger."
	args := []string{
		"-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
		logger + "showDateTime=true", logger + "dateTimeFormat=HH:mm:ss.SSS", logger + "showThreadName=false", logger + "showShortLogName=true",
		// These say every two seconds that all is well, and who may not do what.
		logger + "log.org.apache.kafka.common.security.oauthbearer.internals.secured.RefreshingHttpsJwks=warn",
		logger + "log.kafka.authorizer.logger=warn",
		"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + c.keys.url,
	}
	if !c.cfg.FullJIT {
		args = append(args, "-XX:TieredStopAtLevel=1")
	}
	args = append(args, "-cp", filepath.Join(c.jars, "*"), "kafka.Kafka", filepath.Join(n.dir, "server.properties"))
	// The process outlives the call: Close ends it.
	p, err := startProcess(exec.CommandContext(context.WithoutCancel(ctx), c.java, args...), &n.log)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proc = p
	return nil
}

func (n *node) process() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

func (n *node) clientAddr() string   { return fmt.Sprintf("localhost:%d", n.ports.client) }
func (n *node) internalAddr() string { return fmt.Sprintf("127.0.0.1:%d", n.ports.internal) }

// startLimit bounds a start on a busy machine; with two idle cores it takes 2 s.
const startLimit = 90 * time.Second

// waitReady waits until each of nodes accepts clients and the cluster counts it in.
func (c *Cluster) waitReady(ctx context.Context, nodes ...*node) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, n := range nodes {
		if err := c.waitNode(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) waitNode(ctx context.Context, n *node) error {
	p := n.process()
	for {
		why := c.probe(ctx, n)
		if why == nil {
			return nil
		}
		if n.log.contains("Address already in use") {
			return errPortTaken // it may take a minute to end because of it
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-p.done:
			return fmt.Errorf("realkafka: node %d ended: %w\n%s", n.id, cmp.Or(p.err, errors.New("exit status 0")), n.log.tail(40))
		case <-ctx.Done():
			return fmt.Errorf("realkafka: node %d is not ready: %w (%w)\n%s", n.id, ctx.Err(), why, n.log.tail(40))
		}
	}
}

func (c *Cluster) probe(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", n.clientAddr())
	if err != nil {
		return err
	}
	_ = conn.Close()
	// The node itself is asked, by a client that remembers nothing: a broker lists
	// itself once the controller counts it in.
	client, err := kgo.NewClient(kgo.SeedBrokers(n.internalAddr()))
	if err != nil {
		return err
	}
	defer client.Close()
	meta, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, b := range meta.Brokers {
		if int(b.NodeID) == n.id {
			return nil
		}
	}
	return errors.New("not registered")
}

// Addrs returns the brokers' addresses for clients, which want TLS and a token.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.clientAddr())
	}
	return out
}

// seeds returns the options of a client that is the super user.
func (c *Cluster) seeds() []kgo.Opt {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.internalAddr())
	}
	return []kgo.Opt{kgo.SeedBrokers(addrs...), kgo.MetadataMinAge(50 * time.Millisecond)}
}

// Kill ends broker i, counted from 0, with SIGKILL.
func (c *Cluster) Kill(i int) error { return c.nodes[i].process().kill() }

// Stop halts broker i with SIGSTOP: its connections stay, and nobody answers.
func (c *Cluster) Stop(i int) error { return c.nodes[i].process().signal(syscall.SIGSTOP) }

// Cont lets a halted broker i go on.
func (c *Cluster) Cont(i int) error { return c.nodes[i].process().signal(syscall.SIGCONT) }

// Restart starts broker i again, after a clean shutdown if it is running, and
// returns when it accepts clients.
func (c *Cluster) Restart(ctx context.Context, i int) error {
	n := c.nodes[i]
	p := n.process()
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("realkafka: broker %d does not end: %w\n%s", i, ctx.Err(), n.log.tail(40))
	}
	if err := c.launch(ctx, n); err != nil {
		return err
	}
	return c.waitReady(ctx, n)
}

// PID returns the process number of broker i.
func (c *Cluster) PID(i int) int { return c.nodes[i].process().pid }

// Log returns the last lines of what each node has said.
func (c *Cluster) Log(lines int) string {
	var b strings.Builder
	for _, n := range c.all() {
		fmt.Fprintf(&b, "--- node %d\n%s\n", n.id, n.log.tail(lines))
	}
	return b.String()
}

// Close ends every process and removes what the cluster has written.
func (c *Cluster) Close() error {
	var errs []error
	if c.admin != nil {
		c.admin.Close()
	}
	for _, n := range c.all() {
		if p := n.process(); p != nil {
			errs = append(errs, p.kill())
		}
	}
	if c.keys != nil {
		errs = append(errs, c.keys.close())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}
