package faults_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A garbage says that it has compressed a batch, and has not.
type garbage kgo.CompressionCodecType

// Compress is kgo's Compressor.
func (g garbage) Compress(_ *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return bytes.Repeat([]byte{0xa5}, len(src)/2), kgo.CompressionCodecType(g)
}

// A batch whose checksum is right and which does not decode is told as lost, once, and
// passed over. What is before and behind it comes once, and a group stores what is done.
func TestConsumerPassesOverGarbage(t *testing.T) {
	for _, codec := range []kgo.CompressionCodecType{kgo.CodecZstd, kgo.CodecGzip, kgo.CodecLz4, kgo.CodecSnappy} {
		t.Run(fmt.Sprint("codec ", codec), func(t *testing.T) {
			testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
				cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true}
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "before"))
				testrig.ProduceWith(t, cl, []kgo.Opt{kgo.WithCompressor(garbage(codec))}, testrig.Record(testrig.Topic, 0, strings.Repeat("x", 1000)))
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "after"))
				c := testrig.NewConsumer(t, cfg)
				got, errs := testrig.PollAll(t, c, 10*time.Second)
				if fmt.Sprint(got) != "[before after]" || len(errs) != 1 {
					t.Fatalf("%v, %v", got, errs)
				}
				testrig.WantErr(t, errs[0], testrig.Kinds(gracedb.ErrConsumer), testrig.Kinds(gracedb.ErrConnection), testrig.Topic, "partition 0", "messages 1 to 1 are lost", "continuing at 2")
				if err := c.Check(t.Context()); err != nil {
					t.Error(err)
				}
				if group == "" {
					return
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if at := testrig.Committed(t, cl, group, testrig.Topic, 0); at < 2 {
					t.Errorf("stored as done: %d", at)
				}
			})
		})
	}
}

// A member that ends with the error has told nobody that goes on: the next one is told.
func TestConsumerTellsOfGarbageAgain(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, cl *kafkatest.Cluster) {
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g", FromBeginning: true}
		testrig.ProduceWith(t, cl, []kgo.Opt{kgo.WithCompressor(garbage(kgo.CodecZstd))}, testrig.Record(testrig.Topic, 0, strings.Repeat("x", 1000)))
		for range 2 {
			c := testrig.NewConsumer(t, cfg)
			_, err := c.Poll(t.Context())
			testrig.WantErr(t, err, testrig.Kinds(gracedb.ErrConsumer), nil, "messages 0 to 0 are lost")
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// A batch that is not compressed and holds no messages, with a checksum that is right,
// is passed over, too: the engine asks for it on and on without a word.
func TestConsumerPassesOverPlainGarbage(t *testing.T) {
	testrig.WithGroups(t, 2, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		testrig.Rewrite(cl, map[int32]int64{0: 1}, func(b []byte) {
			for i := range b[61:] {
				b[61+i] = 0xa5
			}
			binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		})
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "before"))
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "lost"))
		c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
		got, errs := testrig.PollAll(t, c, 30*time.Second)
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "after"))
		got = append(got, string(testrig.Poll(t, c).Value))
		if fmt.Sprint(got) != "[before after]" || len(errs) != 1 {
			t.Fatalf("%v, %v", got, errs)
		}
		testrig.WantErr(t, errs[0], testrig.Kinds(gracedb.ErrConsumer), nil, "partition 0", "messages 1 to 1 are lost")
	})
}

