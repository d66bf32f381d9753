// Package kafkatest is a Kafka cluster inside the process: kfake, behind listeners
// that speak OAUTHBEARER, TLS and session life as Apache Kafka does, and that can
// fail in every way a broker or a network does. Under testing/synctest it works on
// a virtual network.
package kafkatest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A Config configures a Cluster. The zero value is one broker with TLS, no topics
// and no ACLs.
type Config struct {
	// Brokers is how many there are, with the ids 0, 1, 2…; if zero, 1, or the
	// length of Ports.
	Brokers int
	// Ports are what the brokers listen on; if nil, free ones. A restart from
	// DataDir wants the same ports again.
	Ports []int
	// Topics are made at the start: partitions by name. None is ever made
	// because a client asks for it.
	Topics map[string]int
	// MaxMessageBytes is the broker's message.max.bytes, which counts the
	// compressed batch; if zero, 10 MiB.
	MaxMessageBytes int
	// TopicMaxMessageBytes is max.message.bytes of single topics.
	TopicMaxMessageBytes map[string]int
	// DataDir keeps the log and the groups for a later Start with the same
	// Config; if empty, they are in memory.
	DataDir string

	// Authority signs the brokers' certificate for localhost; if nil, a new one.
	Authority *testauth.Authority
	// TLS is used instead of a certificate from Authority, such as one that is
	// expired or for another name.
	TLS *tls.Config
	// Plaintext is SASL_PLAINTEXT: no TLS.
	Plaintext bool
	// Virtual puts the brokers on a network that exists only in Cluster.Dial,
	// for testing/synctest.
	Virtual bool

	// Issuer's tokens are accepted; if nil, those of a new one.
	Issuer *testauth.Issuer
	// Audiences are the values of aud that are accepted; if nil, ANY, localhost
	// and https://localhost.
	Audiences []string
	// MaxSession is connections.max.reauth.ms. A session lasts until its token
	// expires, and no longer than this, if it is not zero.
	MaxSession time.Duration
	// ClockSkew is for how long after exp, and before nbf, a token is accepted.
	ClockSkew time.Duration
	// Versions are the newest versions of requests that brokers know, such as
	// kversion.V3_9_0(); if nil, all that kfake knows.
	Versions *kversion.Versions
	// Subjects are the ACLs of each sub. A valid token of another sub then
	// authenticates, and has no rights. If nil, everybody may do everything.
	Subjects map[string][]kfake.ACL
}

// A Cluster is a running cluster. All its methods may be called at any time from
// any goroutine.
type Cluster struct {
	cfg       Config
	kfake     *kfake.Cluster
	tls       *tls.Config
	directory string // of the CA file
	nodes     []*node

	logins     logins
	faults     faults
	counts     counts
	leaderless leaderless
	appends    appends
	hints      atomic.Int32 // Hints
	lag        lag
	quota      quota
	stop       chan struct{} // closed by Close
	closed     sync.Once

	askingMu sync.Mutex
	asking   sync.WaitGroup // of groupInfo
	closing  bool           // nobody may ask any more
}

// The names under which kfake, which wants its users listed beforehand, knows
// those that it cannot know, who is in no list and who asks from inside, and the
// password of all its users. No client gets as far as to be asked for it. It is
// always the same because kfake keeps it in DataDir.
const (
	nobody   = "kafkatest-nobody"
	internal = "kafkatest-internal"
	password = "kafkatest"
)

// Start starts a cluster, which is ready when Start returns.
func Start(cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg, stop: make(chan struct{})}
	c.appends = appends{
		lock: make(chan struct{}, 1), doors: map[door]net.Conn{}, configs: map[[16]byte]map[string]string{},
		producers: producers{states: map[writer]*producerState{}, start: time.Now()},
	}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("kafkatest: %w", err)
	}
	if err := c.run(); err != nil {
		c.Close()
		return nil, fmt.Errorf("kafkatest: %w", err)
	}
	return c, nil
}

