package sender

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/recordbatch"
)

// A Record is a message on its way. Whoever gives it to Send fills in the exported fields,
// and leaves all of it alone until the Sender has settled it.
type Record struct {
	Topic   string
	Key     []byte // a record without one goes to any partition
	Value   []byte
	Headers []kgo.RecordHeader
	// Time is the record's timestamp, of which brokers keep the milliseconds. If zero, Send
	// sets it.
	Time time.Time
	// Ctx withdraws the record when it ends; or nil.
	Ctx context.Context
	// Owner is whatever the caller wants to have back from Config.Settle.
	Owner any

	// The rest is guarded by topic.mu.
	topic *topic
	part  *partition // whose accumulator or batch it is in; or nil
	batch *batch     // that it is sealed into; or nil
	state state
	size  int64 // the most that it adds to a batch
	// lost is why the caller does not want it any more; or nil.
	lost error
	// inOldLog is set when the record may be in the log of an earlier topic of that name, which
	// is deleted: it is never said to be in no log any more.
	inOldLog bool
	// compress and alone are set when a broker has refused a batch with it: it goes
	// compressed, or in a batch of its own.
	compress, alone bool

	watch              *watch // of Ctx; or nil
	prevSame, nextSame *Record
}

// A state is where a Record is.
type state int

const (
	waiting state = iota // in an accumulator, or for its topic's partitions to be known
	sealed               // in a batch
	settled              // its outcome is known, and told or about to be
)

// An Outcome is what became of a Record. Exactly one is told of each.
type Outcome struct {
	Result Result
	// Err is why, unless Result is InLog: a *kerr.Error if a broker said so (of type *Refusal
	// if it said more than a code), the cause of a withdrawal, ErrClosed, or what kgo said
	// of the connection.
	Err error

	// If Result is InLog: where. Offset is negative if the broker has acknowledged the
	// batch twice, and has forgotten where the first one is.
	Partition int32
	Offset    int64
	// Time is when the broker appended it, on a topic with LogAppendTime; else zero.
	Time time.Time

	// Sent is how many bytes the record took in a batch of its own that was refused for its
	// size, Compressed whether it was compressed. Zero if that is not why.
	Sent       int
	Compressed bool
}

// A Result is one of three, and nothing in between.
type Result int

const (
	// InLog means that a broker has acknowledged the record.
	InLog Result = iota
	// NotInLog means that it is not in the log, and will not be.
	NotInLog
	// Unknown means that it may be in the log, once.
	Unknown
)

// A Refusal is a broker's error about a batch or record with the words that came with it.
type Refusal struct {
	Code error  // a *kerr.Error
	Says string // of the record if the broker named it, else of the batch; not cleaned
}

// Error returns the code's text and the broker's words.
func (r *Refusal) Error() string { return r.Code.Error() + ": " + r.Says }

// Unwrap returns the code.
func (r *Refusal) Unwrap() error { return r.Code }

const (
	// batchHeader is how long the head of a record batch of version 2 is.
	batchHeader = recordbatch.HeadLen
	// recordOverhead is the most that the wire adds to what a record holds.
	recordOverhead = 36
	// HeaderOverhead is the most that it adds to what each of its headers holds.
	HeaderOverhead = 10
)

// wireSize is the most that r adds to a batch.
func (r *Record) wireSize() int64 {
	size := recordOverhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		size += HeaderOverhead + len(h.Key) + len(h.Value)
	}
	return int64(size)
}

// bodyLen is how long r is in a batch, but for its own length before it. Times in a batch
// are told as milliseconds after its first, places as how many are before.
func (r *Record) bodyLen(after int64, place int32) int {
	size := 1 + kbin.VarlongLen(after) + kbin.VarintLen(place) + varBytesLen(r.Key) + varBytesLen(r.Value) + kbin.VarintLen(int32(len(r.Headers)))
	for _, h := range r.Headers {
		size += kbin.VarintLen(int32(len(h.Key))) + len(h.Key) + varBytesLen(h.Value)
	}
	return size
}

// appendTo appends r as it stands in a batch.
func (r *Record) appendTo(dst []byte, after int64, place int32) []byte {
	dst = kbin.AppendVarint(dst, int32(r.bodyLen(after, place)))
	dst = append(dst, 0) // attributes: none are defined
	dst = kbin.AppendVarlong(dst, after)
	dst = kbin.AppendVarint(dst, place)
	dst = kbin.AppendVarintBytes(dst, r.Key)
	dst = kbin.AppendVarintBytes(dst, r.Value)
	dst = kbin.AppendVarint(dst, int32(len(r.Headers)))
	for _, h := range r.Headers {
		dst = kbin.AppendVarintString(dst, h.Key)
		dst = kbin.AppendVarintBytes(dst, h.Value)
	}
	return dst
}

func varBytesLen(b []byte) int {
	if b == nil {
		return kbin.VarintLen(-1)
	}
	return kbin.VarintLen(int32(len(b))) + len(b)
}
