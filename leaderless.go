package gracedb

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/errs"
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

// resolvesEnd reports whether loss is that of step 3 at endOfEpoch, and notes the offset.
func (part *partition) resolvesEnd(loss *kgo.ErrDataLoss) bool {
	if loss.ConsumedTo != endOfEpoch {
		return false
	}
	part.start = &kgo.EpochOffset{Epoch: loss.ResetToEpoch, Offset: loss.ResetTo}
	part.reset(loss.ResetTo)
	return true
}

// withoutLeader returns the partitions of a topic that have no leader.
func (s topicState) withoutLeader() []int32 {
	var ids []int32
	for _, part := range s.partitions {
		if part.leader < 0 {
			ids = append(ids, part.id)
		}
	}
	return ids
}

// logLeaders logs which partitions of a topic have no leader, and which have one again.
func (l *link) logLeaders(was, now topicState) {
	before, after := was.withoutLeader(), now.withoutLeader()
	lost := slices.DeleteFunc(slices.Clone(after), func(id int32) bool { return slices.Contains(before, id) })
	back := slices.DeleteFunc(before, func(id int32) bool { return slices.Contains(after, id) })
	if len(lost) > 0 {
		l.log.Warn("gracedb: kafka: no broker leads these partitions; they are followed when one does", "topic", now.name, "partitions", numbers(lost))
	}
	if len(back) > 0 {
		l.log.Info("gracedb: kafka: these partitions have a leader again", "topic", now.name, "partitions", numbers(back))
	}
}

// checkLeaders returns an error that names the partitions without a leader, if there are
// any.
func checkLeaders(states map[string]topicState, topics ...string) error {
	var texts []string
	for _, topic := range topics {
		if ids := states[topic].withoutLeader(); len(ids) > 0 {
			texts = append(texts, fmt.Sprintf("topic %s partition %s", topic, numbers(ids)))
		}
	}
	if texts == nil {
		return nil
	}
	return errs.New([]error{errs.Connection, kerr.LeaderNotAvailable},
		"kafka: no broker leads %s: nothing is written to or read from there until one does", shortList(texts))
}

func numbers(ids []int32) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(int(id))
	}
	return shortList(texts)
}
