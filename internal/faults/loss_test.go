package faults

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// The log of a partition loses its end under a reader: an unclean election makes a
// replica the leader that did not have it all. What is lost is told before anything
// that the reader gets again in its place.
func TestFault_B21_LogCut(t *testing.T) {
	for range 20 { // which of the two the engine has first is for the scheduler
		both(t, kafkatest.Config{Brokers: 2}, func(t *testing.T, r *rig, group string) {
			con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
			r.raw(t, topic, 0, numbers(0, 20)...)
			got, err := take(t, con, 20)
			if err != nil {
				t.Fatal(err)
			}
			wantOffsets(t, got, 0, 20)
			r.epochsEnd.Store(10)
			if err := r.MoveLeader(topic, 0, 1-r.Kfake().LeaderFor(topic, 0)); err != nil {
				t.Fatal(err)
			}
			got, err = take(t, con, 1)
			if len(got) > 0 {
				t.Errorf("offset %d comes before the loss is told", got[0].Offset)
			}
			wantLoss(t, err, "between 10 and 20", "continuing at 10")
			r.raw(t, topic, 0, "20")
			got, err = take(t, con, 11)
			if err != nil {
				t.Error(err)
			}
			wantOffsets(t, got, 10, 21)
		})
	}
}

// wantLoss checks the error that tells of a loss: between which offsets, and where
// reading goes on.
func wantLoss(t testing.TB, err error, gap, next string) {
	t.Helper()
	wantKinds(t, err, is(gracedb.ErrConsumer), is(gracedb.ErrConnection, gracedb.ErrProducer), topic+" partition 0", "lost", gap, next)
}

// The same when a broker comes back with yesterday's disk, which knows of no newer
// epoch: its log ends before what the reader asks for. What is published from then
// on is not missed, and what was there before may come again.
func TestFault_B21_YesterdaysDisk(t *testing.T) {
	for _, read := range []int{0, 10} { // messages that are lost, and were read or not
		t.Run(fmt.Sprint("read=", read), func(t *testing.T) {
			for _, group := range withAndWithout {
				t.Run("group="+group, func(t *testing.T) { yesterdaysDisk(t, group, read) })
			}
		})
	}
}

func yesterdaysDisk(t *testing.T, group string, read int) {
	today, yesterday := t.TempDir(), t.TempDir()
	virtually(t, kafkatest.Config{DataDir: today}, func(t *testing.T, r *rig) {
		r.raw(t, topic, 0, numbers(0, 5)...)
		r.writer.Close()
		r.Close()
		if err := os.CopyFS(yesterday, os.DirFS(today)); err != nil {
			t.Fatal(err)
		}
		var running atomic.Pointer[rig]
		restarts := 0
		start := func(dir string) *rig {
			r := newRig(t, kafkatest.Config{DataDir: dir, Issuer: r.Issuer(), Authority: r.Authority(), Virtual: true})
			// A restart begins a new epoch, which other machines remember too; and who
			// is in a group that is not known is told that it is not in it.
			restarts++
			for range restarts {
				if err := r.MoveLeader(topic, 0, 0); err != nil {
					t.Fatal(err)
				}
			}
			r.Inject(kafkatest.Fault{
				Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Heartbeat}, Count: -1,
				Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
					if resp := resp.(*kmsg.HeartbeatResponse); resp.ErrorCode == kerr.GroupIDNotFound.Code {
						resp.ErrorCode = kerr.UnknownMemberID.Code
					}
				},
			})
			running.Store(r)
			return r
		}
		r = start(today)
		r.raw(t, topic, 0, numbers(5, 10)...)
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) {
			c.GroupID = group
			c.Cluster.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				return running.Load().Dial(ctx, network, addr)
			}
		})
		at := int64(10)
		if read > 0 {
			r.raw(t, topic, 0, numbers(10, 10+read)...)
			got, err := take(t, con, read)
			if err != nil {
				t.Fatal(err)
			}
			at += int64(read)
			wantOffsets(t, got, 10, at)
			silent(t, con, 2*time.Second) // the last is done, and stored
		}
		r.writer = nil
		r.Close()
		r = start(yesterday)
		r.raw(t, topic, 0, "new")
		got, err := take(t, con, 1)
		if len(got) > 0 {
			t.Errorf("offset %d comes before the loss is told", got[0].Offset)
		}
		// A group's position, where nothing was read, is all that is known of the log as
		// it was: the engine begins anew, and where the log ended before is not told.
		next, gap := int64(5), fmt.Sprintf("between 5 and %d", at)
		if group != "" && read == 0 {
			next, gap = 0, fmt.Sprintf("messages before %d", at)
		}
		wantLoss(t, err, gap, fmt.Sprintf("continuing at %d", next))
		got, err = take(t, con, int(6-next))
		if err != nil {
			t.Fatal(err)
		}
		wantOffsets(t, got, next, 6)
		if value := got[len(got)-1].Value; string(value) != "new" {
			t.Errorf("got %q", value)
		}
		silent(t, con, time.Second)
	})
}
