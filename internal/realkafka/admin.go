//go:build unix

package realkafka

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Admin returns a client that may do anything, through the brokers' plaintext
// listener. It belongs to the cluster.
func (c *Cluster) Admin() *kadm.Client { return c.admin }

// Client returns a client that may do everything, past SASL. The caller closes it.
func (c *Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(c.seeds(), opts...)...)
}

// CreateTopic creates a topic, with configuration such as
// {"max.message.bytes": "1048576"} or nil, and returns when every running broker
// knows it.
func (c *Cluster) CreateTopic(ctx context.Context, topic string, partitions int32, config map[string]string) error {
	values := make(map[string]*string, len(config))
	for k, v := range config {
		values[k] = &v
	}
	if _, err := c.admin.CreateTopic(ctx, partitions, -1, values, topic); err != nil {
		return fmt.Errorf("realkafka: topic %s: %w", topic, err)
	}
	err := c.everywhere(ctx, func(ctx context.Context, b *kgo.Broker) error {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
		resp, err := req.RequestWith(ctx, b)
		if err != nil {
			return err
		}
		t := resp.Topics[0]
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("realkafka: topic %s: %w", topic, err)
	}
	return nil
}

// Allow lets the user with this sub claim do ops on a topic ("*": on all, also on
// those that do not exist), and returns when every running broker knows it.
func (c *Cluster) Allow(ctx context.Context, user, topic string, ops ...kadm.ACLOperation) error {
	return c.allow(ctx, user, kmsg.ACLResourceTypeTopic, topic, ops)
}

// AllowGroups lets the user with this sub claim belong to any consumer group.
func (c *Cluster) AllowGroups(ctx context.Context, user string) error {
	return c.allow(ctx, user, kmsg.ACLResourceTypeGroup, "*", []kadm.ACLOperation{kadm.OpRead})
}

func (c *Cluster) allow(ctx context.Context, user string, kind kmsg.ACLResourceType, name string, ops []kadm.ACLOperation) error {
	b := kadm.NewACLs().Allow("User:" + user).AllowHosts().Operations(ops...).ResourcePatternType(kadm.ACLPatternLiteral)
	if kind == kmsg.ACLResourceTypeTopic {
		b.Topics(name)
	} else {
		b.Groups(name)
	}
	results, err := c.admin.CreateACLs(ctx, b)
	if err != nil {
		return fmt.Errorf("realkafka: ACL for %s: %w", user, err)
	}
	for _, r := range results {
		if r.Err != nil {
			return fmt.Errorf("realkafka: ACL for %s: %w", user, r.Err)
		}
	}
	return c.everywhere(ctx, func(ctx context.Context, b *kgo.Broker) error {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourceName = kind, &name
		req.ResourcePatternType = kmsg.ACLResourcePatternTypeLiteral
		req.Principal = new("User:" + user)
		req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		resp, err := req.RequestWith(ctx, b)
		if err != nil {
			return err
		}
		var known []kadm.ACLOperation
		for _, r := range resp.Resources {
			for _, a := range r.ACLs {
				known = append(known, a.Operation)
			}
		}
		for _, op := range ops {
			if !slices.Contains(known, op) {
				return fmt.Errorf("ACL for %s: %v not known yet", user, op)
			}
		}
		return nil
	})
}

// everywhere asks every running broker until each has answered well: what the
// controller has decided reaches them a little later.
func (c *Cluster) everywhere(ctx context.Context, ask func(context.Context, *kgo.Broker) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := c.client
	for _, n := range c.nodes {
		for {
			select {
			case <-n.process().done:
			default:
				if err := ask(ctx, client.Broker(n.id)); err != nil {
					select {
					case <-time.After(20 * time.Millisecond):
						continue
					case <-ctx.Done():
						return fmt.Errorf("broker %d: %w (%w)", n.id, ctx.Err(), err)
					}
				}
			}
			break
		}
	}
	return nil
}

// Records returns all that a topic holds, by partition and offset.
func (c *Cluster) Records(ctx context.Context, topic string) ([]*kgo.Record, error) {
	ends, err := c.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("realkafka: end of %s: %w", topic, err)
	}
	left := make(map[int32]int64) // partitions not read to their end yet
	from := make(map[int32]kgo.Offset)
	ends.Each(func(o kadm.ListedOffset) {
		from[o.Partition] = kgo.NewOffset().AtStart()
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	client, err := kgo.NewClient(append(c.seeds(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))...)
	if err != nil {
		return nil, fmt.Errorf("realkafka: %w", err)
	}
	defer client.Close()
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("realkafka: reading %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			records = append(records, r)
			if end, ok := left[r.Partition]; ok && r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	slices.SortFunc(records, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return records, nil
}