// prepare fills in what c.cfg leaves out.
func (c *Cluster) prepare() error {
	var err error
	if c.cfg.Issuer == nil {
		if c.cfg.Issuer, err = testauth.NewIssuer("https://issuer.test"); err != nil {
			return err
		}
	}
	if c.cfg.Audiences == nil {
		c.cfg.Audiences = []string{"ANY", "localhost", "https://localhost"}
	}
	if c.cfg.MaxMessageBytes == 0 {
		c.cfg.MaxMessageBytes = 10 << 20
	}
	if c.cfg.Brokers == 0 {
		c.cfg.Brokers = max(1, len(c.cfg.Ports))
	}
	if c.cfg.DataDir != "" {
		if err := c.appends.producers.load(c.cfg.DataDir); err != nil {
			return err
		}
	}
	if n := len(c.cfg.Ports); n > 0 && n != c.cfg.Brokers {
		return fmt.Errorf("%d ports for %d brokers", n, c.cfg.Brokers)
	}
	if c.cfg.Plaintext {
		return nil
	}
	if c.cfg.Authority == nil {
		if c.cfg.Authority, err = testauth.NewAuthority(); err != nil {
			return err
		}
	}
	if c.tls = c.cfg.TLS; c.tls == nil {
		certificate, err := c.cfg.Authority.Certificate("localhost", "127.0.0.1", "::1")
		if err != nil {
			return err
		}
		c.tls = &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	if c.directory, err = os.MkdirTemp("", "kafkatest-"); err != nil {
		return err
	}
	return os.WriteFile(c.CAFile(), c.cfg.Authority.PEM(), 0o600)
}

func (c *Cluster) run() error {
	ports := make([]int, c.cfg.Brokers)
	for i := range ports {
		n := &node{c: c, id: int32(i), conns: map[*conn]struct{}{}}
		c.nodes = append(c.nodes, n)
		var port int
		if c.cfg.Ports != nil {
			port = c.cfg.Ports[i]
		}
		if err := n.open(port); err != nil {
			return err
		}
		ports[i] = n.port
	}
	var err error
	if c.kfake, err = kfake.NewCluster(c.options(ports)...); err != nil {
		return err
	}
	for topic, partitions := range c.cfg.Topics {
		if c.kfake.TopicInfo(topic) != nil {
			continue // from DataDir
		}
		configs := map[string]string{}
		if limit := c.cfg.TopicMaxMessageBytes[topic]; limit > 0 {
			configs["max.message.bytes"] = strconv.Itoa(limit)
		}
		if err := c.CreateTopic(topic, partitions, configs); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) options(ports []int) []kfake.Opt {
	opts := []kfake.Opt{
		kfake.Ports(ports...),
		kfake.ListenFn(c.listen),
		kfake.EnableSASL(),
		kfake.Superuser("PLAIN", internal, password),
		kfake.User("PLAIN", nobody, password),
		kfake.BrokerConfigs(map[string]string{
			"message.max.bytes": strconv.Itoa(c.cfg.MaxMessageBytes),
			// Sessions end when session.expires says so. This is for kfake to
			// allow a second handshake on a connection at all.
			"connections.max.reauth.ms": strconv.FormatInt((365 * 24 * time.Hour).Milliseconds(), 10),
		}),
	}
	if c.cfg.Subjects != nil {
		opts = append(opts, kfake.EnableACLs())
		for sub, acls := range c.cfg.Subjects {
			opts = append(opts, kfake.User("PLAIN", sub, password, acls...))
		}
	}
	if c.cfg.Versions != nil {
		opts = append(opts, kfake.MaxVersions(c.cfg.Versions))
	}
	if c.cfg.DataDir != "" {
		opts = append(opts, kfake.DataDir(c.cfg.DataDir))
	}
	return opts
}

// Close cuts all connections and frees everything. Closing again is harmless.
func (c *Cluster) Close() {
	c.closed.Do(func() {
		close(c.stop)
		c.Thaw()
		if c.kfake != nil {
			c.askingMu.Lock()
			c.closing = true
			c.askingMu.Unlock()
			c.asking.Wait()
			c.appends.close(c.cfg.DataDir)
			c.kfake.Close()
		}
		for _, n := range c.nodes {
			n.close()
		}
		c.Drop(FIN)
		if c.directory != "" {
			_ = os.RemoveAll(c.directory)
		}
	})
}

// groupInfo returns what kfake knows of a group; nil if there is none, or c is closed.
func (c *Cluster) groupInfo(group string) (info *kfake.GroupInfo) {
	c.unlessClosed(func() { info = c.kfake.GroupInfo(group) })
	return info
}

// unlessClosed calls f, which asks kfake something, unless c is closed: kfake would
// never answer then.
func (c *Cluster) unlessClosed(f func()) {
	c.askingMu.Lock()
	if c.closing {
		c.askingMu.Unlock()
		return
	}
	c.asking.Add(1)
	c.askingMu.Unlock()
	defer c.asking.Done()
	f()
}

// Addrs returns where clients bootstrap from: "localhost:port" of every broker
// that the cluster was started with, running or not.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.addr())
	}
	return out
}

// CAFile is the path of the Authority's certificate. It is gone after Close, and
// is empty if the cluster speaks plaintext.
func (c *Cluster) CAFile() string {
	if c.cfg.Plaintext {
		return ""
	}
	return filepath.Join(c.directory, "ca.pem")
}

// Authority returns who signed the brokers' certificate, or nil for plaintext.
func (c *Cluster) Authority() *testauth.Authority { return c.cfg.Authority }

// Issuer returns whose tokens are accepted.
func (c *Cluster) Issuer() *testauth.Issuer { return c.cfg.Issuer }

// Kfake returns the cluster behind, for what this package does not offer. Its
// controls and faults see the requests of this package's helpers too.
func (c *Cluster) Kfake() *kfake.Cluster { return c.kfake }

// pick returns the nodes with the given ids, or all of them.
func (c *Cluster) pick(ids []int32) []*node {
	if len(ids) == 0 {
		return c.nodes
	}
	var out []*node
	for _, n := range c.nodes {
		if slices.Contains(ids, n.id) {
			out = append(out, n)
		}
	}
	return out
}

// user returns as whom kfake knows a subject.
func (c *Cluster) user(subject string) string {
	if _, ok := c.cfg.Subjects[subject]; ok {
		return subject
	}
	return nobody
}

var errNoNode = errors.New("kafkatest: no such node")

// listen is kfake's ListenFn.
func (c *Cluster) listen(_, address string) (net.Listener, error) {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if port, err := strconv.Atoi(text); err == nil && n.hasPort(port) {
			return n.listen()
		}
	}
	return nil, fmt.Errorf("kafkatest: kfake listens on %s, which is no broker's", address)
}
