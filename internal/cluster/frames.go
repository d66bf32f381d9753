package cluster

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What an answer may measure, and name. The engine makes an array as long as the answer
// says, if the rest of the answer could hold it: of 2 MiB it makes 48 MiB at most (measured
// for all answers that a client of this package asks for). So only an answer to Fetch needs
// a look at its counts, and one to Metadata, since something is kept of each broker and
// partition.
const (
	maxLoginAnswer = 256 << 10 // to ApiVersions and SASL, before any token is accepted
	MaxSmallAnswer = 2 << 20   // to all that is no Fetch
	maxMade        = 32 << 20  // what the engine may make of the counts in one answer
	maxBrokers     = 1000      // in a Metadata answer
	maxTopics      = 10_000    // in an answer: none is asked of more than a program has named
	maxTagged      = 64 << 10  // bytes of one tagged field, of which brokers send a few dozen
)

// maxThrottle is the longest pause that is kept when a broker asks for one (KIP-219). The
// broker itself may read nothing more on that connection for as long as it asked for, so
// after maxThrottle another is made.
const maxThrottle = 2 * time.Minute

// answerLimit returns how large an answer may be; 0 if that is left to the engine.
func answerLimit(key kmsg.Key) int64 {
	switch key {
	case kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		return maxLoginAnswer
	case kmsg.Metadata, kmsg.Produce, kmsg.InitProducerID, kmsg.DescribeConfigs, kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch,
		kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.OffsetCommit, kmsg.OffsetFetch,
		kmsg.ConsumerGroupHeartbeat, kmsg.DescribeGroups, kmsg.ListGroups:
		return MaxSmallAnswer
	}
	return 0
}

// A framedConn judges the answers on a connection to a broker before the engine decodes
// them: an answer that is too large, or counts more than it can hold or than is believed,
// is an error of Read. It writes a throttle time of over maxThrottle down to that.
type framedConn struct {
	net.Conn
	in *bufio.Reader // of Conn: heads are short
	// throttled is called with what a broker asked for, if that is over maxThrottle.
	throttled func(asked time.Duration)
	// fit, if not nil, makes what an answer to Fetch is changed by: it is called with the batches of
	// one partition after the other, and the answer is read whole.
	fit func() func(batches []byte)

	mu    sync.Mutex // guards sent and spent
	sent  []sentHead // requests without an answer, oldest first
	spent time.Time  // from then on nothing is written; or zero

	// Of the goroutine that reads.
	head [8]byte // of the frame: its length, and the number of the request
	have int     // bytes of head that have come
	pass []byte  // what of head, or of an answer that was read whole, the engine has not read
	left int64   // bytes of the frame behind head that are still to come
	deaf bool    // the engine refuses what comes, by its length
	walk walk
	bad  error
}

func newFramedConn(conn net.Conn, throttled func(asked time.Duration), fit func() func([]byte)) *framedConn {
	return &framedConn{Conn: conn, in: bufio.NewReader(conn), throttled: throttled, fit: fit}
}

// A sentHead is the head of a request.
type sentHead struct {
	key         kmsg.Key
	version     int16
	correlation int32
}

// maxSent is by far more than the engine sends before it reads an answer.
const maxSent = 4096

// Write notes which request this is; the engine writes one with each Write.
func (c *framedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if !c.spent.IsZero() && !time.Now().Before(c.spent) {
		c.mu.Unlock()
		return 0, connError{errSpent} // the engine makes another connection for it
	}
	if len(b) >= 12 {
		if isRawLogin(b) {
			c.mu.Unlock()
			return 0, connError{errRawLogin}
		}
		if len(c.sent) >= maxSent {
			c.sent = slices.Delete(c.sent, 0, maxSent/2)
		}
		c.sent = append(c.sent, sentHead{
			kmsg.Key(binary.BigEndian.Uint16(b[4:])), int16(binary.BigEndian.Uint16(b[6:])), int32(binary.BigEndian.Uint32(b[8:])),
		})
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

var errSpent = fmt.Errorf("the broker asked for a pause of more than %v on this connection", maxThrottle)

func (c *framedConn) Read(b []byte) (int, error) {
	if c.bad != nil {
		return 0, c.bad
	}
	if c.deaf || len(b) == 0 {
		return c.in.Read(b)
	}
	if c.left == 0 && len(c.pass) == 0 {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	if len(c.pass) > 0 {
		n := copy(b, c.pass)
		c.pass = c.pass[n:]
		return n, nil
	}
	if c.walk.fit != nil {
		return c.whole(b)
	}
	n, err := c.in.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	if bad := c.judge(b[:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// judge goes through what has come of an answer.
func (c *framedConn) judge(b []byte) error {
	if bad := c.walk.feed(b, c.left); bad != nil {
		c.bad = bad
		return c.bad
	}
	if asked, over := c.walk.asked(); over && c.left == 0 {
		c.throttled(asked)
		c.mu.Lock()
		c.spent = time.Now().Add(maxThrottle)
		c.mu.Unlock()
	}
	return nil
}

// whole reads all that is left of an answer before the engine has any of it. The engine asks
// for all of it at once, with room for it.
func (c *framedConn) whole(b []byte) (int, error) {
	to := b
	if int64(len(b)) < c.left {
		to = make([]byte, c.left)
	}
	to = to[:c.left]
	if n, err := io.ReadFull(c.in, to); err != nil {
		c.left -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		c.bad = err
		return 0, err
	}
	c.left = 0
	if bad := c.judge(to); bad != nil {
		return 0, bad
	}
	n := copy(b, to)
	c.pass = to[n:]
	return n, nil
}

// begin reads the head of a frame, and judges it.
func (c *framedConn) begin() error {
	if err := c.fill(4); err != nil {
		return err
	}
	length := int64(int32(binary.BigEndian.Uint32(c.head[:])))
	if length < 4 || length > maxAnyAnswer {
		c.deaf, c.pass = true, c.head[:4]
		return nil
	}
	if err := c.fill(8); err != nil {
		return err
	}
	c.have, c.pass, c.left = 0, c.head[:], length-4
	r := c.answered(int32(binary.BigEndian.Uint32(c.head[4:])))
	if limit := answerLimit(r.key); limit > 0 && length > limit {
		c.pass, c.bad = nil, fmt.Errorf("invalid size: a broker's answer to %s is of %d bytes, and at most %d are read", r.key.Name(), length, limit)
		return c.bad
	}
	if r.key == kmsg.SASLAuthenticate {
		return c.login(r.version)
	}
	c.walk = newWalk(r)
	if c.fit != nil && r.key == kmsg.Fetch {
		c.walk.fit = c.fit()
	}
	if bad := c.walk.feed(nil, c.left); bad != nil {
		c.pass, c.bad = nil, bad
	}
	return c.bad
}

// maxAnyAnswer is more than any client reads: the first bytes of a peer that is no broker
// may mean more.
const maxAnyAnswer = 256 << 20

// fill reads on until n bytes of the head are there.
func (c *framedConn) fill(n int) error {
	for c.have < n {
		m, err := c.in.Read(c.head[c.have:n])
		c.have += m
		if err != nil && c.have < n {
			if err == io.EOF && c.have > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// answered returns the request with this number, and forgets it and those before it.
func (c *framedConn) answered(correlation int32) sentHead {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.sent {
		if r.correlation == correlation {
			c.sent = slices.Delete(c.sent, 0, i+1)
			return r
		}
	}
	return sentHead{key: -1} // the engine takes no such answer
}
