package consume

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
)

// What a Consumer may hold. Its memory is twice what kgo may have of it, since kgo fetches
// the next messages while the last ones are handed out, and what one batch needs to be
// inflated.
const (
	// budgetBytes is what kgo may hold of inflated batches.
	budgetBytes = 24 << 20
	// budgetFetch is what a fetch asks for, of all partitions of all brokers together. A
	// broker returns the first batch also if it is larger. What is compressed inflates to
	// some three times as much, and the next fetch is on its way meanwhile: with more, a
	// Consumer of large events takes more memory (300 of 500 kB: 8 MiB 115 MB, 5 MiB 85 MB),
	// and is not seen to read them faster.
	budgetFetch = 5 << 20
	leastFetch  = 64 << 10
	// largestFetch is what an answer may be of: what a fetch asks for, behind it the largest
	// batch that is read, since not all brokers end before it, and the heads of partitions.
	largestFetch = budgetFetch + cluster.MaxBatchBytes + 1<<20
	// heaviestBatch is what one batch may take with what kgo makes of its messages, and
	// maxBatchBytes what it may inflate to.
	heaviestBatch = 32 << 20
	smallBatch    = 1 << 20
)

// errOverBudget makes kgo ask for a batch again.
var errOverBudget = errors.New("no room for another batch yet")

// A budget bounds what kgo holds of inflated batches for a Consumer. kgo itself bounds one batch,
// but there may be thousands in an answer, and an answer from each broker. The budget is kgo's
// Decompressor, which kgo calls for each batch:
//  1. there is room: the batch is inflated, and counts as held;
//  2. there is none: the batch is refused with errOverBudget, and fetches ask for less;
//  3. kgo fetches a refused batch again, from the same offset: at once if it has messages of that
//     partition from before it, else when PollRecords has returned the error.
//
// kgo sends no Fetch while nobody calls PollRecords, so a caller that pauses makes no batch be
// refused over and over. Room comes back
//   - when PollRecords has returned a batch's messages (release);
//   - when another answer comes from the same broker, of which kgo holds one at a time: what is
//     still held of the last one kgo has dropped. It drops messages of aborted transactions, and
//     those of partitions that move.
type budget struct {
	inflating sync.Mutex // guards inflater: one batch at a time, since inflating takes memory; before mu
	inflater  inflater

	mu      sync.Mutex // guards all below
	client  *kgo.Client
	held    []*inflated
	used    int
	brokers map[int32]bool // that were fetched from
	fetch   int32          // what fetches ask for
	refused bool           // something, since the last fetch came
	silent  map[string]map[int32]silence
	suspect func(topic string, part int32) // called in a goroutine of its own where a silence lasts
	own     int                            // requests of inspect, not of kgo's consumer, that are in flight
}

// An inflated is a batch that kgo has.
type inflated struct {
	first, last uintptr // where it is
	cost        int
	packed      int // its size when compressed, by which OnFetchBatchRead knows it
	at          time.Time
	from        int32 // the broker
	known       bool  // from is
	polled      bool  // PollRecords has returned messages of it
}

func newBudget(suspect func(topic string, part int32)) *budget {
	return &budget{brokers: make(map[int32]bool), fetch: budgetFetch, silent: make(map[string]map[int32]silence), suspect: suspect}
}

// A silence is how many batches of a partition kgo has read without returning a message. That
// happens where transactions were aborted, and where a batch does not decode.
type silence struct {
	batches int
	since   time.Time
	asked   bool // suspect is
}

// lasts reports whether it is time to look. kgo asks for a batch that does not decode as
// fast as it is answered, if there are other partitions.
func (s silence) lasts() bool {
	return !s.asked && s.batches > 5 && (s.batches > 100 || time.Since(s.since) > 2*time.Second)
}

func (b *budget) opts() []kgo.Opt {
	return []kgo.Opt{
		kgo.WithDecompressor(b), kgo.WithHooks(b),
		kgo.FetchMaxBytes(budgetFetch), kgo.FetchMaxPartitionBytes(budgetFetch), kgo.BrokerMaxReadBytes(largestFetch),
	}
}

// setClient is called once there is a client, before it consumes anything.
func (b *budget) setClient(client *kgo.Client) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.client = client
}

// room returns how much another batch may take.
func (b *budget) room() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.used == 0:
		return heaviestBatch
	case b.refused: // do not inflate in vain most of each batch that there is in a fetch
		return min(max(budgetBytes-b.used, 0), smallBatch)
	}
	return max(budgetBytes-b.used, 0)
}

