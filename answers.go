package gracedb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
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

	// tooLarge is called when a broker has refused a batch for its size, before the engine
	// knows it and gives back all that it has for the same partition.
	tooLarge func(topicKey string)
	// stuck is called when the engine does not send again what has left a gap.
	stuck func(topicKey string)

	mu    sync.Mutex
	conns map[*answeredConn]struct{}  // with requests that are not answered
	built int                         // batches that are in a request, which is not sent yet
	last  time.Duration               // when the last of them was
	gaps  map[topicPart]*gap          // where none was taken since
	taken map[topicPart]time.Duration // when the latest that was taken was sent
	said  map[topicPart]lastSaid      // what brokers answered last, if it was an error
	// stopped is set when nothing is sent any more.
	stopped bool
	// dropping says of which topic the engine is forgetting what is on its way; or nil.
	dropping func(topicKey string) bool

	oneDrop chan struct{} // has room while nothing is being dropped

	// When the latest request was sent of which it is not known what became of
	// its messages; 0 if there is none.
	doubtful atomic.Int64
}

// A sentRequest is a request that is not answered.
type sentRequest struct {
	version     int16
	correlation int32
	batches     []sentBatch // of a Produce request
	at          time.Duration
	then        []func() // called when it is answered, or will not be
	dropped     bool     // the engine does not look at the answer
}

// A gap is the first batch of a partition that was not taken.
type gap struct {
	sentBatch
	at        time.Duration // when that was known
	resent    bool          // it was sent again, or another in its place
	suspected bool
}

// A lastSaid is an error that a broker answered.
type lastSaid struct {
	err error
	at  time.Duration
}

func newAnswers(tooLarge, stuck func(topicKey string)) *answers {
	return &answers{
		began: time.Now(), tooLarge: tooLarge, stuck: stuck, oneDrop: make(chan struct{}, 1),
		taken: make(map[topicPart]time.Duration), said: make(map[topicPart]lastSaid),
	}
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
	return a.isOpen(t) || a.mayBuild(t)
}

// sentSince reports whether any batch was sent at or after t of which it is not known that
// it was refused.
func (a *answers) sentSince(t time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.isOpen(t) {
		return true
	}
	for _, sent := range a.taken {
		if sent >= t {
			return true
		}
	}
	return false
}

// isOpen reports whether it is open what became of a batch that was sent at or after t. It
// is called with the lock held.
func (a *answers) isOpen(t time.Duration) bool {
	if a.doubtSince(t) {
		return true
	}
	for c := range a.conns {
		for _, r := range c.sent {
			if len(r.batches) > 0 && r.at >= t {
				return true
			}
		}
	}
	return false
}

// mayBuild reports whether a batch that was built at or after t may be sent. It is called
// with the lock held.
func (a *answers) mayBuild(t time.Duration) bool {
	return !a.stopped && a.built > 0 && a.last >= t
}

// stop lets no batch be sent any more. The engine keeps a request that it has built while
// a broker's throttle lasts.
func (a *answers) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
}

// unanswered reports whether a batch of a partition that was sent at or after t has no
// answer, or may be in a request that has not been sent since at. Then it calls f, if
// not nil, when there is an answer, or when that request may have been sent.
func (a *answers) unanswered(isTopic func(key string) bool, partition int32, t, at time.Duration, f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		for i := len(c.sent) - 1; i >= 0; i-- {
			r := &c.sent[i]
			if r.at >= t && slices.ContainsFunc(r.batches, func(b sentBatch) bool { return b.partition == partition && isTopic(b.topic) }) {
				if f != nil {
					r.then = append(r.then, f)
				}
				return true
			}
		}
	}
	if !a.mayBuild(t) || a.now()-at > longestBuilt {
		return false
	}
	if f != nil {
		time.AfterFunc(builtPause, f)
	}
	return true
}

// done calls, one after the other and without the lock, who waits for answers that have
// come or will not come.
func done(requests ...sentRequest) {
	var then []func()
	for _, r := range requests {
		then = append(then, r.then...)
	}
	if len(then) > 0 {
		go func() {
			for _, f := range then {
				f()
			}
		}()
	}
}

