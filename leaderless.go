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

// This file is about partitions without a leader, since all brokers that have them are
// away. They keep nobody from starting. Nobody can write to them meanwhile, and Kafka
// counts a partition's epoch up when it loses its leader, and again when it has one: so
// where such a partition ended can be asked for later, exactly, by the epoch in which it
// had no leader.

// whereEpochEnds is the offset from which the engine is told to go on in a partition
// without a leader, whose end is not known. As soon as there is a leader,
//  1. the engine asks it where the log ended in the epoch that goes with the offset;
//  2. it is told an offset before whereEpochEnds, and takes what lies between for lost;
//  3. it goes on at that offset, and says so by a kgo.ErrDataLoss, which is none.
const whereEpochEnds = math.MaxInt64

// startingAt returns where the engine is to begin: at an offset that is known, or at the
// end of an epoch.
func startingAt(at kgo.EpochOffset) kgo.Offset {
	switch {
	case at.Offset >= 0:
		return kgo.NewOffset().At(at.Offset).WithEpoch(at.Epoch)
	case at.Epoch >= 0:
		return kgo.NewOffset().At(whereEpochEnds).WithEpoch(at.Epoch)
	}
	return kgo.NewOffset().AtEnd() // brokers older than epochs; the engine asks when it can
}

// foundEnd notes where the epoch ended that the engine was told to begin behind, and
// reports whether loss says that and nothing else.
func (part *partition) foundEnd(loss *kgo.ErrDataLoss) bool {
	if loss.ConsumedTo != whereEpochEnds {
		return false
	}
	part.start = &kgo.EpochOffset{Epoch: loss.ResetToEpoch, Offset: loss.ResetTo}
	part.reset(loss.ResetTo)
	return true
}

// waiting returns the partitions of a topic that have no leader.
func (s topicState) waiting() []int32 {
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
	before, after := was.waiting(), now.waiting()
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
		if ids := states[topic].waiting(); len(ids) > 0 {
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