// Decompress is kgo's Decompressor.
func (b *budget) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	b.inflating.Lock()
	defer b.inflating.Unlock()
	room := b.room()
	out, cost, err := b.open(src, codec, room)
	switch {
	case err == nil:
		b.hold(out, cost, len(src))
		return out, nil
	case !errors.Is(err, errTooLarge):
		return nil, err
	case room < heaviestBatch:
		b.refuse()
		return nil, errOverBudget
	}
	return nil, fmt.Errorf("%w: %w", kgo.ErrMaxDecompress, err)
}

// open inflates a batch whose messages may take no more than room.
func (b *budget) open(src []byte, codec kgo.CompressionCodecType, room int) (out []byte, cost int, err error) {
	out, err = b.inflater.inflate(src, codec, min(room, cluster.MaxBatchBytes))
	if err != nil {
		return nil, 0, err
	}
	if cost, _, err = weigh(out, room); err == nil && cost > room {
		err = errTooLarge
	}
	return out, cost, err
}

func (b *budget) hold(out []byte, cost, packed int) {
	if len(out) == 0 {
		return
	}
	first := reflect.ValueOf(out).Pointer()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = append(b.held, &inflated{first: first, last: first + uintptr(len(out)) - 1, cost: cost, packed: packed, at: time.Now()})
	b.used += cost
}

// refuse notes that fetches bring more than there is room for.
func (b *budget) refuse() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.refused {
		b.setFetchSize(b.fetch - b.fetch/4)
	}
	b.refused = true
}

// setFetchSize sets what fetches ask for. It is called with the lock held.
func (b *budget) setFetchSize(size int32) {
	size = max(min(size, budgetFetch/int32(max(len(b.brokers), 1))), leastFetch)
	if size != b.fetch && b.client != nil {
		b.client.UpdateFetchMaxBytes(size, size)
	}
	b.fetch = size
}

// OnFetchBatchRead is called by kgo after Decompress: the batch, if it was compressed, is of an
// answer from this broker.
func (b *budget) OnFetchBatchRead(meta kgo.BrokerMetadata, topic string, part int32, m kgo.FetchBatchMetrics) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.silent[topic][part]
	if s.batches++; s.batches == 1 {
		s.since = time.Now()
	}
	if s.lasts() {
		s.asked = true
		go b.suspect(topic, part)
	}
	set(b.silent, topic, part, s)
	for _, i := range slices.Backward(b.held) {
		if !i.known && i.packed == m.CompressedBytes {
			i.known, i.from = true, meta.NodeID
			return
		}
	}
}

// OnBrokerRead is called by kgo with each answer. With one to Fetch, what is held of the answer
// before it from this broker is gone.
func (b *budget) OnBrokerRead(meta kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key != int16(kmsg.Fetch) || err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.brokers[meta.NodeID] = true
	// A broker that leads nothing any more is not fetched from again.
	nothing := b.client != nil && b.client.BufferedFetchRecords() == 0
	ours := b.own > 0 // the answer may be
	b.drop(func(i *inflated) bool {
		// Messages as they were before Kafka 0.11 stay unknown.
		return !ours && i.known && i.from == meta.NodeID || (nothing || !ours && !i.known) && time.Since(i.at) > time.Second
	})
	if ours && len(b.held) > 0 {
		return
	}
	if !b.refused {
		b.setFetchSize(b.fetch + b.fetch/8)
	}
	b.refused = false
}

func (b *budget) drop(gone func(*inflated) bool) {
	b.held = slices.DeleteFunc(b.held, func(i *inflated) bool {
		if !gone(i) {
			return false
		}
		b.used -= i.cost
		return true
	})
}

// endSilence forgets the silence of a partition.
func (b *budget) endSilence(topic string, part int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.silent[topic], part)
}

// addOwn notes that n more requests of inspect are in flight.
func (b *budget) addOwn(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own += n
}

// release makes room: PollRecords has returned these messages of one partition.
func (b *budget) release(records []*kgo.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.silent[records[0].Topic], records[0].Partition)
	if len(b.held) == 0 {
		return
	}
	last := 0 // they come in the order in which they are held
	for _, r := range records {
		at := contents(r)
		if at == 0 {
			continue
		}
		for n := range b.held {
			n = (last + n) % len(b.held)
			if i := b.held[n]; i.has(at) {
				last, i.polled = n, true
				break
			}
		}
	}
	b.drop(func(i *inflated) bool { return i.polled })
}

func (i *inflated) has(at uintptr) bool { return i.first <= at && at <= i.last }

// contents returns where a record's contents are, if it has any.
func contents(r *kgo.Record) uintptr {
	switch {
	case len(r.Value) > 0:
		return reflect.ValueOf(r.Value).Pointer()
	case len(r.Key) > 0:
		return reflect.ValueOf(r.Key).Pointer()
	}
	for _, h := range r.Headers {
		if len(h.Value) > 0 {
			return reflect.ValueOf(h.Value).Pointer()
		}
	}
	return 0
}
