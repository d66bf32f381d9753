package sender

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A verdict is what became of a batch whose try is over.
type verdict int

const (
	// inLog: its records are in the log, acknowledged.
	inLog verdict = iota
	// again: it may be in the log. The same bytes go again under the same sequence, and the
	// broker, which remembers the last five batches of a producer, appends none twice.
	again
	// resend: it is not in the log, and may be taken another time. Its records go back to the
	// accumulator.
	resend
	// split: it is not in the log. Its records go back, to be sent in smaller batches, or
	// compressed.
	split
	// refused: it is not in the log, and will not be. The records that the broker names fail,
	// or all if it names none that is there; the others go back.
	refused
	// unknown: it may be in the log, and no further try can tell.
	unknown
)

// Facts are all that judge looks at.
type facts struct {
	written  bool  // kgo has asked for the bytes of this try: they may have been sent
	doubt    bool  // an earlier try may have been appended
	answered bool  // the broker has answered this try
	code     error // what it answered: nil, or a *kerr.Error

	records    int  // how many are in the batch
	compressed bool // whether they went compressed
	named      int  // how many of them the answer names as the reason

	closing bool // the Sender is being closed: there is no further try
	gone    bool // the topic was deleted, and perhaps made anew: nobody can be asked about this one
	// forgotten: it was written first so long ago that brokers may not recognise it any more.
	forgotten bool
}

// judge returns what became of a batch, by nothing but the facts of its tries. A table of
// all rows is in judge_test.go.
func judge(f facts) verdict {
	if f.answered && (f.code == nil || f.doubt && isAny(f.code, kerr.DuplicateSequenceNumber)) {
		return inLog
	}
	if f.mayBeInLog() {
		if f.closing || f.gone || f.forgotten || f.answered && !mayRetry(f.code) {
			return unknown
		}
		return again
	}
	// From here on it is certain that no record of the batch is in the log.
	switch {
	case f.closing:
		return refused
	case !f.answered, isOutOfPlace(f.code):
		return resend
	case IsTooLarge(f.code):
		if f.records > 1 || !f.compressed {
			return split
		}
		return refused
	case isOfRecords(f.code):
		if f.records > 1 && f.named == 0 {
			return split
		}
		return refused
	case mayRetry(f.code):
		return resend
	}
	return refused
}

// mayBeInLog reports whether some record of the batch may be in the log after this try,
// which was not acknowledged.
func (f facts) mayBeInLog() bool {
	return f.doubt || f.written && (!f.answered || !isBeforeAppend(f.code))
}

// mayRetry reports whether a broker that answered err may take the same batch another time.
// kerr knows which errors are retriable. A broker that refuses to authenticate where nobody
// asked it to (code 58 in an answer to Produce) may think better of it.
func mayRetry(err error) bool {
	return kerr.IsRetriable(err) && !IsTooLarge(err) && !isOutOfPlace(err) || isLogin(err)
}

// isOutOfPlace reports whether a broker has held the batch against the sequence of its
// producer, which it does before it appends, and has not found it next. If it has found
// another batch there (DUPLICATE_SEQUENCE_NUMBER), that is an earlier try of this one, if
// there is one that may have been appended; else this one has never been in the log.
func isOutOfPlace(err error) bool {
	return isAny(err, kerr.OutOfOrderSequenceNumber, kerr.DuplicateSequenceNumber, kerr.InvalidProducerEpoch, kerr.UnknownProducerID)
}

// IsTooLarge reports whether err is a broker's refusal of a batch for its size.
func IsTooLarge(err error) bool { return isAny(err, kerr.MessageTooLarge, kerr.RecordListTooLarge) }

// isOfRecords reports whether err is about some of a batch's records, which the broker then
// names (KIP-467).
func isOfRecords(err error) bool { return isAny(err, kerr.InvalidRecord, kerr.InvalidTimestamp) }

// isLogin reports whether err is a broker's refusal to authenticate.
func isLogin(err error) bool {
	return isAny(err, kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState)
}

// isBeforeAppend reports whether err, as a broker's answer to a batch, means that this try
// has put no record of it into the log. Errors that are not listed may come after an append
// (REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND, and NOT_LEADER_OR_FOLLOWER of a
// leader that lost its office while it waited for its replicas), or are not understood.
// NOT_ENOUGH_REPLICAS comes before the append in Kafka; it is not listed, since a try
// again under the same sequence is right either way. Of UNKNOWN_TOPIC_OR_PARTITION see
// outlive.
func isBeforeAppend(err error) bool {
	return isOutOfPlace(err) || IsTooLarge(err) || isOfRecords(err) || isLogin(err) || isAny(err,
		kerr.CorruptMessage, kerr.InvalidRequiredAcks, kerr.UnsupportedCompressionType,
		kerr.UnsupportedForMessageFormat, kerr.UnsupportedVersion, kerr.PolicyViolation,
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InvalidTopicException)
}

func isAny(err error, targets ...*kerr.Error) bool {
	code, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return false
	}
	for _, t := range targets {
		if code.Code == t.Code {
			return true
		}
	}
	return false
}
