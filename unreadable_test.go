package gracedb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A garbage says that it has compressed a batch, and has not.
type garbage kgo.CompressionCodecType

// Compress is kgo's Compressor.
func (g garbage) Compress(_ *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return bytes.Repeat([]byte{0xa5}, len(src)/2), kgo.CompressionCodecType(g)
}

// withGroups runs f on a virtual clock without a group and with one.
func withGroups(t *testing.T, partitions int, f func(*testing.T, *kafkatest.Cluster, string)) {
	for _, group := range []string{"", "g"} {
		t.Run("group="+group, func(t *testing.T) {
			cfg := kafkatest.Config{Topics: map[string]int{testTopic: partitions}}
			virtually(t, cfg, func(t *testing.T, cl *kafkatest.Cluster) { f(t, cl, group) })
		})
	}
}

// pollAll polls for a time, and returns what came.
func pollAll(t testing.TB, c *gracedb.Consumer, lasting time.Duration) (got []string, errs []error) {
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

// A batch whose checksum is right and which does not decode is told as lost, once, and
// passed over. What is before and behind it comes once, and a group stores what is done.
func TestConsumerPassesOverGarbage(t *testing.T) {
	for _, codec := range []kgo.CompressionCodecType{kgo.CodecZstd, kgo.CodecGzip, kgo.CodecLz4, kgo.CodecSnappy} {
		t.Run(fmt.Sprint("codec ", codec), func(t *testing.T) {
			withGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
				cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true}
				produceRaw(t, cl, record(testTopic, 0, "before"))
				produceWith(t, cl, []kgo.Opt{kgo.WithCompressor(garbage(codec))}, record(testTopic, 0, strings.Repeat("x", 1000)))
				produceRaw(t, cl, record(testTopic, 0, "after"))
				c := newConsumer(t, cfg)
				got, errs := pollAll(t, c, 10*time.Second)
				if fmt.Sprint(got) != "[before after]" || len(errs) != 1 {
					t.Fatalf("%v, %v", got, errs)
				}
				wantErr(t, errs[0], kinds(gracedb.ErrConsumer), kinds(gracedb.ErrConnection), testTopic, "partition 0", "messages 1 to 1 are lost", "continuing at 2")
				if err := c.Check(t.Context()); err != nil {
					t.Error(err)
				}
				if group == "" {
					return
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if at := committed(t, cl, group, testTopic, 0); at < 2 {
					t.Errorf("stored as done: %d", at)
				}
			})
		})
	}
}

// A member that ends with the error has told nobody that goes on: the next one is told.
func TestConsumerTellsOfGarbageAgain(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
		cfg := gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g", FromBeginning: true}
		produceWith(t, cl, []kgo.Opt{kgo.WithCompressor(garbage(kgo.CodecZstd))}, record(testTopic, 0, strings.Repeat("x", 1000)))
		for range 2 {
			c := newConsumer(t, cfg)
			_, err := c.Poll(t.Context())
			wantErr(t, err, kinds(gracedb.ErrConsumer), nil, "messages 0 to 0 are lost")
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// rewrite changes what is fetched of a partition's batch at an offset.
func rewrite(cl *kafkatest.Cluster, partition int32, offset int64, edit func(batch []byte)) *kafkatest.Injection {
	return cl.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
		for _, t := range resp.(*kmsg.FetchResponse).Topics {
			for i := range t.Partitions {
				p := &t.Partitions[i]
				if p.Partition != partition {
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

// A batch that is not compressed and holds no messages, with a checksum that is right,
// is passed over, too: the engine asks for it on and on without a word.
func TestConsumerPassesOverPlainGarbage(t *testing.T) {
	withGroups(t, 2, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		rewrite(cl, 0, 1, func(b []byte) {
			for i := range b[61:] {
				b[61+i] = 0xa5
			}
			binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		})
		produceRaw(t, cl, record(testTopic, 0, "before"))
		produceRaw(t, cl, record(testTopic, 0, "lost"))
		c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
		got, errs := pollAll(t, c, 30*time.Second)
		produceRaw(t, cl, record(testTopic, 0, "after"))
		got = append(got, string(poll(t, c).Value))
		if fmt.Sprint(got) != "[before after]" || len(errs) != 1 {
			t.Fatalf("%v, %v", got, errs)
		}
		wantErr(t, errs[0], kinds(gracedb.ErrConsumer), nil, "partition 0", "messages 1 to 1 are lost")
	})
}

// A batch whose checksum is wrong is tried for a minute, with growing pauses. Check tells
// of it, other partitions go on at once, and what is mended within the minute is read.
func TestConsumerTriesADamagedBatch(t *testing.T) {
	for _, mended := range []bool{true, false} {
		t.Run(fmt.Sprint("mended=", mended), func(t *testing.T) {
			withGroups(t, 2, func(t *testing.T, cl *kafkatest.Cluster, group string) {
				var fetched atomic.Int64
				damage := rewrite(cl, 0, 1, func(b []byte) { b[len(b)-1] ^= 1; fetched.Add(1) })
				c := newConsumer(t, gracedb.ConsumerConfig{Cluster: clusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
				produceRaw(t, cl, record(testTopic, 0, "before"))
				produceRaw(t, cl, record(testTopic, 0, "damaged"))
				produceRaw(t, cl, record(testTopic, 0, "after"))
				got, errs := pollAll(t, c, 20*time.Second)
				if fmt.Sprint(got) != "[before]" || len(errs) != 1 {
					t.Fatalf("%v, %v", got, errs)
				}
				wantErr(t, errs[0], kinds(gracedb.ErrConsumer), nil, "partition 0, at offset 1", "checksum", "trying again")
				wantErr(t, c.Check(t.Context()), kinds(gracedb.ErrConsumer), nil, "partition 0, at offset 1")
				if n := fetched.Load(); n > 15 {
					t.Errorf("fetched %d times in 20 s", n)
				}
				start := time.Now()
				produceRaw(t, cl, record(testTopic, 1, "beside"))
				if m := poll(t, c); string(m.Value) != "beside" || time.Since(start) > time.Second {
					t.Errorf("%q after %v", m.Value, time.Since(start))
				}
				if mended {
					damage.Remove()
				}
				got, errs = pollAll(t, c, 90*time.Second)
				if mended {
					if fmt.Sprint(got) != "[damaged after]" || len(errs) != 0 {
						t.Errorf("%v, %v", got, errs)
					}
				} else {
					if fmt.Sprint(got) != "[after]" || len(errs) == 0 {
						t.Fatalf("%v, %v", got, errs)
					}
					wantErr(t, errs[len(errs)-1], kinds(gracedb.ErrConsumer), nil, "messages 1 to 1 are lost", "continuing at 2")
				}
				if err := c.Check(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