// A batch whose checksum is wrong is tried for a minute, with growing pauses. Check tells
// of it, other partitions go on at once, and what is mended within the minute is read.
func TestConsumerTriesADamagedBatch(t *testing.T) {
	for _, mended := range []bool{true, false} {
		t.Run(fmt.Sprint("mended=", mended), func(t *testing.T) {
			testrig.WithGroups(t, 2, func(t *testing.T, cl *kafkatest.Cluster, group string) {
				var fetched atomic.Int64
				damage := testrig.Rewrite(cl, map[int32]int64{0: 1}, func(b []byte) { b[len(b)-1] ^= 1; fetched.Add(1) })
				c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "before"))
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "damaged"))
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "after"))
				got, errs := testrig.PollAll(t, c, 20*time.Second)
				if fmt.Sprint(got) != "[before]" || len(errs) != 1 {
					t.Fatalf("%v, %v", got, errs)
				}
				testrig.WantErr(t, errs[0], testrig.Kinds(gracedb.ErrConsumer), nil, "partition 0, at offset 1", "checksum", "trying again")
				testrig.WantErr(t, c.Check(t.Context()), testrig.Kinds(gracedb.ErrConsumer), nil, "partition 0, at offset 1")
				if n := fetched.Load(); n > 15 {
					t.Errorf("fetched %d times in 20 s", n)
				}
				start := time.Now()
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 1, "beside"))
				if m := testrig.Poll(t, c); string(m.Value) != "beside" || time.Since(start) > time.Second {
					t.Errorf("%q after %v", m.Value, time.Since(start))
				}
				if mended {
					damage.Remove()
				}
				got, errs = testrig.PollAll(t, c, 90*time.Second)
				if mended {
					if fmt.Sprint(got) != "[damaged after]" || len(errs) != 0 {
						t.Errorf("%v, %v", got, errs)
					}
				} else {
					if fmt.Sprint(got) != "[after]" || len(errs) == 0 {
						t.Fatalf("%v, %v", got, errs)
					}
					testrig.WantErr(t, errs[len(errs)-1], testrig.Kinds(gracedb.ErrConsumer), nil, "messages 1 to 1 are lost", "continuing at 2")
				}
				if err := c.Check(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Many partitions that cannot be read do not delay one that can.
func TestConsumerManyDamagedPartitions(t *testing.T) {
	const partitions, healthy = 20, 7
	testrig.WithGroups(t, partitions, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		damaged := make(map[int32]int64)
		for i := range int32(partitions) {
			if i != healthy {
				damaged[i] = 0
			}
		}
		testrig.Rewrite(cl, damaged, func(b []byte) { b[len(b)-1] ^= 1 })
		c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
		for i := range int32(partitions) {
			if i != healthy {
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, i, "damaged"))
			}
		}
		// Each look waits for kgo's fetch of the partitions that are well.
		got, errs := testrig.PollAll(t, c, 3*time.Minute)
		told := make(map[string]bool)
		for _, err := range errs {
			_, place, _ := strings.Cut(err.Error(), "partition ")
			told[strings.Trim(strings.Fields(place)[0], ",:")] = true
		}
		if len(got) != 0 || len(told) != partitions-1 {
			t.Errorf("%v, %d partitions told of", got, len(told))
		}
		for i := range 20 {
			start := time.Now()
			testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, healthy, fmt.Sprint(i)))
			got, _ := testrig.PollAll(t, c, time.Second)
			if fmt.Sprint(got) != fmt.Sprintf("[%d]", i) {
				t.Errorf("%v after %v, want %d", got, time.Since(start), i)
			}
		}
	})
}

// A partition that is held up at a damaged batch goes to another member like any other, and
// comes back when that leaves. It is read once it is mended, each message once.
func TestConsumerDamagedBatchMoves(t *testing.T) {
	cfg := kafkatest.Config{Topics: map[string]int{testrig.Topic: 2}}
	testrig.Virtually(t, cfg, func(t *testing.T, cl *kafkatest.Cluster) {
		damage := testrig.Rewrite(cl, map[int32]int64{0: 1, 1: 1}, func(b []byte) { b[len(b)-1] ^= 1 })
		member := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: "g", FromBeginning: true}
		first := testrig.NewConsumer(t, member)
		for i := range int32(2) {
			for _, value := range []string{"before", "damaged", "after"} {
				testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, i, value))
			}
		}
		got, _ := testrig.PollAll(t, first, 10*time.Second)
		second, err := gracedb.NewConsumer(t.Context(), member)
		if err != nil {
			t.Fatal(err)
		}
		more, errs := testrig.PollAll(t, second, 10*time.Second)
		if got = append(got, more...); fmt.Sprint(got) != "[before before]" || len(errs) != 1 {
			t.Errorf("%v, %v", got, errs)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
		damage.Remove()
		got, _ = testrig.PollAll(t, first, 50*time.Second)
		count := make(map[string]int)
		for _, value := range got {
			count[value]++
		}
		if len(got) != 4 || count["damaged"] != 2 || count["after"] != 2 {
			t.Errorf("%v", got)
		}
	})
}