// longestBuilt is more than it takes from a batch's compression to its being sent, for
// which nothing is waited for; other batches may be built all the time. It is looked at
// every builtPause.
const (
	longestBuilt = time.Second
	builtPause   = 5 * time.Millisecond
)

// isBehind reports whether b follows one that was not taken. It is called with the lock
// held.
func (a *answers) isBehind(b sentBatch) bool {
	g := a.gaps[b.topicPart]
	return g != nil && b.follows(g.sentBatch)
}

// sends notes what is sent where there are gaps. It is called with the lock held.
func (a *answers) sends(r *sentRequest) {
	for _, b := range r.batches {
		if g := a.gaps[b.topicPart]; g != nil && (b.sequence == g.sequence || b.sequence == 0) { // 0 in a new epoch
			g.resent = true
		}
		r.dropped = r.dropped || a.dropping != nil && a.dropping(b.topic)
	}
}

// misses notes a batch that was out of its place. The engine (v1.22.3) may pass over the
// one that was first refused, if it was about to send another just then, and then sends
// all others out of their place for good. It is called with the lock held.
func (a *answers) misses(b sentBatch, sent time.Duration) {
	switch g := a.gaps[b.topicPart]; {
	case g != nil && !g.resent && sent > g.at:
		if !g.suspected {
			g.suspected = true
			time.AfterFunc(stuckAfter, func() { a.suspect(g) })
		}
	case g == nil || !b.follows(g.sentBatch):
		a.leaves(b)
	}
}

// stuckAfter is by far more than the engine takes to send a batch again.
const stuckAfter = time.Second

func (a *answers) suspect(g *gap) {
	a.mu.Lock()
	stuck := a.gaps[g.topicPart] == g && !g.resent
	a.mu.Unlock()
	if stuck {
		a.stuck(g.topic)
	}
}

// leaves notes that b was not taken. It is called with the lock held.
func (a *answers) leaves(b sentBatch) {
	if a.gaps == nil {
		a.gaps = make(map[topicPart]*gap)
	}
	a.gaps[b.topicPart] = &gap{sentBatch: b, at: a.now()}
}

// drop calls purge, which makes the engine forget all of a topic. What is on its way
// meanwhile may be written, and nobody is told.
func (a *answers) drop(isTopic func(key string) bool, purge func()) {
	a.oneDrop <- struct{}{}
	defer func() { <-a.oneDrop }()
	a.mu.Lock()
	a.dropping = isTopic
	a.mu.Unlock()
	a.forget(isTopic)
	purge()
	a.mu.Lock()
	a.dropping = nil
	maps.DeleteFunc(a.gaps, func(at topicPart, _ *gap) bool { return isTopic(at.topic) })
	a.mu.Unlock()
}

// forget notes that the engine has forgotten, or is about to, what is on its way to a topic.
func (a *answers) forget(isTopic func(key string) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		for i := range c.sent {
			r := &c.sent[i]
			r.dropped = r.dropped || slices.ContainsFunc(r.batches, func(b sentBatch) bool { return isTopic(b.topic) })
		}
	}
}

// takenSince reports whether a batch of a partition that was sent at or after t was taken.
func (a *answers) takenSince(isTopic func(key string) bool, partition int32, t time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for at, sent := range a.taken {
		if at.partition == partition && sent >= t && isTopic(at.topic) {
			return true
		}
	}
	return false
}

// refusal returns the error that a broker has answered last to a batch of a topic, at or
// after t; nil if it has answered none, or has taken one since. The engine sends most
// batches again for as long as it takes, and tells nobody why.
func (a *answers) refusal(isTopic func(key string) bool, t time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var last lastSaid
	for at, said := range a.said {
		if said.at >= max(t, last.at) && isTopic(at.topic) {
			last = said
		}
	}
	return last.err
}

