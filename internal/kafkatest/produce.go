package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is what becomes of a Produce request. kfake says who may write, who leads
// and what is to fail, and has the log. What a batch must be like, and what is known of
// its producer, is decided here, as Apache Kafka decides it.
//
// A client's connection has no part in the append: a request that was read is appended,
// and is remembered, whatever becomes of the connection.

// appends does one Produce request after the other.
type appends struct {
	lock      chan struct{} // holds a token while somebody appends
	producers producers
	doors     map[door]net.Conn // to kfake
	closed    bool
	configs   map[[16]byte]map[string]string // of topics, what kfake does not know
}

// A door is where a user's requests go into a broker.
type door struct {
	node int32
	user string
}

func (a *appends) take() { a.lock <- struct{}{} }
func (a *appends) give() { <-a.lock }

// produce does the work of r and answers it, while the token is held.
func (c *conn) produce(r *request) error {
	decoded, err := r.decode()
	if err != nil {
		return err
	}
	req := decoded.(*kmsg.ProduceRequest)
	acks := req.Acks
	resp, err := c.n.append(c.n.c.user(c.state().subject), req, r.fault.before())
	if err != nil {
		return err
	}
	if d := c.n.c.quota.throttle(c.state().subject, len(r.frame)-4); d > 0 {
		resp.ThrottleMillis = int32(d.Milliseconds())
		c.quiet(d)
	}
	if acks != 0 {
		if r.fault.action() == AwaitReplicas && acks == -1 {
			if err := c.awaitReplicas(req, resp, r.fault.fault.Delay); err != nil {
				return err
			}
		}
		return c.answer(r, resp)
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return errNobodyToTell
			}
		}
	}
	return nil
}

var errNobodyToTell = errors.New("kafkatest: an error in a Produce request with acks=0")

// A part is what is sent to one partition.
type part struct {
	writer
	leads     bool // or kfake refuses it
	batch     *batch
	refused   *rejection
	duplicate *appended
	start     int64 // of the log
	limits    limits
}

// stub is a batch that kfake refuses as corrupt when it has nothing else to say
// against it. It stands for what kfake must not append.
var stub = []byte{0}

// append is done by one request at a time, for all brokers. If before is not nil, it is
// what the broker says instead of appending.
func (n *node) append(user string, req *kmsg.ProduceRequest, before *kerr.Error) (*kmsg.ProduceResponse, error) {
	a := &n.c.appends
	a.take()
	defer a.give()
	if a.closed {
		return nil, net.ErrClosed
	}
	type asked struct {
		name      string
		id        [16]byte
		partition int32
	}
	parts := map[asked]*part{}
	for _, t := range req.Topics {
		var info *kfake.TopicInfo
		if req.Version >= 13 {
			info = n.c.kfake.TopicIDInfo(t.TopicID)
		} else {
			info = n.c.kfake.TopicInfo(t.Topic)
		}
		for i := range t.Partitions {
			p := n.examine(info, &t.Partitions[i], before)
			parts[asked{t.Topic, t.TopicID, t.Partitions[i].Partition}] = p
			if t.Partitions[i].Records = stub; p.leads && p.refused == nil && p.duplicate == nil {
				t.Partitions[i].Records = p.batch.forLog(&p.limits)
			}
		}
	}
	if req.Acks == 0 {
		req.Acks = 1 // or kfake does not answer
	}
	answer, err := n.through(user, req)
	if err != nil {
		return nil, err
	}
	resp := answer.(*kmsg.ProduceResponse)
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if part := parts[asked{t.Topic, t.TopicID, p.Partition}]; part != nil {
				part.finish(p, a)
			}
		}
	}
	n.hint(resp)
	return resp, nil
}

// examine says what Kafka makes of a batch before it is appended.
func (n *node) examine(topic *kfake.TopicInfo, rp *kmsg.ProduceRequestTopicPartition, before *kerr.Error) *part {
	p := &part{}
	if topic == nil {
		return p
	}
	info := n.c.kfake.PartitionInfo(topic.Topic, rp.Partition)
	if info == nil || info.Leader != n.id {
		return p
	}
	p.leads, p.start = true, info.LogStartOffset
	if before != nil { // it is looked at first of all
		p.refused = reject(before)
		return p
	}
	p.limits = n.c.limits(topic, rp.Partition)
	if p.batch, p.refused = readBatch(rp.Records, &p.limits); p.refused != nil {
		return p
	}
	if p.batch.attrs&transactionalBit != 0 || p.batch.producer < 0 {
		return p
	}
	p.writer = writer{log{topic.TopicID, rp.Partition}, p.batch.producer}
	state := n.c.appends.producers.state(p.writer)
	if p.duplicate = state.duplicate(p.batch); p.duplicate != nil {
		return p
	}
	if err := state.check(p.batch); err != nil {
		p.refused = reject(err)
	}
	return p
}

