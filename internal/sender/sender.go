package sender

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Config is what a Sender needs. All of it is required.
type Config struct {
	// Client carries the requests. Its own producer is not used.
	Client *kgo.Client
	// Describe asks brokers about a topic. Its error is a *kerr.Error if it is about the topic.
	Describe func(ctx context.Context, topic string) (State, error)
	// Settle is called once for each Record, without locks, from several goroutines. It must
	// not block: other records of the same batch wait for it.
	Settle func(*Record, Outcome)
	// Waits is called at each try of a partition of which brokers have taken nothing for
	// about a second, although they answer, with what they say. It is called without locks.
	Waits func(topic string, partition int32, said error)

	// NoConnection reports whether err, of a request, says that there was no connection for it,
	// or none that a broker has let log in.
	NoConnection func(err error) bool

	// Far reports whether brokers are so far away that several batches are worth having in
	// flight.
	Far func() bool
	// Compresses reports whether records of n bytes are worth compressing where they need
	// not be; Compress appends src, compressed by zstd, to dst, or returns nil if it does not
	// get smaller.
	Compresses func(n int) bool
	Compress   func(dst, src []byte) []byte

	// Limit is the largest batch that brokers are taken to accept for a topic of which they do
	// not say it. MaxBatch is the largest that is made of several records at all.
	Limit, MaxBatch int64
	// AskTimeout bounds each request that is not a Produce.
	AskTimeout time.Duration
}

// ErrClosed is why a Record is not in the log, or unknown, after Close.
var ErrClosed = errors.New("closed")

// A Sender publishes records, each exactly once as far as that can be known. It is safe for
// concurrent use.
type Sender struct {
	cfg  Config
	life context.Context
	end  context.CancelFunc

	mu     sync.RWMutex // taken before topic.mu
	topics map[string]*topic

	oneID chan struct{} // has room while nobody asks for a producer id
	idMu  sync.Mutex
	id    int64 // -1: none yet
	epoch int16
}

// New returns a Sender. It must be closed.
func New(cfg Config) *Sender {
	s := &Sender{cfg: cfg, topics: make(map[string]*topic), oneID: make(chan struct{}, 1), id: -1}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Send takes r, of which Config.Settle will tell, perhaps before Send returns. Records of one
// key arrive in the order of their calls.
func (s *Sender) Send(r *Record) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	r.Time = r.Time.Truncate(time.Millisecond)
	r.size = r.wireSize()
	t := s.lock(r.Topic)
	r.topic = t
	t.live++
	if s.isClosing() {
		s.unlock(t, []settlement{t.settle(r, Outcome{Result: NotInLog, Err: ErrClosed})})
		return
	}
	t.watch(r)
	if p := t.place(r); p != nil {
		s.advanceLocked(p)
	}
	t.mu.Unlock()
}

// Withdraw settles r as NotInLog because of cause, at once, if that is certain; it may be
// some milliseconds later if r is being compressed. If r may be in the log, r is settled
// as soon as it is known whether it is; what turns out not to be is not sent again.
func (s *Sender) Withdraw(r *Record, cause error) {
	t := r.topic
	t.mu.Lock()
	s.unlock(t, t.withdraw(r, cause))
}

// Said returns the broker's error that keeps r waiting: its last answer to a batch of r's
// partition, or, while r has no partition, about the topic. It is nil if the last answer was
// no error, or none has come.
func (s *Sender) Said(r *Record) error {
	t := r.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.part == nil {
		return t.said
	}
	return r.part.said
}

// IsSent reports whether r is, or was, in a batch that was given to a connection; or is
// settled, of which Config.Settle is about to tell.
func (s *Sender) IsSent(r *Record) bool {
	t := r.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	return r.state == settled || r.batch != nil && r.batch.sequenced
}

// Sent returns how many records are, or were, in a batch that was given to a connection,
// and are not settled.
func (s *Sender) Sent() int {
	n := 0
	for _, t := range s.all() {
		t.mu.Lock()
		for _, p := range slices.Concat(t.parts, t.old) {
			for _, b := range p.inFlight {
				if b.sequenced {
					n += len(b.records)
				}
			}
		}
		t.mu.Unlock()
	}
	return n
}

// LeaderOf returns the broker that r goes to, or -1.
func (s *Sender) LeaderOf(r *Record) int32 {
	t := r.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.part == nil {
		return -1
	}
	return r.part.leader
}

