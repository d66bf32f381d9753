// Package consume is what a Consumer does, with kgo's records instead of messages: it finds its
// position in each partition before New returns, takes records from kgo within a budget of memory,
// follows topics that go, come and are made anew, and tells the caller of what keeps it from
// reading and of what is lost. Consumer draws the states of a partition, and lists the goroutines
// and the order of the locks.
package consume

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

const (
	consumerGrace = 5 * time.Second
	closeTimeout  = 2800 * time.Millisecond
	// pollRecords is how many messages one PollRecords takes from kgo.
	pollRecords = 256
	// A killed member's partitions move within 15 seconds.
	sessionTimeout = 10 * time.Second
	// The partitions of a member that leaves are read by others within 2 seconds:
	//  1. another member hears of it with its next heartbeat, and is assigned a partition;
	//  2. kgo adds the partition to its next Fetch, which it sends when the broker has answered the
	//     Fetch before: after memberFetchWait at the latest, if there is nothing to read.
	// librdkafka waits as long by default. A Consumer without a group keeps kgo's 5 seconds, and
	// sends a tenth of the requests.
	heartbeatEvery  = time.Second
	memberFetchWait = 500 * time.Millisecond
)

// A Consumer is a Consumer without its public face.
//
// A partition of a topic is in one of these states:
//
//	pending ──position, positionPending──▶ consumed
//	consumed ──pauseAt──▶ held ──retryBatch: the batch can be read; seekOn: it is lost──▶ consumed
//	consumed ──onRevoked, onLost──▶ of another member ──onAssigned──▶ consumed
//	consumed ──the topic is missing for missingRounds──▶ purged ──followTopic──▶ consumed
//
// Its goroutines, and what ends each:
//
//	followTopics  one                      the client is closed
//	poll          at most one              PollRecords returns
//	setOffsets    at most one              SetOffsets returns
//	markWhenDue   at most one, of a timer  nothing is unmarked
//	retryBatch    one for a held partition the batch is read, lost or another member's, or the client is closed
//	suspect       one for a silence        its one inspect returns
//
// kgo calls the functions on… and the hooks of budget and groupWatch from goroutines of its own.
type Consumer struct {
	cluster *cluster.Client // the connections to the brokers, and what is known of these
	group   string
	from    int64 // where topics are begun: latest, earliest or a time
	budget  *budget

	// Only the goroutine that is in Poll, Stream or Commit uses these; the caller has one at a time.
	buffer  []batch       // fetched, and not yet returned by Poll
	current fetched       // the message that Poll returned last; the next Poll notes it as done
	seeking *seek         // where the next Poll makes kgo go on; set by an error that Poll has returned
	outage  int           // the last one of authentication that Poll has told of
	polling *pollResult   // of the PollRecords that is in flight, or whose result fetch has not taken; or nil
	moving  chan struct{} // closed when kgo has taken the offsets that it was given last; or nil

	// A channel of capacity 1 is a lock that can be waited for with a ctx: its holder has a value
	// in it. In this order: round, marking, mu. All but mu may be held until a broker answers.
	round      chan struct{} // held by whoever compares topics with what brokers say: followTopics, and Close
	marking    chan struct{} // held from taking marks out of positions until kgo has them, so that none overtakes a later one
	inspecting chan struct{} // held by the one inspect that fetches, since it has a batch in memory that may be large

	mu        sync.Mutex // guards positions, reports and markDue
	positions positions
	reports   []batch       // what Poll is to tell next; any goroutine adds to it
	wake      chan struct{} // of capacity 1; has a value when something was added to reports
	markDue   bool          // the timer that calls markWhenDue runs

	troubles lasting // has a mutex of its own
}

// A batch is messages of one partition, or an error that Poll returns between messages.
type batch struct {
	records []*kgo.Record
	topicID [16]byte // of the topic that they were fetched from
	losses  int      // positions.losses when they were fetched
	end     int64    // the offset behind records, and behind control records that follow them
	err     error
	seek    *seek // where kgo is to go on once Poll has returned err; nil if it goes on by itself
}

// A fetched is a message that was taken out of a batch. Its Record is nil if there is none.
type fetched struct {
	*kgo.Record
	topicID [16]byte
}

// A Config configures a consumer. It has the fields of ConsumerConfig.
type Config struct {
	Cluster       cluster.Config
	Topics        []string // pipelines or full names
	GroupID       string   // "" for no group
	FromBeginning bool
	Since         time.Time // zero for none
	Lazy          bool
}