// finish completes kfake's answer for a partition, and remembers what it has appended.
func (p *part) finish(resp *kmsg.ProduceResponseTopicPartition, a *appends) {
	resp.ErrorMessage = nil // Kafka has texts about records only
	after := resp.ErrorCode == kerr.RequestTimedOut.Code || resp.ErrorCode == kerr.NotEnoughReplicasAfterAppend.Code
	corrupt := resp.ErrorCode == kerr.CorruptMessage.Code
	switch {
	case !p.leads && (corrupt || after):
		resp.ErrorCode = kerr.NotLeaderForPartition.Code // it does since
	case p.refused != nil && (corrupt || after):
		resp.ErrorCode, resp.ErrorRecords = p.refused.err.Code, p.refused.records
		if p.refused.message != "" {
			resp.ErrorMessage, resp.LogStartOffset = &p.refused.message, p.start
		}
	case p.duplicate != nil && (corrupt || after):
		if corrupt {
			resp.ErrorCode = 0
		}
		// The time of a duplicate is told whatever the topic's type of time is.
		resp.BaseOffset, resp.LogAppendTime, resp.LogStartOffset = p.duplicate.Offset, p.duplicate.Timestamp, p.start
		return
	case resp.ErrorCode == 0 || after:
		resp.LogStartOffset = p.start
		if resp.LogAppendTime = -1; p.limits.appendTime {
			resp.LogAppendTime = p.limits.now
		}
		if p.batch.producer >= 0 && p.batch.attrs&transactionalBit == 0 {
			a.producers.append(p.writer, p.batch, resp.BaseOffset)
		}
		return
	}
	resp.BaseOffset, resp.LogAppendTime = -1, -1
}

// through makes a request of a broker in a user's name.
func (n *node) through(user string, req kmsg.Request) (kmsg.Response, error) {
	a := &n.c.appends
	at := door{n.id, user}
	conn := a.doors[at]
	if conn == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var err error
		if conn, err = n.inside(ctx); err != nil {
			return nil, err
		}
		if err := login(conn, user); err != nil {
			_ = conn.Close()
			return nil, err
		}
		a.doors[at] = conn
	}
	resp, err := exchange(conn, req, 0)
	if err != nil {
		_ = conn.Close()
		delete(a.doors, at)
	}
	return resp, err
}

// shutDoors closes the ways into a broker.
func (a *appends) shutDoors(is func(door) bool) {
	for at, conn := range a.doors {
		if is(at) {
			_ = conn.Close()
			delete(a.doors, at)
		}
	}
}

// ownConfigs are those of topics that kfake does not know.
var ownConfigs = []string{"message.timestamp.before.max.ms", "message.timestamp.after.max.ms"}

// limits returns what a partition of a topic takes.
func (c *Cluster) limits(topic *kfake.TopicInfo, partition int32) limits {
	value := func(name, otherwise string) string {
		if v := topic.Configs[name]; v != nil {
			return *v
		}
		if v, ok := c.appends.configs[topic.TopicID][name]; ok {
			return v
		}
		return otherwise
	}
	number := func(name string, otherwise int64) int64 {
		n, err := strconv.ParseInt(value(name, ""), 10, 64)
		if err != nil {
			return otherwise
		}
		return n
	}
	after := time.Hour.Milliseconds()
	if v := c.cfg.Versions; v != nil {
		if newest, ok := v.LookupMaxKeyVersion(int16(kmsg.Produce)); ok && newest < 12 {
			after = math.MaxInt64 // before 4.0
		}
	}
	return limits{
		name:         fmt.Sprintf("%s-%d", topic.Topic, partition),
		bytes:        int(number("max.message.bytes", int64(c.cfg.MaxMessageBytes))),
		compact:      slices.Contains(strings.Split(value("cleanup.policy", "delete"), ","), "compact"),
		appendTime:   value("message.timestamp.type", "CreateTime") == "LogAppendTime",
		uncompressed: value("compression.type", "producer") == "uncompressed",
		beforeMax:    number("message.timestamp.before.max.ms", math.MaxInt64),
		afterMax:     number("message.timestamp.after.max.ms", after),
		now:          time.Now().UnixMilli(),
	}
}

// ForgetProducers makes brokers forget all idempotent producers, as Kafka does when they
// have been silent for a day (producer.id.expiration.ms): the next batch of each is
// taken, whatever its number.
func (c *Cluster) ForgetProducers() {
	c.appends.take()
	defer c.appends.give()
	clear(c.appends.producers.states)
}

// nextProducer gives a producer id away. Kafka counts them from 0.
func (c *Cluster) nextProducer() int64 {
	c.appends.take()
	defer c.appends.give()
	id := c.appends.producers.next
	c.appends.producers.next++
	return id
}

// giveProducer puts a new producer id into the answer to who has asked for one, unless
// it is for transactions. Nothing is made of the id that an idempotent producer has had.
func (c *conn) giveProducer(r *request, resp *kmsg.InitProducerIDResponse) error {
	req, err := r.decode()
	if err != nil {
		return err
	}
	if req.(*kmsg.InitProducerIDRequest).TransactionalID == nil && resp.ErrorCode == 0 {
		resp.ProducerID, resp.ProducerEpoch = c.n.c.nextProducer(), 0
	}
	return nil
}

// close ends all appends, and keeps what is known of producers in dir, if there is one.
func (a *appends) close(dir string) {
	a.take()
	defer a.give()
	a.closed = true
	a.shutDoors(func(door) bool { return true })
	if dir != "" {
		_ = a.producers.save(dir)
	}
}

// namesNoBatch reports whether r is a Produce request with a partition that has no
// batch, not even an empty one.
func (r *request) namesNoBatch() bool {
	if r.key != int16(kmsg.Produce) {
		return false
	}
	req, err := r.decode()
	if err != nil {
		return false
	}
	for _, t := range req.(*kmsg.ProduceRequest).Topics {
		for _, p := range t.Partitions {
			if p.Records == nil {
				return true
			}
		}
	}
	return false
}