// Messages that were fetched together with a batch that does not decode, but before it, are
// returned, however many there are.
func TestConsumerReadsAllBeforeGarbage(t *testing.T) {
	const n = 1000
	testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		cfg := gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true}
		for i := range n {
			testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, fmt.Sprint(i)))
		}
		testrig.ProduceWith(t, cl, []kgo.Opt{kgo.WithCompressor(garbage(kgo.CodecZstd))}, testrig.Record(testrig.Topic, 0, strings.Repeat("x", 1000)))
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "after"))
		c := testrig.NewConsumer(t, cfg)
		var got []string
		var errs []error
		for range n + 2 {
			time.Sleep(10 * time.Millisecond) // the caller works on it
			m, err := c.Poll(t.Context())
			if err != nil {
				errs = append(errs, err)
			} else {
				got = append(got, string(m.Value))
			}
			if string(m.Value) == "after" {
				break
			}
		}
		if len(got) != n+1 || len(errs) != 1 {
			t.Fatalf("%d messages, %v", len(got), errs)
		}
	})
}

// So is one whose messages have headers that do not decode.
func TestConsumerPassesOverGarbageHeaders(t *testing.T) {
	testrig.WithGroups(t, 2, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		testrig.Rewrite(cl, map[int32]int64{0: 1}, func(b []byte) {
			b[len(b)-4] = 126 // the length of the header's key, 63, which is more than there is
			binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		})
		lost := testrig.Record(testrig.Topic, 0, "lost")
		lost.Headers = []kgo.RecordHeader{{Key: "k", Value: []byte("v")}}
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "before"))
		testrig.ProduceRaw(t, cl, lost)
		c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group, FromBeginning: true})
		got, errs := testrig.PollAll(t, c, 30*time.Second)
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "after"))
		more, moreErrs := testrig.PollAll(t, c, 5*time.Second)
		got, errs = append(got, more...), append(errs, moreErrs...)
		if fmt.Sprint(got) != "[before after]" || len(errs) != 1 {
			t.Fatalf("%v, %v", got, errs)
		}
		testrig.WantErr(t, errs[0], testrig.Kinds(gracedb.ErrConsumer), nil, "partition 0", "messages 1 to 1 are lost")
	})
}

// What transactions have taken back before it does not keep a batch that does not decode
// from being passed over.
func TestConsumerPassesOverGarbageInTransaction(t *testing.T) {
	testrig.WithGroups(t, 1, func(t *testing.T, cl *kafkatest.Cluster, group string) {
		c := testrig.NewConsumer(t, gracedb.ConsumerConfig{Cluster: testrig.ClusterFor(t, cl, "alice"), Topics: []string{"test"}, GroupID: group})
		client, err := cl.Client(kgo.TransactionalID("a"))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), testrig.Record(testrig.Topic, 0, "aborted")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		testrig.ProduceWith(t, cl, []kgo.Opt{kgo.WithCompressor(garbage(kgo.CodecZstd))}, testrig.Record(testrig.Topic, 0, strings.Repeat("x", 1000)))
		if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		testrig.ProduceRaw(t, cl, testrig.Record(testrig.Topic, 0, "after"))
		got, errs := testrig.PollAll(t, c, 10*time.Second)
		if fmt.Sprint(got) != "[after]" || len(errs) != 1 {
			t.Fatalf("%v, %v", got, errs)
		}
		testrig.WantErr(t, errs[0], testrig.Kinds(gracedb.ErrConsumer), nil, "messages 1 to 1 are lost")
	})
}
