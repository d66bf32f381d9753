package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A cost is what a codec makes of a message, on this processor.
type cost struct {
	size                 int
	compress, decompress time.Duration
}

// measureCosts compresses each message with each codec, in turn.
func measureCosts(all []codec, messages [][]byte, rounds int) (map[key]cost, error) {
	costs := make(map[key]cost)
	decompressor := kgo.DefaultDecompressor()
	for i, m := range messages {
		compress, decompress := make([][]time.Duration, len(all)), make([][]time.Duration, len(all))
		for range rounds {
			for j, c := range all {
				dst := bytes.NewBuffer(make([]byte, 0, 2*len(m)+1024))
				start := time.Now()
				out, kind := c.Compress(dst, m)
				middle := time.Now()
				back, err := decompressor.Decompress(out, kind)
				compress[j] = append(compress[j], middle.Sub(start))
				decompress[j] = append(decompress[j], time.Since(middle))
				if err != nil || !bytes.Equal(back, m) {
					return nil, fmt.Errorf("%s does not give back what it was given: %w", c.name, err)
				}
				costs[key{i, c.name}] = cost{len(out), median(compress[j]), median(decompress[j])}
			}
		}
	}
	return costs, nil
}

// A key is a message and a codec.
type key struct {
	message int
	codec   string
}

// A pair is the time of a message after a time of quiet, and of the same once more
// at once.
type pair struct{ idle, warm []time.Duration }

// A sender publishes batches with one codec.
type sender struct {
	codec
	client *kgo.Client
}

func (s sender) send(ctx context.Context, value []byte) (time.Duration, error) {
	start := time.Now()
	err := s.client.ProduceSync(ctx, kgo.KeySliceRecord([]byte("G123456"), value)).FirstErr()
	return time.Since(start), err
}

func (r *rig) senders(all []codec, past bool) ([]sender, error) {
	var senders []sender
	for _, c := range all {
		if c.slow {
			continue
		}
		client, err := r.bare(past, kgo.WithCompressor(c))
		if err != nil {
			return nil, err
		}
		senders = append(senders, sender{c, client})
	}
	return senders, nil
}

// inTurn calls f for each sender, and in the reverse order every second round.
func inTurn(senders []sender, round int, f func(sender) error) error {
	order := slices.Clone(senders)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, s := range order {
		if err := f(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// publish measures what producers wait for.
func (r *rig) publish(ctx context.Context, senders []sender, messages [][]byte, rounds int) (map[key]*pair, error) {
	times := make(map[key]*pair)
	for round := range rounds {
		for i, m := range messages {
			if err := inTurn(senders, round, func(s sender) error {
				p := entry(times, key{i, s.name})
				r.broker.Idle()
				idle, err := s.send(ctx, m)
				if err != nil {
					return err
				}
				warm, err := s.send(ctx, m)
				p.idle, p.warm = append(p.idle, idle), append(p.warm, warm)
				return err
			}); err != nil {
				return nil, err
			}
		}
	}
	return times, nil
}

// fetch measures what a consumer behind the proxy waits for, from the broker's
// acknowledgement to a producer beside it. senders go past the proxy.
func (r *rig) fetch(ctx context.Context, senders []sender, messages [][]byte, rounds int) (map[key]*pair, error) {
	reader, err := r.bare(false, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtEnd()}}),
		kgo.FetchMaxPartitionBytes(10<<20), kgo.FetchMaxWait(10*time.Second))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	if err := r.position(ctx, reader, senders[0]); err != nil {
		return nil, err
	}
	one := func(s sender, m []byte) (time.Duration, error) {
		// The next fetch waits at the broker: it is on its way since the last
		// message came.
		r.settle()
		acked := make(chan time.Time, 1)
		errs := make(chan error, 1)
		go func() {
			_, err := s.send(ctx, m)
			acked <- time.Now()
			errs <- err
		}()
		fetched := reader.PollRecords(ctx, 1)
		arrived := time.Now()
		took := arrived.Sub(<-acked)
		if err := <-errs; err != nil {
			return 0, err
		}
		return took, fetched.Err()
	}
	times := make(map[key]*pair)
	for round := range rounds {
		for i, m := range messages {
			if err := inTurn(senders, round, func(s sender) error {
				p := entry(times, key{i, s.name})
				r.broker.Idle()
				idle, err := one(s, m)
				if err != nil {
					return err
				}
				warm, err := one(s, m)
				p.idle, p.warm = append(p.idle, idle), append(p.warm, warm)
				return err
			}); err != nil {
				return nil, err
			}
		}
	}
	return times, nil
}

// position returns when reader stands at the end of the topic.
func (r *rig) position(ctx context.Context, reader *kgo.Client, s sender) error {
	for {
		if _, err := s.send(ctx, []byte("position")); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		fetched := reader.PollRecords(short, 1)
		cancel()
		if fetched.NumRecords() > 0 {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	for reader.PollRecords(short, 100).NumRecords() > 0 {
	}
	return nil
}

// settle waits for what is on its way to the broker.
func (r *rig) settle() { time.Sleep(r.link.RoundTrip/2 + 5*time.Millisecond) }

func entry(times map[key]*pair, k key) *pair {
	if times[k] == nil {
		times[k] = new(pair)
	}
	return times[k]
}

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
