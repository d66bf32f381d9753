package testrig

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// Record is a record for ProduceRaw.
func Record(topic string, partition int32, value string) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)}
}

// Groups are the groups that a test runs with: none, and one.
var Groups = []string{"", "g"}

// WithGroups runs f on a virtual clock without a group and with one.
func WithGroups(t *testing.T, partitions int, f func(*testing.T, *kafkatest.Cluster, string)) {
	for _, group := range []string{"", "g"} {
		t.Run("group="+group, func(t *testing.T) {
			cfg := kafkatest.Config{Topics: map[string]int{Topic: partitions}}
			Virtually(t, cfg, func(t *testing.T, cl *kafkatest.Cluster) { f(t, cl, group) })
		})
	}
}

// ProduceWith appends records, each a batch, with options of a client of its own.
func ProduceWith(t testing.TB, cl *kafkatest.Cluster, opts []kgo.Opt, records ...*kgo.Record) {
	t.Helper()
	client, err := cl.Client(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, r := range records {
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// PollAll polls for a time, and returns what came.
func PollAll(t testing.TB, c *gracedb.Consumer, lasting time.Duration) (got []string, errs []error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	for {
		m, err := c.Poll(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
			return got, errs
		case err != nil:
			errs = append(errs, err)
		default:
			got = append(got, string(m.Value))
		}
	}
}

// Rewrite changes what is fetched of the batches at these offsets of partitions.
func Rewrite(cl *kafkatest.Cluster, offsets map[int32]int64, edit func(batch []byte)) *kafkatest.Injection {
	return cl.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
		for _, t := range resp.(*kmsg.FetchResponse).Topics {
			for i := range t.Partitions {
				p := &t.Partitions[i]
				offset, ok := offsets[p.Partition]
				if !ok {
					continue
				}
				p.RecordBatches = bytes.Clone(p.RecordBatches)
				for rest := p.RecordBatches; len(rest) > 61; {
					size := 12 + int(binary.BigEndian.Uint32(rest[8:]))
					if size > len(rest) {
						break
					}
					if int64(binary.BigEndian.Uint64(rest)) == offset {
						edit(rest[:size])
					}
					rest = rest[size:]
				}
			}
		}
	}})
}

// Committed returns the position that a group has stored, or -1.
func Committed(t testing.TB, c *kafkatest.Cluster, group, topic string, partition int32) int64 {
	t.Helper()
	cl, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(context.Background(), cl)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range resp.Groups {
		for _, tp := range g.Topics {
			for _, p := range tp.Partitions {
				if (tp.Topic == topic || tp.Topic == "") && p.Partition == partition {
					return p.Offset
				}
			}
		}
	}
	return -1
}

// Transact publishes values in one transaction, and ends it if end says how.
func Transact(t testing.TB, cl *kafkatest.Cluster, id string, end *kgo.TransactionEndTry, values ...string) {
	t.Helper()
	client, err := cl.Client(kgo.TransactionalID(id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, value := range values {
		if err := client.ProduceSync(t.Context(), Record(Topic, 0, value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if end == nil {
		return
	}
	if err := client.EndTransaction(t.Context(), *end); err != nil {
		t.Fatal(err)
	}
}