// New returns a consumer that is in position, unless cfg.Lazy.
func New(ctx context.Context, cfg Config) (*Consumer, error) {
	c, topics, err := newConsumer(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Lazy {
		c.positions.pending = topics
	} else {
		ctx, cancel := context.WithTimeout(ctx, cluster.ConstructorTimeout)
		defer cancel()
		if err := c.start(ctx, topics); err != nil {
			c.cluster.Shut()
			return nil, err
		}
	}
	go c.followTopics()
	return c, nil
}

func newConsumer(ctx context.Context, cfg Config) (*Consumer, []string, error) {
	from, err := cfg.from()
	if err != nil {
		return nil, nil, err
	}
	c := &Consumer{
		group: cfg.GroupID, from: from,
		positions: newPositions(), wake: make(chan struct{}, 1),
		round: make(chan struct{}, 1), marking: make(chan struct{}, 1), inspecting: make(chan struct{}, 1),
	}
	c.budget = newBudget(c.suspect)
	opts := append(c.budget.opts(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // bufferRecords drops them, and expects next what is behind them
	)
	if c.group != "" {
		opts = append(opts,
			kgo.ConsumerGroup(c.group),
			kgo.SessionTimeout(sessionTimeout),
			kgo.HeartbeatInterval(heartbeatEvery),
			kgo.FetchMaxWait(memberFetchWait),
			// Members of librdkafka know no cooperative balancer: a group with such members uses
			// one of the others. Consumers alone use the first, which moves the fewest partitions.
			kgo.Balancers(kgo.CooperativeStickyBalancer(), kgo.RangeBalancer(), kgo.RoundRobinBalancer()),
			kgo.AutoCommitMarks(),
			kgo.AutoCommitInterval(autoCommitEvery),
			kgo.AutoCommitCallback(c.onAutoCommit),
			// What kgo does where the group has no position. onOffsetsFetched puts the snapshot
			// there; what remains is partitions that are newer than the snapshot.
			kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
			kgo.AdjustFetchOffsetsFn(c.onOffsetsFetched),
			kgo.OnPartitionsAssigned(c.onAssigned),
			kgo.OnPartitionsRevoked(c.onRevoked),
			kgo.OnPartitionsLost(c.onLost),
			kgo.WithHooks((*groupWatch)(c)),
		)
	}
	if c.cluster, err = cluster.New(ctx, cfg.Cluster, errs.Consumer, consumerGrace, newFit, opts...); err != nil {
		return nil, nil, err
	}
	c.budget.setClient(c.cluster.KGO)
	topics, err := c.fullNames(cfg.Topics)
	if err != nil {
		c.cluster.Shut()
		return nil, nil, err
	}
	return c, topics, nil
}

func (c *Consumer) fullNames(names []string) ([]string, error) {
	var full []string
	for _, name := range names {
		topic := topicname.Full(c.cluster.Instance, name)
		if err := topicname.Check(topic); err != nil {
			return nil, errs.New([]error{errs.Config, errs.Consumer, errs.Topic}, "kafka: %s", errs.Reason(err))
		}
		if !slices.Contains(full, topic) {
			full = append(full, topic)
		}
	}
	return full, nil
}

func (c *Consumer) start(ctx context.Context, topics []string) error {
	if err := c.cluster.CheckToken(ctx); err != nil {
		return err
	}
	return c.cluster.Await(ctx, cluster.Starting, "connecting", func(ctx context.Context) error {
		if len(topics) == 0 {
			_, err := c.cluster.Topics(ctx)
			return err
		}
		return c.position(ctx, topics)
	})
}

// Subscribe adds topics, and puts them into position.
func (c *Consumer) Subscribe(ctx context.Context, topics ...string) error {
	if c.cluster.Life.IsClosing() {
		return c.cluster.ErrClosed()
	}
	full, err := c.fullNames(topics)
	if err != nil {
		return err
	}
	c.mu.Lock()
	full = slices.DeleteFunc(full, c.positions.has)
	c.mu.Unlock()
	if len(full) == 0 {
		return nil
	}
	return c.cluster.Await(ctx, cluster.Starting, "subscribing", func(ctx context.Context) error { return c.position(ctx, full) })
}

// Poll returns the next record, an error that lies between records, or the error of ctx.
func (c *Consumer) Poll(ctx context.Context) (*kgo.Record, error) {
	c.noteDone(c.current)
	c.current = fetched{}
	c.seekOn()
	if err := c.awaitMove(ctx); err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c.cluster.Life.IsClosing() {
			return nil, c.cluster.ErrClosed()
		}
		switch r, err := c.nextBuffered(); {
		case err != nil:
			return nil, err
		case r.Record != nil:
			c.current = r
			if n := len(r.Headers); n > cluster.MaxHeaders {
				// The next Poll marks it done, as it does a message.
				c.current.Record = &kgo.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch}
				return nil, errs.New([]error{errs.Consumer},
					"kafka: topic %s partition %d offset %d: a message has %d headers, more than the %d that one may have; continuing behind it",
					r.Topic, r.Partition, r.Offset, n, cluster.MaxHeaders)
			}
			return r.Record, nil
		}
		if err := c.nextReport(); err != nil {
			return nil, err
		}
		c.fetch(ctx)
	}
}

