package gracedb

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An answers reads along on a Producer's connections, to know of which messages
// nobody can say whether they were written.
//
// The engine knows that of a request without an answer, but takes every error that
// a broker does answer for proof that nothing was appended. It is not: a leader
// that loses its office while it waits for its replicas has appended, and answers
// NOT_LEADER_OR_FOLLOWER. The engine would then let a context withdraw the message.
type answers struct {
	began time.Time

	mu    sync.Mutex
	conns map[*answeredConn]struct{} // with requests that are not answered
	built int                        // batches that are in a request, which is not sent yet
	last  time.Duration              // when the last of them was

	// When the latest request was sent of which it is not known what became of
	// its messages; 0 if there is none.
	doubtful atomic.Int64
}

// A sentRequest is a request that is not answered.
type sentRequest struct {
	version     int16
	correlation int32
	batches     int // of a Produce request
	at          time.Duration
}

// now is the time, never 0.
func (a *answers) now() time.Duration { return time.Since(a.began) + 1 }

// doubtSince reports whether nobody knows what became of a request that was sent
// at or after t.
func (a *answers) doubtSince(t time.Duration) bool {
	doubtful := time.Duration(a.doubtful.Load())
	return doubtful != 0 && doubtful >= t
}

// maybeWritten reports whether a message that was given to the engine at t may have
// been written, or may be even if the engine drops it now.
func (a *answers) maybeWritten(t time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.doubtSince(t) || a.built > 0 && a.last >= t {
		return true
	}
	for c := range a.conns {
		for _, r := range c.sent {
			if r.batches > 0 && r.at >= t {
				return true
			}
		}
	}
	return false
}

// doubt is called with the lock held.
func (a *answers) doubt(r sentRequest) {
	if at := int64(r.at); r.batches > 0 && at > a.doubtful.Load() {
		a.doubtful.Store(at)
	}
}

// A builtBatches counts the batches that the engine puts into requests, which it
// compresses when it does.
type builtBatches struct {
	*codec
	answers *answers
}

// Compress is kgo's Compressor.
func (b builtBatches) Compress(dst *bytes.Buffer, src []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	b.answers.mu.Lock()
	b.answers.built++
	b.answers.last = b.answers.now()
	b.answers.mu.Unlock()
	return b.codec.Compress(dst, src, flags...)
}

// An answeredConn is a connection to a broker. The engine writes one request with
// each Write, reads the answers in their order, and learns nothing of an answer
// before this has seen it.
type answeredConn struct {
	net.Conn
	answers *answers

	sent []sentRequest // oldest first; guarded by answers.mu

	// Of the goroutine that reads: the frame that is being read.
	head [4]byte
	have int  // bytes of head
	left int  // bytes that are still to come
	keep bool // whether it answers a Produce request
	body []byte
}

// watch returns conn, read along.
func (a *answers) watch(conn net.Conn) net.Conn { return &answeredConn{Conn: conn, answers: a} }

func (c *answeredConn) Write(b []byte) (int, error) {
	r, frame, ok := parseRequest(b)
	if ok {
		c.answers.mu.Lock()
		r.at = c.answers.now()
		c.answers.built -= r.batches
		c.sent = append(c.sent, r)
		if c.answers.conns == nil {
			c.answers.conns = make(map[*answeredConn]struct{})
		}
		c.answers.conns[c] = struct{}{}
		c.answers.mu.Unlock()
	}
	n, err := c.Conn.Write(frame)
	if err != nil && ok {
		c.end(n == 0)
	}
	if err == nil {
		n = len(b)
	}
	return n, err
}

func (c *answeredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.follow(b[:n])
	if err != nil {
		c.end(false)
	}
	return n, err
}

// Close ends the connection: what is not answered will not be.
func (c *answeredConn) Close() error {
	c.end(false)
	return c.Conn.Close()
}