// Learn takes over what brokers have said of a topic.
func (s *Sender) Learn(name string, now State) {
	t := s.lock(name)
	s.unlock(t, t.update(now))
}

// Leaders returns the brokers that lead a partition of a topic that the Sender knows.
func (s *Sender) Leaders() []int32 {
	var ids []int32
	for _, t := range s.all() {
		t.mu.Lock()
		for _, p := range t.parts {
			if p.leader >= 0 && !slices.Contains(ids, p.leader) {
				ids = append(ids, p.leader)
			}
		}
		t.mu.Unlock()
	}
	return ids
}

// Close ends all tries, and has what was not written settled at once, and the rest as soon
// as its tries are over. It waits for none of that, since Config.Settle calls a user's code,
// which may block.
func (s *Sender) Close() {
	s.end()
	go func() {
		for _, t := range s.all() {
			t.mu.Lock()
			out := t.refuse(ErrClosed)
			s.unlockRefused(t, out)
		}
	}()
}

func (s *Sender) isClosing() bool { return s.life.Err() != nil }

// all returns the topics.
func (s *Sender) all() []*topic {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*topic, 0, len(s.topics))
	for _, t := range s.topics {
		all = append(all, t)
	}
	return all
}

// lock returns the topic of that name with its lock held.
func (s *Sender) lock(name string) *topic {
	for {
		s.mu.RLock()
		t := s.topics[name]
		s.mu.RUnlock()
		if t == nil {
			s.mu.Lock()
			if t = s.topics[name]; t == nil {
				t = &topic{sender: s, name: name, limit: s.cfg.Limit, largest: min(usualBatch, s.cfg.MaxBatch)}
				s.topics[name] = t
			}
			s.mu.Unlock()
		}
		t.mu.Lock()
		if !t.removed {
			return t
		}
		t.mu.Unlock()
	}
}

// unlock gives t's lock back, forgets t if it is of no use any more, and tells what became
// of records.
func (s *Sender) unlock(t *topic, out []settlement) {
	useless := t.isUseless()
	t.mu.Unlock()
	if useless {
		s.remove(t)
	}
	for _, o := range out {
		s.cfg.Settle(o.record, o.outcome)
	}
}

// unlockRefused is unlock after refuse. It settles the rest of what was refused, some at a
// time, so that others get the lock between these. No caller of Send or Withdraw does that.
func (s *Sender) unlockRefused(t *topic, out []settlement) {
	for more := true; more; {
		more = t.refused != nil
		s.unlock(t, out)
		if more {
			t.mu.Lock()
			out = t.settleRefused()
		}
	}
}

// remove forgets a topic that is of no use.
func (s *Sender) remove(t *topic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isUseless() && !t.removed {
		t.removed = true
		delete(s.topics, t.name)
	}
}

// ProducerID asks for this Sender's producer id, if it has none, and returns why it gets none.
func (s *Sender) ProducerID(ctx context.Context) error {
	_, _, err := s.producerID(ctx, -1)
	return err
}

// producerID returns an id other than spent, and its first epoch.
func (s *Sender) producerID(ctx context.Context, spent int64) (int64, int16, error) {
	select {
	case s.oneID <- struct{}{}:
	case <-ctx.Done():
		return -1, 0, ctx.Err()
	}
	defer func() { <-s.oneID }()
	s.idMu.Lock()
	id, epoch := s.id, s.epoch
	s.idMu.Unlock()
	if id >= 0 && id != spent {
		return id, epoch, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AskTimeout)
	defer cancel()
	resp, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, s.cfg.Client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return -1, 0, err
	}
	if resp.ProducerID < 0 || resp.ProducerEpoch < 0 || resp.ProducerID == spent {
		return -1, 0, errBadID
	}
	s.idMu.Lock()
	s.id, s.epoch = resp.ProducerID, resp.ProducerEpoch
	s.idMu.Unlock()
	return resp.ProducerID, resp.ProducerEpoch, nil
}

var errBadID = errors.New("a broker has given no usable producer id")

// spent returns the producer id that new partitions of t must not use: where a topic is made
// anew, brokers may know what the old one's partitions have sent.
func (s *Sender) spent(t *topic) int64 {
	if !t.anew {
		return -1
	}
	s.idMu.Lock()
	defer s.idMu.Unlock()
	return s.id
}
