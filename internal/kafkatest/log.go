package kafkatest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// CreateTopic makes a topic. A topic that was deleted is another topic if it is
// made again.
func (c *Cluster) CreateTopic(topic string, partitions int, configs map[string]string) error {
	// A topic tells the broker's limit if it has none of its own; kfake would tell
	// Kafka's default.
	all := map[string]string{"max.message.bytes": strconv.Itoa(c.cfg.MaxMessageBytes)}
	maps.Copy(all, configs)
	own := map[string]string{}
	for _, name := range ownConfigs {
		if v, ok := all[name]; ok {
			own[name] = v
			delete(all, name)
		}
	}
	if err := c.kfake.CreateTopic(topic, int32(partitions), all); err != nil {
		return fmt.Errorf("kafkatest: create topic %s: %w", topic, err)
	}
	if len(own) > 0 {
		id := c.kfake.TopicInfo(topic).TopicID
		c.appends.take()
		c.appends.configs[id] = own
		c.appends.give()
	}
	return nil
}

// DeleteTopic deletes a topic and its records.
func (c *Cluster) DeleteTopic(topic string) error {
	if err := c.kfake.DeleteTopic(topic); err != nil {
		return fmt.Errorf("kafkatest: delete topic %s: %w", topic, err)
	}
	c.leaderless.forget(topic)
	return nil
}

// AddPartitions grows a topic to total partitions.
func (c *Cluster) AddPartitions(topic string, total int) error {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = 5000
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, int32(total)
	req.Topics = append(req.Topics, t)
	req.SetVersion(2)
	for _, n := range c.nodes { // whichever is the controller
		resp, err := c.ask(n, req)
		if err != nil {
			continue
		}
		code := resp.(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode
		if code == kerr.NotController.Code {
			continue
		}
		if err := kerr.ErrorForCode(code); err != nil {
			return fmt.Errorf("kafkatest: add partitions to %s: %w", topic, err)
		}
		return nil
	}
	return fmt.Errorf("kafkatest: add partitions to %s: no broker is up", topic)
}

// MoveLeader makes a node the leader of a partition.
func (c *Cluster) MoveLeader(topic string, partition, node int32) error {
	if err := c.kfake.MoveTopicPartition(topic, partition, node); err != nil {
		return fmt.Errorf("kafkatest: move %s/%d to node %d: %w", topic, partition, node, err)
	}
	return nil
}

// Trim deletes the records of a partition before offset, as retention does.
func (c *Cluster) Trim(topic string, partition int32, offset int64) error {
	if err := c.kfake.DeleteRecords(topic, partition, offset); err != nil {
		return fmt.Errorf("kafkatest: trim %s/%d: %w", topic, partition, err)
	}
	return nil
}

// Client returns a client that is the super user, on connections inside the
// process that no fault of this package meets and no client outside can make. The
// caller closes it.
func (c *Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Addrs()...),
		kgo.SASL(plain.Auth{User: internal, Pass: password}.AsMechanism()),
		kgo.Dialer(func(ctx context.Context, _, addr string) (net.Conn, error) {
			for _, n := range c.nodes {
				if n.addr() == addr || n.advertises(addr) {
					return n.inside(ctx)
				}
			}
			return nil, fmt.Errorf("kafkatest: no broker at %s", addr)
		}),
	}, opts...)...)
}

// SetACLs replaces the rights of a subject, which must be in Config.Subjects.
func (c *Cluster) SetACLs(subject string, acls ...kfake.ACL) error {
	if _, ok := c.cfg.Subjects[subject]; !ok {
		return fmt.Errorf("kafkatest: ACLs of %s, who is not in Config.Subjects", subject)
	}
	drop := kmsg.NewPtrDeleteACLsRequest()
	filter := kmsg.NewDeleteACLsRequestFilter()
	filter.ResourceType = kmsg.ACLResourceTypeAny
	filter.ResourcePatternType = kmsg.ACLResourcePatternTypeAny
	filter.Principal = new("User:" + subject)
	filter.Operation = kmsg.ACLOperationAny
	filter.PermissionType = kmsg.ACLPermissionTypeAny
	drop.Filters = append(drop.Filters, filter)
	drop.SetVersion(2)
	add := kmsg.NewPtrCreateACLsRequest()
	for _, a := range acls {
		creation := kmsg.NewCreateACLsRequestCreation()
		creation.ResourceType, creation.ResourceName, creation.ResourcePatternType = a.Resource, a.Name, a.Pattern
		creation.Principal, creation.Host, creation.Operation = "User:"+subject, "*", a.Operation
		if creation.PermissionType = kmsg.ACLPermissionTypeDeny; a.Allow {
			creation.PermissionType = kmsg.ACLPermissionTypeAllow
		}
		add.Creations = append(add.Creations, creation)
	}
	add.SetVersion(2)
	for _, req := range []kmsg.Request{drop, add} {
		if err := c.askAny(req); err != nil {
			return fmt.Errorf("kafkatest: ACLs of %s: %w", subject, err)
		}
	}
	return nil
}

