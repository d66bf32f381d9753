package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A bomb is passed over also where a group has read nothing yet, and what comes behind it
// is stored as read.
func TestBombFirst(t *testing.T) {
	virtually(t, kafkatest.Config{MaxMessageBytes: 20 << 20}, func(t *testing.T, r *rig) {
		r.drop(t, snappyBomb(t))
		r.raw(t, topic, 0, "after")
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID, c.FromBeginning = "g", true })
		_, err := take(t, con, 1)
		wantKinds(t, err, is(gracedb.ErrConsumer), nil, topic, "offset 0")
		got, err := take(t, con, 1)
		if err != nil || string(got[0].Value) != "after" {
			t.Fatalf("%v, %v", got, err)
		}
		if err := con.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		_ = con.Close()
		silent(t, r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID, c.FromBeginning = "g", true }), time.Minute)
	})
}

// What was done before a bomb is stored, although the next was never read.
func TestDoneBeforeABomb(t *testing.T) {
	virtually(t, kafkatest.Config{MaxMessageBytes: 20 << 20}, func(t *testing.T, r *rig) {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
		r.raw(t, topic, 0, "one", "two")
		r.drop(t, snappyBomb(t))
		if _, err := take(t, con, 2); err != nil {
			t.Fatal(err)
		}
		_, err := take(t, con, 1)
		wantKinds(t, err, is(gracedb.ErrConsumer), nil, topic, "offset 2")
		_ = con.Close()
		con = r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
		_, err = take(t, con, 1)
		wantKinds(t, err, is(gracedb.ErrConsumer), nil, topic, "offset 2")
	})
}

// A damaged batch far behind is reported once, at its place, after all that comes before
// it has been read once; when it is whole again it is read.
func TestDamagedBehindMany(t *testing.T) {
	const good = 1000
	both(t, kafkatest.Config{}, func(t *testing.T, r *rig, group string) {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
		damage := r.Inject(kafkatest.Fault{
			Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Fetch}, Count: -1,
			Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
				for _, t := range resp.(*kmsg.FetchResponse).Topics {
					for i := range t.Partitions {
						t.Partitions[i].RecordBatches = damaged(t.Partitions[i].RecordBatches, good)
					}
				}
			},
		})
		r.raw(t, topic, 0, numbers(0, good)...)
		r.raw(t, topic, 0, numbers(good, good+1)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		next, told := int64(0), 0
		for ctx.Err() == nil {
			for m, err := range con.Stream(ctx) {
				if err != nil {
					told++
					wantKinds(t, err, is(gracedb.ErrConsumer), is(gracedb.ErrConnection), topic, fmt.Sprint("offset ", good))
					continue
				}
				if m.Offset != next {
					t.Fatalf("offset %d, want %d", m.Offset, next)
				}
				next++
			}
		}
		if next != good || told != 1 {
			t.Errorf("%d messages, %d errors", next, told)
		}
		damage.Remove()
		got, err := take(t, con, 1)
		if err != nil || got[0].Offset != good {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// damaged returns batches with a byte of the one at an offset changed.
func damaged(batches []byte, offset int64) []byte {
	out := append([]byte(nil), batches...)
	for rest := out; len(rest) > 12; {
		length := 12 + int(binary.BigEndian.Uint32(rest[8:]))
		if length > len(rest) {
			break
		}
		if int64(binary.BigEndian.Uint64(rest)) == offset {
			rest[length-1] ^= 1
		}
		rest = rest[length:]
	}
	return out
}
