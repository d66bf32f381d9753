package faults

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
)

// A small is an idempotent producer as small as it gets, for the simulation to find the
// faults that such a thing can have. It works in rounds: what waits for a partition is
// sealed into a few batches, each is written before the next is, and when all tries are
// over it is judged what became of them.
type small struct {
	s      *simulation
	wrong  mistake
	client *kgo.Client
	life   context.Context
	end    context.CancelFunc
	done   sync.WaitGroup

	mu        sync.Mutex
	id        int64 // producer id
	topicID   [16]byte
	known     int // partitions, of which there may be more in parts
	parts     []*smallPart
	asked     time.Time // when brokers were asked for leaders last
	sticky    int
	unsettled int
	settled   chan struct{} // closed and made anew when unsettled falls to zero
}

// A smallPart is a partition. All is guarded by small.mu.
type smallPart struct {
	*small
	part     int32
	topicID  [16]byte // of what is in flight
	leader   int32    // or -1
	waiting  []*smallRecord
	flight   []*smallBatch
	more     chan struct{}
	epoch    int16
	sequence int32 // of the next batch
	begun    bool  // a batch of this epoch is acknowledged
}

type smallRecord struct {
	gracedb.Message
	ctx  context.Context
	told func(gracedb.Message, error)
	stop func() bool
	over bool
}

type smallBatch struct {
	records   []*smallRecord
	sequenced bool
	epoch     int16
	sequence  int32
	written   bool // in this try
	doubt     bool // it may be in the log
	sent      chan struct{}
	over      chan struct{}
	offset    int64
	err       error // what came of this try
	refused   []kmsg.ProduceResponseTopicPartitionErrorRecord
	answered  bool
}

const (
	smallWindow = 5 // batches, of a partition
	smallBatchN = 4 // records
	smallWait   = 100 * time.Millisecond
)

func newSmall(s *simulation, wrong mistake) outlet {
	z := &small{s: s, wrong: wrong, client: s.kgoClient(kgo.RequestTimeoutOverhead(5*time.Second), kgo.RequestRetries(0)), settled: make(chan struct{}), id: -1}
	z.life, z.end = context.WithCancel(context.Background())
	if err := z.refresh(time.Now()); err != nil {
		s.t.Fatal(err)
	}
	return outlet{z.sync, z.async, z.flush, z.close}
}

func (z *small) async(ctx context.Context, m gracedb.Message, told func(gracedb.Message, error)) error {
	r := &smallRecord{Message: m, ctx: ctx, told: told}
	z.mu.Lock()
	defer z.mu.Unlock()
	if err := cmpErr(ctx.Err(), z.life.Err()); err != nil {
		return fmt.Errorf("%w: %w", gracedb.ErrDelivery, err)
	}
	i := z.sticky % z.known
	if m.Key != nil {
		i = int(crc32.ChecksumIEEE(m.Key) % uint32(z.known))
	} else if len(z.parts[i].waiting) > smallBatchN {
		z.sticky++
	}
	p := z.parts[i]
	p.waiting = append(p.waiting, r)
	z.unsettled++
	r.stop = context.AfterFunc(ctx, func() { z.withdraw(p, r) })
	p.wake()
	return nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// withdraw takes back what is in no batch.
func (z *small) withdraw(p *smallPart, r *smallRecord) {
	z.mu.Lock()
	i := slices.Index(p.waiting, r)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	z.mu.Unlock()
	if i >= 0 || z.wrong == falseFailure && r.claim(z) {
		z.settle(r, gracedb.Message{}, fmt.Errorf("%w: %w", gracedb.ErrDelivery, r.ctx.Err()))
	}
	p.wake()
}

// claim reports whether r has no outcome, which the caller gives it.
func (r *smallRecord) claim(z *small) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	was := r.over
	r.over = true
	return !was
}

func (z *small) settle(r *smallRecord, m gracedb.Message, err error) {
	r.stop()
	r.told(m, err)
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.unsettled--; z.unsettled == 0 {
		close(z.settled)
		z.settled = make(chan struct{})
	}
}

func (z *small) sync(ctx context.Context, m gracedb.Message) (got gracedb.Message, err error) {
	type outcome struct {
		m   gracedb.Message
		err error
	}
	told := make(chan outcome, 1)
	if err := z.async(ctx, m, func(m gracedb.Message, err error) { told <- outcome{m, err} }); err != nil {
		return got, err
	}
	select {
	case o := <-told:
		return o.m, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-told:
		return o.m, o.err
	case <-time.After(time.Millisecond): // for withdraw to say that it was not sent
		return got, fmt.Errorf("%w: %w", gracedb.ErrOutcomeUnknown, ctx.Err())
	}
}

func (z *small) flush(ctx context.Context) error {
	for {
		z.mu.Lock()
		n, settled := z.unsettled, z.settled
		z.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return fmt.Errorf("%d messages are left: %w", n, ctx.Err())
		}
	}
}

func (z *small) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	err := z.flush(ctx)
	z.mu.Lock() // nothing is accepted any more
	z.end()
	z.mu.Unlock()
	z.done.Wait()
	z.client.Close()
	return err
}

func (p *smallPart) wake() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// refresh asks for the leaders, unless that was done after since.
func (z *small) refresh(since time.Time) error {
	z.mu.Lock()
	again := z.asked.After(since)
	z.mu.Unlock()
	if again {
		return nil
	}
	ctx, cancel := context.WithTimeout(z.life, 5*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: new(topic)}}
	resp, err := req.RequestWith(ctx, z.client)
	if err != nil {
		return err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = time.Now()
	t := resp.Topics[0]
	if len(t.Partitions) == 0 || t.ErrorCode != 0 {
		for _, p := range z.parts {
			p.leader = -1
		}
		return kerr.ErrorForCode(t.ErrorCode)
	}
	z.topicID, z.known = t.TopicID, len(t.Partitions)
	for len(z.parts) < z.known {
		p := &smallPart{small: z, part: int32(len(z.parts)), topicID: t.TopicID, more: make(chan struct{}, 1)}
		z.parts = append(z.parts, p)
		z.done.Go(p.run)
	}
	for _, part := range t.Partitions {
		z.parts[part.Partition].leader = part.Leader
	}
	return nil
}