// Records returns all that is in the log of a topic, by partition and offset,
// whatever state the brokers are in for their clients.
func (c *Cluster) Records(topic string) ([]*kgo.Record, error) {
	var out []*kgo.Record
	for _, p := range c.kfake.PartitionInfos(topic) {
		leader := c.pick([]int32{p.Leader})
		if len(leader) == 0 {
			return nil, fmt.Errorf("kafkatest: %s/%d has no leader", topic, p.Partition)
		}
		for offset := p.LogStartOffset; offset < p.HighWatermark; {
			records, next, err := c.fetch(leader[0], topic, p.Partition, offset)
			if err != nil {
				return nil, fmt.Errorf("kafkatest: read %s/%d at %d: %w", topic, p.Partition, offset, err)
			}
			if next <= offset {
				return nil, fmt.Errorf("kafkatest: read %s/%d at %d: nothing there", topic, p.Partition, offset)
			}
			out = append(out, records...)
			offset = next
		}
	}
	return out, nil
}

// fetch returns records from offset on, and the offset after the last.
func (c *Cluster) fetch(n *node, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(12) // the last that names topics
	req.MinBytes, req.MaxBytes = 1, 64<<20
	req.Rack = internal
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, 64<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := c.ask(n, req)
	if err != nil {
		return nil, 0, err
	}
	fetched := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(fetched.ErrorCode); err != nil {
		return nil, 0, err
	}
	if len(fetched.Topics) != 1 || len(fetched.Topics[0].Partitions) != 1 {
		return nil, 0, errors.New("no such partition in the answer")
	}
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, Topic: topic, Partition: partition,
	}, &fetched.Topics[0].Partitions[0], decompressor{}, nil)
	return got.Records, next, got.Err
}

// A decompressor is kgo's, but for zstd: kgo keeps decoders for later use, and they have
// channels, which must not leave the bubble of virtual time that they were made in.
type decompressor struct{}

func (decompressor) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec != kgo.CodecZstd {
		return kgo.DefaultDecompressor().Decompress(src, codec)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.DecodeAll(src, nil)
}

// askAny asks whichever broker is up.
func (c *Cluster) askAny(req kmsg.Request) error {
	err := errNoNode
	for _, n := range c.nodes {
		if _, err = c.ask(n, req); err == nil {
			return nil
		}
	}
	return err
}

// ask makes one request as the super user on a connection of its own.
func (c *Cluster) ask(n *node, req kmsg.Request) (kmsg.Response, error) {
	return c.askAs(n, internal, req)
}

// askAs makes one request as a user of kfake's on a connection of its own.
func (c *Cluster) askAs(n *node, user string, req kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := n.inside(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // a pipe
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := login(conn, user); err != nil {
		return nil, err
	}
	return exchange(conn, req, 2)
}

// login makes a connection inside the process a user's.
func login(conn net.Conn, user string) error {
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Mechanism, handshake.Version = "PLAIN", 1
	auth := kmsg.NewPtrSASLAuthenticateRequest()
	auth.SASLAuthBytes, auth.Version = []byte("\x00"+user+"\x00"+password), 1
	for id, req := range []kmsg.Request{handshake, auth} {
		if _, err := exchange(conn, req, int32(id)); err != nil {
			return err
		}
	}
	return nil
}

func exchange(conn net.Conn, req kmsg.Request, id int32) (kmsg.Response, error) {
	if _, err := conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, id)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	frame := append(size[:], make([]byte, binary.BigEndian.Uint32(size[:]))...)
	if _, err := io.ReadFull(conn, frame[4:]); err != nil {
		return nil, err
	}
	r := &request{key: req.Key(), version: req.GetVersion()}
	return r.response(frame)
}

// inside opens a connection to the broker past the node's front.
func (n *node) inside(ctx context.Context) (net.Conn, error) {
	n.mu.Lock()
	l := n.broker
	n.mu.Unlock()
	server, client := net.Pipe()
	if err := l.hand(ctx, server); err != nil {
		_ = server.Close()
		return nil, fmt.Errorf("node %s: %w", strconv.Itoa(int(n.id)), err)
	}
	return client, nil
}

func (n *node) advertises(addr string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.advertised == addr
}
