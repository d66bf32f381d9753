package gracedb_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A Metadata answer names hundreds of leaders that are silent: a client dials no more than
// 16 addresses at a time, and the good broker answers meanwhile.
func TestDialsAtOnce(t *testing.T) {
	const strangers = 300
	for _, make := range constructors {
		t.Run(make.Name, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
					m := resp.(*kmsg.MetadataResponse)
					for i := range int32(strangers) {
						b := kmsg.NewMetadataResponseBroker()
						b.NodeID, b.Host, b.Port = 1000+i, fmt.Sprintf("b%d.invalid", i), 9092
						m.Brokers = append(m.Brokers, b)
					}
					for i := range m.Topics {
						for n := range int32(strangers) {
							p := kmsg.NewMetadataResponseTopicPartition()
							p.Partition, p.Leader = int32(len(m.Topics[i].Partitions)), 1000+n
							m.Topics[i].Partitions = append(m.Topics[i].Partitions, p)
						}
					}
				}})
				var now, most, all atomic.Int64
				cluster := clusterFor(t, c, "alice")
				good := c.Addrs()[0]
				cluster.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					defer now.Add(-1)
					for n := now.Add(1); ; {
						if was := most.Load(); n <= was || most.CompareAndSwap(was, n) {
							break
						}
					}
					if address == good {
						return c.Dial(ctx, network, address)
					}
					all.Add(1)
					<-ctx.Done() // silent
					return nil, ctx.Err()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				start := time.Now()
				got, err := make.Make(ctx, cluster, "test")
				if err == nil {
					defer got.Close()
				}
				if took := time.Since(start); took > 21*time.Second {
					t.Errorf("after %v", took)
				}
				if n := most.Load(); n > 16 || n < 2 {
					t.Errorf("%d dials at a time, want at most 16", n)
				}
				if all.Load() < 16 {
					t.Errorf("%d dials to strangers: %v", all.Load(), err)
				}
			})
		})
	}
}

// A Dial that heeds no ctx keeps no call past its own, and Close not past FlushTimeout.
func TestDialHeedsNoContext(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		cluster := clusterFor(t, c, "alice")
		var deaf atomic.Bool
		release := make(chan struct{})
		defer close(release)
		cluster.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if deaf.Load() {
				<-release
				return nil, net.ErrClosed
			}
			return c.Dial(ctx, network, address)
		}
		cfg := gracedb.ProducerConfig{Cluster: cluster, Topic: "test", FlushTimeout: 2 * time.Second}
		p, err := gracedb.NewProducer(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		con, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: "g"})
		if err != nil {
			t.Fatal(err)
		}
		deaf.Store(true)
		c.Drop(0)
		for what, call := range map[string]func(context.Context) error{
			"ProduceSync": func(ctx context.Context) error { return sendOne(ctx, p) },
			"Check":       p.Check,
			"Poll":        func(ctx context.Context) error { _, err := con.Poll(ctx); return err },
			"NewProducer": func(ctx context.Context) error { _, err := gracedb.NewProducer(ctx, cfg); return err },
			"Close":       func(context.Context) error { p.Close(); return context.DeadlineExceeded },
			"Consumer's":  func(context.Context) error { con.Close(); return context.DeadlineExceeded },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			start := time.Now()
			err := call(ctx)
			if took := time.Since(start); took > 2200*time.Millisecond {
				t.Errorf("%s: after %v", what, took)
			}
			if err == nil {
				t.Errorf("%s: no error", what)
			}
			cancel()
		}
	})
}
