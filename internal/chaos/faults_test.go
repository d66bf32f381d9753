//go:build unix

package chaos

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/faultproxy"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// offsetsTopic is where the brokers keep the positions of groups.
const offsetsTopic = "__consumer_offsets"

// hit makes a fault happen, and returns when it has been put right again.
func (r *rig) hit(ctx context.Context, f fault, members []*member) error {
	switch f.kind {
	case kill, halt, restart, haltAll:
		return r.hitBrokers(ctx, f)
	case moveOffsets:
		return r.moveLeader(ctx, offsetsTopic, 0)
	case move:
		return r.moveLeader(ctx, r.topic, f.partition)
	case rotate:
		return r.kafka.Issuer.Rotate(true)
	case noTok:
		r.tokens.take(errors.New("chaos: there is no token"))
		wait(f.lasting)
		r.tokens.take(nil)
	case badTok:
		r.tokens.say(testauth.Claims{Audience: []string{"https://elsewhere.test"}})
		r.proxy.CutAll()
		wait(f.lasting)
		r.tokens.say(testauth.Claims{})
	case leave:
		members[f.broker%len(members)].restart()
	case cutAll:
		r.proxy.CutAll()
	case freeze:
		r.proxy.Freeze()
		wait(f.lasting)
		r.proxy.Thaw()
	case byByte, slow, far:
		r.proxy.SetShape(shapes[f.kind])
		wait(f.lasting)
		r.proxy.SetShape(faultproxy.Shape{})
	case dropRequest, dropAnswer, cutRequest, cutAnswer, holdAnswer:
		r.hitFrames(f)
	}
	return nil
}

var shapes = map[kind]faultproxy.Shape{
	byByte: {Chunk: 1}, slow: {PerSecond: 64 << 10}, far: {Latency: 100 * time.Millisecond},
}

// hitBrokers leaves all of them running.
func (r *rig) hitBrokers(ctx context.Context, f fault) error {
	if f.kind == restart {
		return r.kafka.Restart(ctx, f.broker)
	}
	led, err := r.leader(ctx, r.topic, f.partition)
	if err != nil {
		return err
	}
	if f.kind == kill {
		if err := r.kafka.Kill(led); err != nil {
			return err
		}
		wait(f.lasting)
		return r.kafka.Restart(ctx, led)
	}
	halted := []int{led}
	if f.kind == haltAll {
		halted = []int{0, 1, 2}
	}
	for _, i := range halted {
		err = errors.Join(err, r.kafka.Stop(i))
	}
	wait(f.lasting)
	for _, i := range halted {
		err = errors.Join(err, r.kafka.Cont(i))
	}
	return err
}

// hitFrames returns when the fault has met what it was meant for, or nothing that
// it could meet has passed for a while.
func (r *rig) hitFrames(f fault) {
	inject := faultproxy.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Skip: f.skip, Count: 1 + f.broker,
		Forward: f.forward, FIN: f.partition%2 == 0, For: f.lasting,
	}
	if f.forward > 0.7 {
		inject.Keys = append(inject.Keys, kmsg.Fetch)
	}
	inject.Response = f.kind == cutAnswer || f.kind == dropAnswer || f.kind == holdAnswer
	switch f.kind {
	case cutRequest, cutAnswer:
		inject.Do = faultproxy.Cut
	case holdAnswer:
		inject.Do = faultproxy.Hold
	}
	i := r.proxy.Inject(inject)
	for end := time.Now().Add(5 * time.Second); i.Hits() < i.Count && time.Now().Before(end); {
		wait(10 * time.Millisecond)
	}
	i.Remove()
	if f.kind == holdAnswer {
		wait(f.lasting)
	}
}

// leader returns the broker, counted from 0, that leads a partition.
func (r *rig) leader(ctx context.Context, topic string, partition int32) (int, error) {
	for {
		meta, err := r.kafka.Admin().Metadata(ctx, topic)
		if err != nil {
			return 0, err
		}
		if led := meta.Topics[topic].Partitions[partition].Leader; led > 0 {
			return int(led) - 1, nil
		}
		wait(50 * time.Millisecond)
	}
}

// moveLeader makes the next replica of a partition its leader.
func (r *rig) moveLeader(ctx context.Context, topic string, partition int32) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	admin := r.kafka.Admin()
	meta, err := admin.Metadata(ctx, topic)
	if err != nil {
		return err
	}
	p := meta.Topics[topic].Partitions[partition]
	i := slices.Index(p.Replicas, p.Leader)
	replicas := slices.Concat(p.Replicas[i+1:], p.Replicas[:i+1])
	var req kadm.AlterPartitionAssignmentsReq
	req.Assign(topic, partition, replicas)
	altered, err := admin.AlterPartitionAssignments(ctx, req)
	if err := errors.Join(err, altered.Error()); err != nil {
		return err
	}
	for {
		var set kadm.TopicsSet
		set.Add(topic, partition)
		if _, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, set); err != nil {
			return err
		}
		led, err := r.leader(ctx, topic, partition)
		if err != nil || led == int(replicas[0])-1 {
			return err
		}
		wait(50 * time.Millisecond)
	}
}

// wait is for a fault to last: real brokers have no virtual time.
func wait(d time.Duration) { <-time.After(d) }

// together lets the faults of a step happen at once.
func (r *rig) together(ctx context.Context, s step, members []*member) error {
	errs := make([]error, len(s.faults))
	var wg sync.WaitGroup
	for i, f := range s.faults {
		wg.Go(func() { errs[i] = r.hit(ctx, f, members) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