// nextBuffered takes a message or an error out of the buffer. It drops messages of partitions
// that this member lost after they were fetched: another member reads them, or kgo fetches
// them again once this member has the partition back.
func (c *Consumer) nextBuffered() (fetched, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.buffer) > 0 {
		first := &c.buffer[0]
		if err := first.err; err != nil {
			c.seeking = first.seek
			c.buffer = c.buffer[1:]
			return fetched{}, err
		}
		r := first.records[0]
		in := c.positions.topic(r.Topic)
		part := in.at(r.Partition)
		kept := c.group == "" || part.owned && part.lostAt <= first.losses && !in.isFormer(first.topicID)
		t, end := fetched{r, first.topicID}, first.end
		first.records[0] = nil
		first.records = first.records[1:]
		if len(first.records) == 0 || !kept {
			c.buffer[0] = batch{}
			c.buffer = c.buffer[1:]
		}
		if kept {
			part.sought = nil
			if part.returned = r.Offset + 1; len(first.records) == 0 {
				part.returned = end
			}
			return t, nil
		}
	}
	c.buffer = nil
	return fetched{}, nil
}

// nextReport returns what Poll is to tell before it waits for messages: that authentication has
// failed for longer than the grace, once for each outage, or the first of reports.
func (c *Consumer) nextReport() error {
	if outage, cause := c.cluster.Auth.PastGrace(); cause != nil && outage != c.outage {
		c.outage = outage
		return errs.New([]error{cause, errs.Consumer}, "%s", errs.Reason(cause))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.reports) == 0 {
		return nil
	}
	first := c.reports[0]
	c.reports = c.reports[1:]
	c.seeking = first.seek
	return first.err
}

// report makes Poll return err, unless it is still to return an error of the same text.
func (c *Consumer) report(err error) { c.addReport(batch{err: err}) }

// addReport is report for an error with a seek.
func (c *Consumer) addReport(b batch) {
	c.mu.Lock()
	if !slices.ContainsFunc(c.reports, func(r batch) bool { return r.err.Error() == b.err.Error() }) {
		c.reports = append(c.reports, b)
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Check makes a round trip to a broker, and returns what keeps the consumer from reading and lasts.
func (c *Consumer) Check(ctx context.Context) error {
	if c.cluster.Life.IsClosing() {
		return c.cluster.ErrClosed()
	}
	c.mu.Lock()
	topics := slices.Concat(c.positions.consumed(), c.positions.pending)
	c.mu.Unlock()
	return c.cluster.Await(ctx, cluster.Starting, "checking", func(ctx context.Context) error {
		states, err := c.cluster.FindTopics(ctx, kmsg.ACLOperationRead, topics...)
		if err != nil {
			return err
		}
		if err := c.troubles.now(); err != nil {
			return err
		}
		return cluster.CheckLeaders(states, topics...)
	})
}

// Close commits what is done, leaves the group and releases everything, within closeTimeout.
func (c *Consumer) Close() error {
	if c.cluster.Life.Begin() {
		c.close()
		c.cluster.Life.Finish()
	}
	<-c.cluster.Life.Done
	return nil
}

func (c *Consumer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if c.group != "" {
			c.adoptRemadeBeforeClose(ctx)
			c.markInKgo()
			c.logNotStored(c.cluster.KGO.CommitMarkedOffsets(ctx), "messages will come again")
			if err := c.cluster.KGO.LeaveGroupContext(ctx); err != nil {
				c.cluster.Log.Warn("gracedb: kafka: the group could not be told that a member leaves", "group", c.group, "err", errs.Reason(err))
			}
		}
		c.cluster.Shut()
	}()
	select {
	case <-ended:
	case <-ctx.Done(): // the broker is mute
		c.cluster.Life.Abort()
		<-ended
	}
}
