package consume

import (
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
)

// This file is about partitions without a leader: all brokers that have a replica are away. A
// Consumer starts all the same. Where such a partition ends can be asked for later:
//  1. the partition loses its leader, and Kafka counts its leader epoch up, to e;
//  2. no broker appends to it while it has no leader;
//  3. a broker becomes its leader, and Kafka counts the epoch up again, to e+1;
//  4. OffsetForLeaderEpoch(e) tells where the log ended before step 3.

// endOfEpoch is the offset at which kgo is told to begin in a partition without a leader, with
// the epoch e of step 1 above. When the partition has a leader,
//  1. kgo asks it by OffsetForLeaderEpoch where the log ended in that epoch;
//  2. the leader answers an offset before endOfEpoch, and kgo takes what is between for lost;
//  3. kgo goes on at that offset, and returns a kgo.ErrDataLoss, although nothing is lost.
const endOfEpoch = math.MaxInt64

// kgoOffset returns where kgo is to begin: at an offset that is known, or at the end of an epoch.
func kgoOffset(at kgo.EpochOffset) kgo.Offset {
	switch {
	case at.Offset >= 0:
		return kgo.NewOffset().At(at.Offset).WithEpoch(at.Epoch)
	case at.Epoch >= 0:
		return kgo.NewOffset().At(endOfEpoch).WithEpoch(at.Epoch)
	}
	return kgo.NewOffset().AtEnd() // the broker is older than leader epochs: kgo asks for the end when there is a leader
}

// startAtEndOfEpoch adds to starts, for partitions without a leader, offset -1 and the epoch at
// whose end to begin.
func startAtEndOfEpoch(starts offsetMap, states map[string]cluster.Topic, topics []string) {
	for _, topic := range topics {
		for _, part := range states[topic].Partitions {
			if part.Leader < 0 {
				set(starts, topic, part.ID, kgo.EpochOffset{Epoch: part.Epoch, Offset: -1})
			}
		}
	}
}

// resolvesEnd reports whether loss is that of step 3 at endOfEpoch, and notes the offset.
func (part *partition) resolvesEnd(loss *kgo.ErrDataLoss) bool {
	if loss.ConsumedTo != endOfEpoch {
		return false
	}
	part.start = &kgo.EpochOffset{Epoch: loss.ResetToEpoch, Offset: loss.ResetTo}
	part.reset(loss.ResetTo)
	return true
}
