package faults

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

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
// epoch, nor of the group: its log ends before what the reader asks for. What is
// published from then on is not missed, and what was there before does not come again.
// In a group the member hears first either that messages are lost, or that it has to
// join again, and then finds the group without a position.
func TestFault_B21_YesterdaysDisk(t *testing.T) {
	for _, read := range []int{0, 10} { // messages that are lost, and were read or not
		t.Run(fmt.Sprint("read=", read), func(t *testing.T) {
			for _, at := range []struct {
				name, group string
				fetches     time.Duration // that long are fetches held up when the broker is back
				polls       time.Duration // that long after the loss is told goes the reader on
			}{
				{name: "group="},
				{name: "group=g", group: "g"},
				{name: "group=g, told first", group: "g", polls: 3 * heartbeat},
				{name: "group=g, joins first", group: "g", fetches: 3 * heartbeat},
			} {
				t.Run(at.name, func(t *testing.T) { yesterdaysDisk(t, at.group, read, at.fetches, at.polls) })
			}
		})
	}
}

// heartbeat is how often a member of a group asks whether it still is one.
const heartbeat = time.Second

func yesterdaysDisk(t *testing.T, group string, read int, fetches, polls time.Duration) {
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
			// A restart begins a new epoch, which other machines remember too.
			restarts++
			for range restarts {
				if err := r.MoveLeader(topic, 0, 0); err != nil {
					t.Fatal(err)
				}
			}
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
		if fetches > 0 {
			r.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Keys: []kmsg.Key{kmsg.Fetch}, Delay: fetches})
		}
		r.raw(t, topic, 0, "new")
		got, err := take(t, con, 1)
		if len(got) > 0 {
			t.Errorf("offset %d comes before the loss is told", got[0].Offset)
		}
		wantLoss(t, err, fmt.Sprintf("between 5 and %d", at), "continuing at 5")
		time.Sleep(polls)
		got, err = take(t, con, 1)
		if err != nil {
			t.Fatal(err)
		}
		wantOffsets(t, got, 5, 6)
		if string(got[0].Value) != "new" {
			t.Errorf("got %q", got[0].Value)
		}
		silent(t, con, 3*heartbeat)
	})
}
