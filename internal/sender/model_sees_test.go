package sender

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// resealed makes recover leave the epoch as it was. What goes next has the sequence of what
// was taken out of flight.
func resealed(s *partition, then func() []settlement) []settlement {
	if len(s.inFlight) == 0 || !s.inFlight[0].sequenced {
		return then()
	}
	epoch, sequence := s.epoch, s.inFlight[0].sequence
	out := then()
	if s.epoch != epoch {
		s.epoch, s.sequence = epoch, sequence
	}
	return out
}

// beforeAppend takes an answer for one that comes before the append.
func beforeAppend(code *kerr.Error) func(*modelTry) {
	return func(try *modelTry) {
		if try.answer != nil && try.answer.ErrorCode == code.Code {
			try.err, try.answer.ErrorCode = kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition.Code
		}
	}
}

// TestModelSees does one thing otherwise than the code, each time a mistake that was made
// once or lies near, and demands that the model check tells it.
//
// Broken by hand in partition.go and recover.go, TestModel told:
//   - unseal without bump: "it does not end" (nothing is in order any more), in all models
//   - next without its look at written: "record 1 is behind record 2"
//   - seal without isKnown: "record 0 is behind record 1"
//   - withdraw without its look at sequenced: "called not written, and is in the log", "settled twice"
//   - recover without noting doubt: "in the log twice"
//
// It told nothing, since no promise hangs on it, of: recover without bump where it gives up
// those in doubt (unseal bumps, or what follows is refused as out of order and then does),
// and recover without its look at what is acknowledged behind a batch that failed (it goes
// again, and is recognised).
func TestModelSees(t *testing.T) {
	for _, m := range []struct {
		name, model string
		wrong       wrong
		sees        string
	}{
		{
			name: "records in other company under a sequence that was sent", model: "refusals of several records", sees: "was acknowledged",
			wrong: wrong{recover: resealed},
		},
		{
			name: "NOT_LEADER_OR_FOLLOWER taken for before the append", model: "lost connections", sees: "twice",
			wrong: wrong{end: beforeAppend(kerr.NotLeaderForPartition)},
		},
		{
			name: "the same, and under the same sequence", model: "lost connections, near", sees: "was acknowledged",
			wrong: wrong{end: beforeAppend(kerr.NotLeaderForPartition), recover: resealed},
		},
		{
			name: "no new epoch, and the sequence goes on", model: "lost connections", sees: "does not end",
			wrong: wrong{recover: func(s *partition, then func() []settlement) []settlement {
				epoch, sequence := s.epoch, s.sequence
				out := then()
				if s.epoch != epoch {
					s.epoch, s.sequence = epoch, sequence
				}
				return out
			}},
		},
		{
			name: "an unsequenced batch goes as 0, 0, 0 after a failure", model: "lost connections", sees: "was acknowledged",
			wrong: wrong{write: func(b *batch, wrote func() bool) bool {
				if !b.sequenced && b.part.tries > 0 {
					b.sequenced = true
				}
				return wrote()
			}},
		},
		{
			name: "the sequence is not advanced", model: "lost connections", sees: "was acknowledged",
			wrong: wrong{write: func(b *batch, wrote func() bool) bool {
				sequence := b.part.sequence
				wanted := wrote()
				b.part.sequence = sequence
				return wanted
			}},
		},
		{
			name: "a batch that goes again gets a new sequence", model: "lost connections", sees: "twice",
			wrong: wrong{recover: func(s *partition, then func() []settlement) []settlement {
				out := then()
				for _, b := range s.inFlight {
					b.sequenced = false
				}
				return out
			}},
		},
		{
			name: "a batch that goes again is in doubt no more", model: "lost connections", sees: "twice",
			wrong: wrong{recover: func(s *partition, then func() []settlement) []settlement {
				out := then()
				for _, b := range s.inFlight {
					b.doubt = false
				}
				return out
			}},
		},
		{
			name: "a lost connection taken for nothing written", model: "lost connections", sees: "twice",
			wrong: wrong{end: func(try *modelTry) { try.b.written = try.b.written && !errors.Is(try.err, errLost) }},
		},
		{
			name: "a record withdrawn from a batch that was written", model: "withdrawals", sees: "not written",
			wrong: wrong{withdraw: func(r *Record, withdraw func() []settlement) []settlement {
				b := r.batch
				if b == nil {
					return withdraw()
				}
				sequenced, doubt := b.sequenced, b.doubt
				b.sequenced, b.doubt = false, false
				out := withdraw()
				b.sequenced, b.doubt = sequenced, doubt
				return out
			}},
		},
		{
			name: "a topic made anew under the same producer id, from sequence 0", model: "topic made anew, no ids", sees: "was acknowledged",
			wrong: wrong{advance: func(s *partition) { s.spentID = -1 }},
		},
		{
			name: "a batch in doubt goes to the topic made anew", model: "topic made anew", sees: "twice",
			wrong: wrong{end: func(try *modelTry) {
				if b := try.b; b.part.gone {
					b.doubt, b.written = false, false
				}
			}},
		},
		{
			name: "issued before the batch before it is written", model: "lost connections", sees: "is behind",
			wrong: wrong{eager: true},
		},
		{
			name: "the second batch of a producer does not wait for the first", model: "lost connections", sees: "is behind",
			wrong: wrong{advance: func(s *partition) { s.knownID, s.known = s.producerID, thisInstant() }},
		},
		{
			name: "what fails while a leader is looked for is passed over", model: "leaders", sees: "not settled",
			wrong: wrong{blind: true},
		},
	} {
		t.Run(m.name, func(t *testing.T) {
			for _, of := range models {
				if of.name != m.model {
					continue
				}
				of.wrong = m.wrong
				n, states, err := of.check(m.sees)
				if err == nil {
					t.Fatalf("%d histories, %d states, and none tells: %s", n, states, m.sees)
				}
				t.Logf("history %d: %v", n, err)
			}
		})
	}
}