// run does one round after the other.
func (p *smallPart) run() {
	for {
		began := time.Now()
		p.mu.Lock()
		p.seal()
		flight := slices.Clone(p.flight)
		p.mu.Unlock()
		if len(flight) == 0 {
			select {
			case <-p.more:
				continue
			case <-p.life.Done():
				p.abandon()
				return
			}
		}
		// What is behind one that was not written cannot be numbered, nor sent.
		for i, b := range flight {
			p.start(b, i == 0 || p.wasWritten(flight[i-1]))
		}
		for _, b := range flight {
			<-b.over
		}
		if p.judge() {
			continue
		}
		if p.life.Err() != nil {
			p.abandon()
			return
		}
		_ = p.refresh(began)
		select {
		case <-time.After(smallWait):
		case <-p.life.Done():
		}
	}
}

// seal makes batches of what waits. Until one is acknowledged under an epoch, brokers may
// take any number for the first: only one is sent.
func (p *smallPart) seal() {
	for len(p.waiting) > 0 && len(p.flight) < smallWindow && (p.begun || len(p.flight) == 0 || p.wrong == eagerStart) {
		n := min(smallBatchN, len(p.waiting))
		p.flight = append(p.flight, &smallBatch{records: slices.Clone(p.waiting[:n])})
		p.waiting = slices.Clone(p.waiting[n:])
	}
}

func (p *smallPart) wasWritten(b *smallBatch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return b.written
}

// start begins a try, if it may, and returns when b is written or the try is over.
func (p *smallPart) start(b *smallBatch, may bool) {
	p.mu.Lock()
	b.sent, b.over = make(chan struct{}), make(chan struct{})
	b.written, b.answered, b.err = false, false, nil
	p.mu.Unlock()
	if !may {
		b.err = errors.New("not tried")
		close(b.over)
		return
	}
	go func() {
		defer close(b.over)
		b.err = p.try(b)
	}()
	select {
	case <-b.sent:
	case <-b.over:
	}
}

func (p *smallPart) try(b *smallBatch) error {
	p.mu.Lock()
	leader, id := p.leader, p.id
	p.mu.Unlock()
	if leader < 0 {
		return kerr.LeaderNotAvailable
	}
	if id < 0 {
		resp, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(p.life, p.client)
		if err != nil {
			return err
		}
		if resp.ErrorCode != 0 {
			return kerr.ErrorForCode(resp.ErrorCode)
		}
		p.mu.Lock()
		if p.id < 0 {
			p.id = resp.ProducerID
		}
		p.mu.Unlock()
	}
	resp, err := p.client.Broker(int(leader)).Request(p.life, p.request(b))
	if err != nil {
		return err
	}
	for _, t := range resp.(*kmsg.ProduceResponse).Topics {
		for _, part := range t.Partitions {
			b.answered, b.offset, b.refused = true, part.BaseOffset, part.ErrorRecords
			return kerr.ErrorForCode(part.ErrorCode)
		}
	}
	return errors.New("no answer")
}

func (p *smallPart) request(b *smallBatch) kmsg.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.id
	if !b.sequenced && !b.doubt {
		b.sequenced, b.epoch, b.sequence = true, p.epoch, p.sequence
		p.sequence += int32(len(b.records))
	}
	if !b.sequenced { // only windowLoss comes here
		id = 0
	}
	r := &smallRequest{ProduceRequest: kmsg.NewProduceRequest(), p: p, b: b}
	r.Acks, r.TimeoutMillis = -1, 3000
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = topic, p.topicID
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = p.part, b.encode(id)
	t.Partitions = append(t.Partitions, part)
	r.Topics = append(r.Topics, t)
	return r
}

// A smallRequest is a Produce request of which it is known whether it was written.
type smallRequest struct {
	kmsg.ProduceRequest
	p *smallPart
	b *smallBatch
}

func (r *smallRequest) AppendTo(dst []byte) []byte {
	r.p.mu.Lock()
	if !r.b.written {
		r.b.written = true
		close(r.b.sent)
	}
	r.p.mu.Unlock()
	return r.ProduceRequest.AppendTo(dst)
}

// encode returns a record batch of version 2.
func (b *smallBatch) encode(producer int64) []byte {
	now := time.Now().UnixMilli()
	var records []byte
	for i, r := range b.records {
		body := []byte{0}
		if at := r.Time; at.IsZero() {
			body = kbin.AppendVarlong(body, 0)
		} else {
			body = kbin.AppendVarlong(body, at.UnixMilli()-now)
		}
		body = kbin.AppendVarint(body, int32(i))
		body = kbin.AppendVarintBytes(body, r.Key)
		body = kbin.AppendVarintBytes(body, r.Value)
		body = kbin.AppendVarint(body, 0)
		records = append(kbin.AppendVarint(records, int32(len(body))), body...)
	}
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(len(b.records) - 1), FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: producer, ProducerEpoch: b.epoch, FirstSequence: b.sequence, NumRecords: int32(len(b.records)), Records: records,
	}
	raw := batch.AppendTo(nil)
	batch.Length = int32(len(raw) - 12)
	batch.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return batch.AppendTo(nil)
}