// doubt is called with the lock held.
func (a *answers) doubt(r sentRequest) {
	if at := int64(r.at); len(r.batches) > 0 && at > a.doubtful.Load() {
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
	have int   // bytes of head
	left int64 // bytes that are still to come; a broker may claim up to 4 GiB, more than an int holds everywhere
	keep bool  // whether it answers a Produce request
	body []byte
}

// watch returns conn, read along.
func (a *answers) watch(conn net.Conn) net.Conn { return &answeredConn{Conn: conn, answers: a} }

func (c *answeredConn) Write(b []byte) (int, error) {
	r, frame, ok := parseRequest(b)
	if ok {
		c.answers.mu.Lock()
		if c.answers.stopped && len(r.batches) > 0 {
			c.answers.mu.Unlock()
			return 0, net.ErrClosed
		}
		r.at = c.answers.now()
		c.answers.built -= len(r.batches)
		c.answers.sends(&r)
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
	err := c.Conn.Close()
	c.end(false) // after it, or one might be sent in between
	return err
}

// end notes that there will be no more answers. If the last request never left,
// nothing became of it.
func (c *answeredConn) end(unsent bool) {
	c.answers.mu.Lock()
	defer c.answers.mu.Unlock()
	ended := c.sent
	if unsent && len(ended) > 0 {
		ended = ended[:len(ended)-1]
	}
	for _, r := range ended {
		c.answers.doubt(r)
	}
	done(c.sent...)
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
			c.left = int64(binary.BigEndian.Uint32(c.head[:]))
			c.keep, c.body = c.ofProduce(), c.body[:0]
		}
		n := int(min(c.left, int64(len(b))))
		if c.keep && len(c.body)+n <= maxAnswer {
			c.body = append(c.body, b[:n]...)
		}
		c.left -= int64(n)
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
	return len(c.sent) > 0 && len(c.sent[0].batches) > 0
}

// maxAnswer is the largest answer that is read along: of thousands of partitions.
// A larger one is doubtful.
const maxAnswer = 1 << 20

// answered takes the oldest request for answered by the frame that is complete.
func (c *answeredConn) answered() {
	for _, topic := range c.answers.take(c) {
		c.answers.tooLarge(topic)
	}
}

// codes reads what c.body says to c's oldest request, which only whoever reads takes away,
// without the lock: how long that takes is up to the broker.
func (c *answeredConn) codes() map[topicPart]int16 {
	if !c.ofProduce() {
		return nil
	}
	c.answers.mu.Lock()
	if len(c.sent) == 0 { // the connection has ended
		c.answers.mu.Unlock()
		return nil
	}
	r := sentRequest{version: c.sent[0].version, correlation: c.sent[0].correlation, batches: c.sent[0].batches}
	c.answers.mu.Unlock()
	return batchCodes(c.body, r)
}

// take notes what c.body says of the batches of c's oldest request, and returns the
// topics of those that are too large. The engine does not look at the answer to a batch
// behind one that was not taken: it sends it again, or has given it back. If it was
// taken all the same, since the broker had forgotten the producer, nobody knows whose
// messages are in the log.
func (a *answers) take(c *answeredConn) (tooLarge []string) {
	codes := c.codes()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(c.sent) == 0 {
		return nil
	}
	r := c.sent[0]
	c.sent = c.sent[1:]
	if len(c.sent) == 0 {
		c.sent = nil
		delete(a.conns, c)
	}
	if len(r.batches) == 0 {
		return nil
	}
	defer done(r)
	sure := true
	for _, b := range r.batches {
		code, answered := codes[b.topicPart]
		err := kerr.ErrorForCode(code)
		if err != nil {
			a.said[b.topicPart] = lastSaid{err, a.now()}
		} else if answered {
			delete(a.said, b.topicPart)
		}
		behind := a.isBehind(b)
		switch {
		case answered && (err == nil || errors.Is(err, kerr.DuplicateSequenceNumber)):
			if behind || r.dropped {
				sure = false
			} else {
				delete(a.gaps, b.topicPart)
				a.taken[b.topicPart] = r.at
			}
		case answered && outOfPlace(err):
			a.misses(b, r.at)
		case answered && notWritten(err) && !behind:
			if isTooLarge(err) {
				tooLarge = append(tooLarge, b.topic)
			}
			a.leaves(b)
		case answered && notWritten(err):
		default:
			sure = false
		}
	}
	if !sure {
		a.doubt(r)
	}
	return tooLarge
}

// outOfPlace reports whether a broker has looked at a batch's place among those of its
// producer, which it does before it appends, and has not appended it: it follows one
// that is not there, such as one that was refused for its size.
func outOfPlace(err error) bool {
	return errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.InvalidProducerEpoch) ||
		errors.Is(err, kerr.UnknownProducerID)
}
