package consume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// What ListOffsets takes instead of a time, in milliseconds since 1970.
const (
	latest   = -1
	earliest = -2
)

// from returns where topics are to be begun, as ListOffsets takes it.
func (cfg *Config) from() (int64, error) {
	switch {
	case cfg.FromBeginning && !cfg.Since.IsZero():
		return 0, errs.New([]error{errs.Config, errs.Consumer}, "kafka: Since and FromBeginning exclude each other: set one of them")
	case cfg.FromBeginning:
		return earliest, nil
	case cfg.Since.IsZero():
		return latest, nil
	}
	return millis(cfg.Since), nil
}

// millis returns the first millisecond that is not before t. Messages have times in milliseconds.
// Negative ones have a meaning of their own in ListOffsets, so it returns none.
func millis(t time.Time) int64 {
	switch {
	case !t.After(time.UnixMilli(0)):
		return 0
	case t.Unix() >= math.MaxInt64/1000:
		return math.MaxInt64
	}
	return t.Add(time.Millisecond - 1).UnixMilli()
}

// offsetsFrom returns, of each partition that has a leader, the offset of its first message that is
// not before from, or its end if there is none.
//
// The end is asked for first: a message that comes between the two requests is either found by the
// second, or behind the end.
//
// Brokers are asked without an isolation level: with READ_COMMITTED, one finds nothing from the first
// message of an open transaction on, and messages that are older than from would be read from there
// on. kgo passes over what is aborted.
func (c *Consumer) offsetsFrom(ctx context.Context, states map[string]cluster.Topic, topics []string, from int64) (offsetMap, error) {
	if from < 0 {
		return c.listOffsets(ctx, states, topics, from, 0)
	}
	ends, err := c.listOffsets(ctx, states, topics, latest, 0)
	if err != nil {
		return nil, err
	}
	found, err := c.listOffsets(ctx, states, topics, from, 0)
	if err != nil {
		return nil, err
	}
	for topic, parts := range found {
		for part, at := range parts {
			if at.Offset < 0 {
				parts[part] = ends[topic][part]
			}
		}
	}
	return found, nil
}

// listOffsets asks the leaders of partitions for an offset each, by a time, latest or earliest. It is
// -1 where no message is at or after the time.
func (c *Consumer) listOffsets(ctx context.Context, states map[string]cluster.Topic, topics []string, when int64, isolation int8) (offsetMap, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	offsets := make(offsetMap)
	wanted := 0
	for _, topic := range topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, part := range states[topic].Partitions {
			if part.Leader < 0 {
				continue
			}
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = part.ID, when
			t.Partitions = append(t.Partitions, p)
			wanted++
		}
		req.Topics = append(req.Topics, t)
	}
	if wanted == 0 {
		return offsets, nil
	}
	for _, shard := range c.cluster.KGO.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					if errors.Is(err, kerr.TopicAuthorizationFailed) {
						return nil, c.cluster.TopicError(ctx, t.Topic, err)
					}
					return nil, fmt.Errorf("topic %s partition %d: %w", t.Topic, p.Partition, err)
				}
				set(offsets, t.Topic, p.Partition, kgo.EpochOffset{Epoch: p.LeaderEpoch, Offset: p.Offset})
				wanted--
			}
		}
	}
	if wanted != 0 {
		return nil, fmt.Errorf("where %d partition(s) begin or end was not told: %w", wanted, kerr.UnknownTopicOrPartition)
	}
	return offsets, nil
}

// isolation is the isolation level of what is read, as requests take it.
func (c *Consumer) isolation() int8 {
	level, _ := c.cluster.KGO.OptValue(kgo.FetchIsolationLevel).(int8)
	return level
}

// A Lag is how far one partition is behind.
type Lag struct {
	Topic     string
	Partition int32
	Position  int64 // of the next message that Poll returns; -1 if it is not known
	End       int64 // where what may be read ends; -1 without a leader
}

// Lag returns the position in each partition that is read, and its end, in order.
func (c *Consumer) Lag(ctx context.Context) ([]Lag, error) {
	if c.cluster.Life.IsClosing() {
		return nil, c.cluster.ErrClosed()
	}
	c.mu.Lock()
	topics := c.positions.consumed()
	c.mu.Unlock()
	var states map[string]cluster.Topic
	var ends offsetMap
	if len(topics) == 0 {
		return nil, nil
	}
	err := c.cluster.Await(ctx, cluster.Starting, "asking for the lag", func(ctx context.Context) (err error) {
		if states, err = c.cluster.FindTopics(ctx, kmsg.ACLOperationRead, topics...); err == nil {
			ends, err = c.listOffsets(ctx, states, topics, latest, c.isolation())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var lags []Lag
	for _, topic := range topics {
		for _, state := range states[topic].Partitions {
			part := c.positions.at(topic, state.ID)
			if c.group != "" && !part.owned {
				continue
			}
			lag := Lag{Topic: topic, Partition: state.ID, Position: part.returned, End: -1}
			if end, ok := ends[topic][state.ID]; ok {
				lag.End = max(end.Offset, lag.Position) // messages may have come and been returned since
			}
			lags = append(lags, lag)
		}
	}
	return lags, nil
}