// end notes that there will be no more answers. If the last request never left,
// nothing became of it.
func (c *answeredConn) end(unsent bool) {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	if unsent && len(c.sent) > 0 {
		c.sent = c.sent[:len(c.sent)-1]
	}
	for _, r := range c.sent {
		c.answers.doubt(r)
	}
	c.sent = nil
	delete(c.answers.conns, c)
}

// follow reads what has come, frame by frame.
func (c *answeredConn) follow(b []byte) {
	for len(b) > 0 {
		if c.have < len(c.head) {
			n := copy(c.head[c.have:], b)
			c.have += n
			b = b[n:]
			if c.have < len(c.head) {
				return
			}
			c.left = int(binary.BigEndian.Uint32(c.head[:]))
			c.keep, c.body = c.ofProduce(), c.body[:0]
		}
		n := min(c.left, len(b))
		if c.keep && len(c.body)+n <= maxAnswer {
			c.body = append(c.body, b[:n]...)
		}
		c.left -= n
		b = b[n:]
		if c.left == 0 {
			c.have = 0
			c.answered()
		}
	}
}

// ofProduce reports whether the next answer is to a request with batches.
func (c *answeredConn) ofProduce() bool {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	return len(c.sent) > 0 && c.sent[0].batches > 0
}

// maxAnswer is the largest answer that is read along: of thousands of partitions.
// A larger one is doubtful.
const maxAnswer = 1 << 20

// answered takes the oldest request for answered by the frame that is complete.
func (c *answeredConn) answered() {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	if len(c.sent) == 0 {
		return
	}
	r := c.sent[0]
	c.sent = c.sent[1:]
	if len(c.sent) == 0 {
		c.sent = nil
		delete(c.answers.conns, c)
	}
	if r.batches > 0 && !settles(c.body, r) {
		c.answers.doubt(r)
	}
}

// parseRequest reads the head of a request, and how many batches it brings. It returns
// the frame to send, which names no partition without a batch: the engine leaves one
// so if it drops the batch while it writes, and Kafka never answers that (seen with
// 4.3.1), nor anything behind it. Of a partition that is not in the answer the engine
// sends again what it still has.
func parseRequest(frame []byte) (r sentRequest, send []byte, ok bool) {
	if len(frame) < 4 {
		return r, frame, false
	}
	b := kbin.Reader{Src: frame[4:]}
	key := kmsg.Key(b.Int16())
	r = sentRequest{version: b.Int16(), correlation: b.Int32()}
	if key != kmsg.Produce || !b.Ok() {
		return r, frame, b.Ok()
	}
	b.NullableString() // the client's id
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(r.version)
	if req.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	if req.ReadFrom(b.Src) != nil {
		r.batches = 1 // some; it is not ours to complain
		return r, frame, true
	}
	named := 0
	for i := range req.Topics {
		t := &req.Topics[i]
		named += len(t.Partitions)
		t.Partitions = slices.DeleteFunc(t.Partitions, func(p kmsg.ProduceRequestTopicPartition) bool { return p.Records == nil })
		r.batches += len(t.Partitions)
	}
	if named == r.batches {
		return r, frame, true
	}
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.ProduceRequestTopic) bool { return len(t.Partitions) == 0 })
	head := frame[:len(frame)-len(b.Src)]
	send = req.AppendTo(slices.Clone(head))
	binary.BigEndian.PutUint32(send, uint32(len(send)-4))
	return r, send, true
}

// settles reports whether an answer says of every batch of a Produce request whether
// it was written.
func settles(body []byte, r sentRequest) bool {
	b := kbin.Reader{Src: body}
	correlation := b.Int32()
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(r.version)
	if resp.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	if correlation != r.correlation || !b.Ok() || resp.ReadFrom(b.Src) != nil {
		return false
	}
	settled := 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			err := kerr.ErrorForCode(p.ErrorCode)
			if err == nil || notWritten(err) || p.ErrorCode == kerr.DuplicateSequenceNumber.Code {
				settled++
			}
		}
	}
	return settled >= r.batches
}
