package sender

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

func (v verdict) String() string {
	if v < inLog || v > unknown {
		return fmt.Sprintf("verdict(%d)", int(v))
	}
	return [...]string{"inLog", "again", "resend", "split", "refused", "unknown"}[v]
}

// What became of a try, where no broker has answered it.
var (
	errNotWritten = errors.New("it has ended before kgo asked for its bytes")
	errLost       = errors.New("it was written, and has got no answer")
)

// A verdictRow is what judge says of a batch, after the last try has got this answer.
type verdictRow struct {
	answer error // nil: acknowledged
	// fresh is of a batch of which no earlier try can have been appended, doubt of one of which
	// one may have been: while the Sender works, while it is closed, and after the topic was
	// deleted.
	fresh, doubt [3]verdict
}

// Verdicts that several answers share.
var (
	always   = func(v verdict) [3]verdict { return [3]verdict{v, v, v} }
	repeated = [3]verdict{again, unknown, unknown} // the same bytes, as long as there is somebody to ask
	returned = [3]verdict{resend, refused, resend} // to the accumulator; from there to a topic that was made anew
	smaller  = [3]verdict{split, refused, split}   // as returned
)

// oneRecord is about a batch of one record that is not compressed.
var oneRecord = []verdictRow{
	{nil, always(inLog), always(inLog)},
	{errNotWritten, returned, repeated},
	{errLost, repeated, repeated},

	// The leader remembers a batch of this sequence: this one, if an earlier try may have
	// brought it there, and else another's.
	{kerr.DuplicateSequenceNumber, returned, always(inLog)},
	// It has found the batch out of its place, and has not appended it now.
	{kerr.OutOfOrderSequenceNumber, returned, always(unknown)},
	{kerr.InvalidProducerEpoch, returned, always(unknown)},
	{kerr.UnknownProducerID, returned, always(unknown)},

	// Retriable, and perhaps said after the append.
	{kerr.RequestTimedOut, repeated, repeated},
	{kerr.NotEnoughReplicasAfterAppend, repeated, repeated},
	{kerr.NotEnoughReplicas, repeated, repeated},
	{kerr.NotLeaderForPartition, repeated, repeated},
	{kerr.FencedLeaderEpoch, repeated, repeated},
	{kerr.LeaderNotAvailable, repeated, repeated},
	{kerr.KafkaStorageError, repeated, repeated},
	{kerr.NetworkException, repeated, repeated},

	// Retriable, and said before the append.
	{kerr.UnknownTopicOrPartition, returned, repeated},
	{kerr.UnknownTopicID, returned, repeated},
	{kerr.CorruptMessage, returned, repeated},
	// So are those that a login gets: brokers have been seen to answer a Produce with it.
	{kerr.SaslAuthenticationFailed, returned, repeated},
	{kerr.UnsupportedSaslMechanism, returned, repeated},
	{kerr.IllegalSaslState, returned, repeated},

	// For good, and said before the append.
	{kerr.TopicAuthorizationFailed, always(refused), always(unknown)},
	{kerr.ClusterAuthorizationFailed, always(refused), always(unknown)},
	{kerr.InvalidTopicException, always(refused), always(unknown)},
	{kerr.InvalidRequiredAcks, always(refused), always(unknown)},
	{kerr.UnsupportedCompressionType, always(refused), always(unknown)},
	{kerr.UnsupportedForMessageFormat, always(refused), always(unknown)},
	{kerr.UnsupportedVersion, always(refused), always(unknown)},
	{kerr.PolicyViolation, always(refused), always(unknown)},
	{kerr.InvalidRecord, always(refused), always(unknown)},
	{kerr.InvalidTimestamp, always(refused), always(unknown)},
	{kerr.MessageTooLarge, smaller, always(unknown)},
	{kerr.RecordListTooLarge, smaller, always(unknown)},

	// For good, and who knows when.
	{kerr.UnknownServerError, always(unknown), always(unknown)},
	{kerr.InvalidRequest, always(unknown), always(unknown)},
	{kerr.ProducerFenced, always(unknown), always(unknown)},
	{kerr.TransactionalIDAuthorizationFailed, always(unknown), always(unknown)},
}

// shapedRows are of refusals for which it matters what the batch holds.
var shapedRows = []struct {
	what  string
	shape facts
	rows  []verdictRow
}{
	{"one record, compressed", facts{records: 1, compressed: true}, []verdictRow{
		{kerr.MessageTooLarge, always(refused), always(unknown)},
		{kerr.RecordListTooLarge, always(refused), always(unknown)},
	}},
	{"three records", facts{records: 3}, []verdictRow{
		{kerr.MessageTooLarge, smaller, always(unknown)},
		{kerr.RecordListTooLarge, smaller, always(unknown)},
		{kerr.InvalidRecord, smaller, always(unknown)}, // one of them, but which?
		{kerr.InvalidTimestamp, smaller, always(unknown)},
		{kerr.TopicAuthorizationFailed, always(refused), always(unknown)},
	}},
	{"three records, compressed", facts{records: 3, compressed: true}, []verdictRow{
		{kerr.MessageTooLarge, smaller, always(unknown)},
		{kerr.RecordListTooLarge, smaller, always(unknown)},
		{kerr.InvalidRecord, smaller, always(unknown)},
	}},
	{"three records, the answer names one", facts{records: 3, named: 1}, []verdictRow{
		{kerr.InvalidRecord, always(refused), always(unknown)},
		{kerr.InvalidTimestamp, always(refused), always(unknown)},
	}},
	{"first written longer ago than brokers remember", facts{records: 1, forgotten: true}, []verdictRow{
		{nil, always(inLog), always(inLog)},
		{kerr.DuplicateSequenceNumber, returned, always(inLog)},
		{errNotWritten, returned, always(unknown)},
		{errLost, always(unknown), always(unknown)},
		{kerr.NotLeaderForPartition, always(unknown), always(unknown)},
		{kerr.UnknownTopicOrPartition, returned, always(unknown)},
	}},
	{"one record, named", facts{records: 1, named: 1}, []verdictRow{
		{kerr.InvalidRecord, always(refused), always(unknown)},
	}},
}

