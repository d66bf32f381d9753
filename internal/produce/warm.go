package produce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// keepWarmEvery is how often the connections that messages use are used. It also
// renews sessions before they expire, and finds flows that a firewall forgot.
const keepWarmEvery = 20 * time.Second

// start connects, authenticates, checks the topics and warms up.
func (p *Producer) start(ctx context.Context) error {
	if err := p.cluster.CheckToken(ctx); err != nil {
		return err
	}
	return p.cluster.Await(ctx, cluster.Starting, "connecting", func(ctx context.Context) error {
		all, err := p.find(ctx)
		if err != nil {
			return err
		}
		return p.warm(ctx, all)
	})
}

// warm takes off the first message what it would have to wait for: the producer id, what is
// to be known of these topics, and the connection to each leader.
func (p *Producer) warm(ctx context.Context, topics []cluster.Topic) error {
	for _, s := range topics {
		p.sender.Learn(s.Name, forSender(topic{Topic: s})) // who leads; how large batches may be follows
	}
	var id error
	var wg sync.WaitGroup
	wg.Go(func() { id = p.sender.ProducerID(ctx) })
	wg.Go(func() { p.learnAll(ctx, topics) })
	err := p.openLeaders(ctx)
	wg.Wait()
	if errors.Is(id, kerr.ClusterAuthorizationFailed) {
		// A producer id is for whoever may write to any topic (KIP-679).
		id = errs.New([]error{errs.Topic, id}, "kafka: topic %q on %s: %s may not write to it, nor to any other topic",
			p.topic, p.cluster.Brokers[0], p.cluster.Principal())
	}
	return errors.Join(err, id)
}

// openLeaders opens the connections that messages use; without a topic in use, those
// to all brokers.
func (p *Producer) openLeaders(ctx context.Context) error {
	leaders := p.sender.Leaders()
	for _, id := range leaders {
		if p.cluster.Health.Outlasts(ctx, id) {
			return p.cluster.ThrottleError("a round trip")
		}
	}
	if err := p.cluster.KGO.EnsureProduceConnectionIsOpen(ctx, slices.Clone(leaders)...); err != nil {
		return err
	}
	err := p.pingLeaders(ctx, leaders)
	if err == nil && p.compressor.far() {
		// A broker that is cold, or busy with logins, looks like one that is far away.
		err = p.pingLeaders(ctx, leaders)
	}
	return err
}

// pingLeaders makes a round trip on the connection to each leader that messages
// use, by a produce request without messages. Brokers answer it, and write nothing.
func (p *Producer) pingLeaders(ctx context.Context, leaders []int32) error {
	errs := make([]error, len(leaders))
	var wg sync.WaitGroup
	for i, id := range leaders {
		wg.Go(func() {
			req := kmsg.NewPtrProduceRequest()
			req.Acks = -1
			start := time.Now()
			if _, errs[i] = p.cluster.KGO.Broker(int(id)).Request(ctx, req); errs[i] == nil {
				p.compressor.observeRTT(time.Since(start))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// keepWarm makes the event after a quiet hour as fast as the one before, whichever topic of
// the instance it goes to, and learns what has changed about these, such as new partitions.
func (p *Producer) keepWarm() {
	tick := time.NewTicker(keepWarmEvery)
	defer tick.Stop()
	for all := false; ; {
		select {
		case <-p.cluster.Life.Closing:
			return
		case <-tick.C:
		}
		if p.cluster.Auth.Failure() != nil {
			continue // cluster.Client looks for a good token
		}
		if p.cluster.Health.IsThrottled() {
			continue // kgo holds up messages for a request that waits for another connection's throttle
		}
		// A dead connection is closed by this, which is all that is wanted.
		ctx, cancel := context.WithTimeout(p.cluster.KGO.Context(), keepWarmEvery/2)
		if all {
			_ = p.refresh(ctx)
		} else {
			all = p.learnInstance(ctx) == nil
		}
		if leaders := p.sender.Leaders(); len(leaders) > 0 {
			_ = p.pingLeaders(ctx, leaders)
		}
		p.learnLimits(ctx)
		cancel()
	}
}

// Ready reports what would keep an encoded message of size bytes from being
// published to topic (a full name) now, without sending any: closed, refused past
// the grace, too large, topic missing or not allowed.
func (p *Producer) Ready(ctx context.Context, topic string, size int) error {
	if p.cluster.Life.IsClosing() || p.queue.isClosed() {
		return p.cluster.ErrClosed()
	}
	if err := p.checkTopicName(topic); err != nil {
		return err
	}
	if size > p.maxMessage {
		return p.tooLarge(topic, size, fmt.Sprintf("MaxMessageBytes is %d", p.maxMessage), nil)
	}
	if err := p.refused(); err != nil {
		return errs.New([]error{err, errs.Delivery}, "%s", errs.Reason(err))
	}
	if p.knowsWritable(topic) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.flushTimeout)
	defer cancel()
	return p.cluster.Await(ctx, cluster.Running, "looking for topic "+topic, func(ctx context.Context) error {
		return p.learnTopic(ctx, topic)
	})
}

// Check makes a round trip to the broker, and reports what would stop a message now.
func (p *Producer) Check(ctx context.Context) error {
	if p.cluster.Life.IsClosing() || p.queue.isClosed() {
		return p.cluster.ErrClosed()
	}
	return p.cluster.Await(ctx, cluster.Starting, "checking", func(ctx context.Context) error {
		if p.topic != "" {
			if err := p.learnDefault(ctx); err != nil {
				return err
			}
		}
		// Who leads the other topics may have gone, and not be known to anybody any more.
		err := p.refresh(ctx)
		switch {
		case err != nil:
		case len(p.sender.Leaders()) > 0:
			err = p.openLeaders(ctx)
		default:
			req := kmsg.NewPtrProduceRequest()
			req.Acks = -1
			_, err = p.cluster.KGO.Request(ctx, req)
		}
		if err == nil && p.topic != "" {
			err = cluster.CheckLeaders(map[string]cluster.Topic{p.topic: p.state(p.topic).Topic}, p.topic)
		}
		return err
	})
}

// Ping publishes a small test message to topic, or to the default topic, or to "test".
func (p *Producer) Ping(ctx context.Context, topic string) (kgo.Record, error) {
	if topic == "" && p.topic == "" {
		topic = "test"
	}
	claims := p.cluster.Auth.Identity()
	return p.Publish(ctx, kgo.Record{
		Topic: topic, Key: []byte("ping/" + claims.Subject), Value: wire.Ping(time.Now(), claims.Subject, claims.Scope),
	}, false)
}
