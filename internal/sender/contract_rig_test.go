package sender

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A contract is a cluster, a client of it, and what happened between them, in its order.
type contract struct {
	t       *testing.T
	cluster *kafkatest.Cluster
	client  *kgo.Client

	mu     sync.Mutex
	told   []string
	spoil  func(key int16) error           // of a write; none of it is written
	dialed func(ctx context.Context) error // before a dial
}

func withContract(t *testing.T, cfg kafkatest.Config, f func(*testing.T, *contract), opts ...kgo.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Virtual = true
		cfg.Topics = map[string]int{"igwn.gracedb": 1}
		cluster, err := kafkatest.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		c := &contract{t: t, cluster: cluster}
		c.client, err = kgo.NewClient(append([]kgo.Opt{
			kgo.SeedBrokers(cluster.Addrs()[0]), kgo.DisableClientMetrics(), kgo.SASL(login{cluster}), kgo.Dialer(c.dial),
			kgo.RequestTimeoutOverhead(5 * time.Second), kgo.MaxVersions(kversion.V3_9_0()), // of which Produce names topics
		}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer c.client.Close()
		f(t, c)
	})
}

// A login is OAUTHBEARER.
type login struct{ cluster *kafkatest.Cluster }

func (login) Name() string { return "OAUTHBEARER" }

func (l login) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	token, err := l.cluster.Issuer().Token(testauth.Claims{})
	return l, []byte("n,,\x01auth=Bearer " + token + "\x01\x01"), err
}

func (login) Challenge(challenge []byte) (bool, []byte, error) { return len(challenge) == 0, nil, nil }

func (c *contract) tell(what string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, fmt.Sprintf(what, args...))
}

// since returns what happened, from the first of it on.
func (c *contract) since(first int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.told[first:])
}

func (c *contract) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.mu.Lock()
	dialed := c.dialed
	c.mu.Unlock()
	if dialed != nil {
		if err := dialed(ctx); err != nil {
			return nil, err
		}
	}
	raw, err := c.cluster.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{RootCAs: c.cluster.Authority().Pool(), ServerName: "localhost"})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	c.tell("TLS is up")
	return &toldConn{conn, c}, nil
}

type toldConn struct {
	net.Conn
	c *contract
}

func (t *toldConn) Write(frame []byte) (int, error) {
	key := int16(binary.BigEndian.Uint16(frame[4:]))
	t.c.mu.Lock()
	spoil := t.c.spoil
	t.c.mu.Unlock()
	if spoil != nil {
		if err := spoil(key); err != nil {
			return 0, err
		}
	}
	if key == 0 {
		t.c.tell("write of %s", produced(frame).Topics[0].Topic)
	} else {
		t.c.tell("write of a %s", kmsg.NameForKey(key))
	}
	return t.Conn.Write(frame)
}

// produced is the Produce request of a frame.
func produced(frame []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(int16(binary.BigEndian.Uint16(frame[6:])))
	body := frame[14+int(binary.BigEndian.Uint16(frame[12:])):] // behind the client's name
	if req.IsFlexible() {
		body = body[1:]
	}
	if err := req.ReadFrom(body); err != nil {
		panic(err)
	}
	return req
}

// A toldRequest is what produceRequest is to kgo. Its topic is its name.
type toldRequest struct {
	kmsg.ProduceRequest
	c       *contract
	timeout int32
	asked   func()
}

func (r *toldRequest) Timeout() int32 { return r.timeout }

func (r *toldRequest) AppendTo(dst []byte) []byte {
	r.c.tell("asked for %s", r.Topics[0].Topic)
	if r.asked != nil {
		r.asked()
	}
	return r.ProduceRequest.AppendTo(dst)
}

func (c *contract) request(name string) *toldRequest {
	r := &toldRequest{ProduceRequest: kmsg.NewProduceRequest(), c: c}
	r.Acks, r.TimeoutMillis = -1, 3000
	topic, part := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	topic.Topic = name
	part.Records = sealedBatch([]*Record{{Value: []byte("v"), Time: moment}}).appendTo(nil, 8)
	topic.Partitions = []kmsg.ProduceRequestTopicPartition{part}
	r.Topics = []kmsg.ProduceRequestTopic{topic}
	return r
}

// issue issues r, and returns what its answer, or error, will be.
func (c *contract) issue(ctx context.Context, r *toldRequest) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.client.Broker(0).Request(ctx, r)
		done <- err
	}()
	return done
}

func (c *contract) must(done <-chan error) {
	c.t.Helper()
	if err := <-done; err != nil {
		c.t.Fatal(err)
	}
}

// discover makes the client know the brokers.
func (c *contract) discover() {
	c.t.Helper()
	if _, err := kmsg.NewPtrMetadataRequest().RequestWith(c.t.Context(), c.client); err != nil {
		c.t.Fatal(err)
	}
}