func TestJudge(t *testing.T) {
	check := func(what string, shape facts, rows []verdictRow) {
		for _, row := range rows {
			for i, want := range append(row.fresh[:], row.doubt[:]...) {
				f := shape
				f.written = !errors.Is(row.answer, errNotWritten)
				if !errors.Is(row.answer, errNotWritten) && !errors.Is(row.answer, errLost) {
					f.answered, f.code = true, row.answer
				}
				f.doubt, f.closing, f.gone = i >= 3, i%3 == 1, i%3 == 2
				if got := judge(f); got != want {
					t.Errorf("%s, answer %v, doubt %v, closing %v, gone %v: %v, want %v", what, row.answer, f.doubt, f.closing, f.gone, got, want)
				}
			}
		}
	}
	check("one record", facts{records: 1}, oneRecord)
	for _, s := range shapedRows {
		check(s.what, s.shape, s.rows)
	}
}

// everyCode returns all errors that a broker can answer, as kgo hands them on, nil, and one
// that is no broker's.
func everyCode() []error {
	codes := []error{nil, io.ErrUnexpectedEOF}
	for code := int16(-1); code < 1000; code++ {
		err := kerr.ErrorForCode(code)
		if err != nil && (code == -1 || !errors.Is(err, kerr.UnknownServerError)) {
			codes = append(codes, err, &Refusal{err, "words of the broker's"})
		}
	}
	return codes
}

// TestJudgeProperties looks at all combinations of facts.
func TestJudgeProperties(t *testing.T) {
	// What Kafka 4.3.1 says before ReplicaManager appends to the log, or instead of it.
	before := map[error]bool{
		kerr.OutOfOrderSequenceNumber: true, kerr.InvalidProducerEpoch: true, kerr.UnknownProducerID: true, kerr.DuplicateSequenceNumber: true,
		kerr.MessageTooLarge: true, kerr.RecordListTooLarge: true, kerr.InvalidRecord: true, kerr.InvalidTimestamp: true, kerr.CorruptMessage: true,
		kerr.InvalidRequiredAcks: true, kerr.UnsupportedCompressionType: true, kerr.UnsupportedForMessageFormat: true, kerr.UnsupportedVersion: true, kerr.PolicyViolation: true,
		kerr.TopicAuthorizationFailed: true, kerr.ClusterAuthorizationFailed: true, kerr.InvalidTopicException: true,
		kerr.UnknownTopicOrPartition: true, kerr.UnknownTopicID: true,
		kerr.SaslAuthenticationFailed: true, kerr.UnsupportedSaslMechanism: true, kerr.IllegalSaslState: true,
	}
	n := 0
	for _, code := range everyCode() {
		kafka, _ := errors.AsType[*kerr.Error](code)
		for bits := range 128 {
			for _, records := range []int{1, 2, 1000} {
				for _, named := range []int{0, 1, records} {
					f := facts{
						written: bits&1 != 0, doubt: bits&2 != 0, answered: bits&4 != 0, compressed: bits&8 != 0, closing: bits&16 != 0, gone: bits&32 != 0, forgotten: bits&64 != 0,
						records: records, named: named,
					}
					if f.answered {
						f.code = code
					}
					mayBe := f.doubt || f.written && !(f.answered && kafka != nil && before[kafka])
					acknowledged := f.answered && (code == nil || f.doubt && kafka == kerr.DuplicateSequenceNumber)
					v := judge(f)
					n++
					switch {
					case v < inLog || v > unknown:
						t.Fatalf("%+v has no verdict: %v", f, v)
					case (v == inLog) != acknowledged:
						t.Fatalf("%+v: %v", f, v)
					case !acknowledged && mayBe && (v == resend || v == split || v == refused):
						t.Fatalf("%+v may be in the log, and is %v: it would go twice, or be called not written", f, v)
					case !mayBe && (v == again || v == unknown):
						t.Fatalf("%+v is certainly not in the log, and is %v", f, v)
					case f.closing && (v == again || v == resend || v == split):
						t.Fatalf("%+v: %v, after Close", f, v)
					case f.gone && v == again:
						t.Fatalf("%+v: %v, to a topic that was deleted", f, v)
					case f.forgotten && v == again:
						t.Fatalf("%+v: %v, to brokers that may not recognise it", f, v)
					case v == split && f.records == 1 && f.compressed:
						t.Fatalf("%+v: %v, for ever", f, v)
					}
				}
			}
		}
	}
	if n < 100_000 {
		t.Errorf("only %d combinations", n)
	}
}
