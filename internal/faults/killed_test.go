package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// This file is about consumers that are processes of their own, and are ended from
// outside: killed, which must lose nothing, or asked to stop, which must double
// nothing either.

// consumeAsChild handles messages as the package's documentation shows, says of
// each that it is done, and dies when it is told to.
func consumeAsChild(do task) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
		Cluster: do.cluster(), Topics: []string{"test"}, GroupID: do.Group, FromBeginning: true,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	handled := 0
	for m, err := range c.Stream(ctx) {
		if err != nil {
			return err
		}
		time.Sleep(do.Handling)
		fmt.Println("handled", m.Partition, m.Offset)
		if handled++; handled == do.Kill {
			time.AfterFunc(do.After, die)
			if do.AtHand {
				select {}
			}
		}
		if do.Commit {
			if err := c.Commit(ctx); err != nil {
				return err
			}
			fmt.Println("committed", m.Partition, m.Offset)
		}
	}
	return nil
}

// die ends this process as kill -9 does.
func die() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
}

// A progress is what the children of one group have said, by partition.
type progress struct {
	next      map[int32]int64 // the offset behind the last that was handled, or that must come again
	committed map[int32]int64 // the offset behind the last that was committed for sure
	doubled   int

	last      map[int32]int64 // of the present process: the offset that it handled last
	partition int32           // where that was
}

func newProgress() *progress {
	return &progress{next: map[int32]int64{}, committed: map[int32]int64{}}
}

// follow runs a child and checks what it says, until it ends. After each message
// that was handled, the n-th, each is called if it is not nil.
func (p *progress) follow(t testing.TB, do task, each func(n int, child *os.Process)) error {
	t.Helper()
	p.last = map[int32]int64{}
	cmd, said := child(t, "consume", do)
	for n := 0; said.Scan(); {
		var what string
		var partition int32
		var offset int64
		if _, err := fmt.Sscan(said.Text(), &what, &partition, &offset); err != nil {
			t.Errorf("a child says %q", said.Text())
		}
		if what == "committed" {
			p.committed[partition] = max(p.committed[partition], offset+1)
			continue
		}
		p.handled(t, partition, offset)
		if n++; each != nil {
			each(n, cmd.Process)
		}
	}
	return cmd.Wait()
}

// handled checks that a process begins where it has to and leaves nothing out.
func (p *progress) handled(t testing.TB, partition int32, offset int64) {
	t.Helper()
	if last, ok := p.last[partition]; ok && offset != last+1 {
		t.Errorf("partition %d: %d is handled behind %d", partition, offset, last)
	}
	if offset > p.next[partition] {
		t.Errorf("partition %d: %d to %d are not handled", partition, p.next[partition], offset-1)
	}
	if offset < p.committed[partition] {
		t.Errorf("partition %d: %d comes again although %d was committed", partition, offset, p.committed[partition])
	}
	if offset < p.next[partition] {
		p.doubled++
	}
	p.last[partition], p.partition = offset, partition
	p.next[partition] = max(p.next[partition], offset+1)
}

// finish handles the rest, of total messages.
func (p *progress) finish(t testing.TB, r *rig, total int) {
	t.Helper()
	p.last = map[int32]int64{}
	rest := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID, c.FromBeginning = "g", true })
	for {
		done := 0
		for _, next := range p.next {
			done += int(next)
		}
		if done >= total || t.Failed() {
			return
		}
		got, err := take(t, rest, 1)
		if err != nil {
			t.Fatal(err)
		}
		p.handled(t, got[0].Partition, got[0].Offset)
	}
}

// A process is killed at a random point between handling a message and committing
// it, again and again: each message is handled, those that were committed never
// again, and the one at hand, which was not, always.
func TestFault_B20_Killed(t *testing.T) {
	t.Parallel()
	const partitions, rounds = 3, 30
	random := seeded(t)
	r := newRig(t, kafkatest.Config{Topics: map[string]int{topic: partitions}})
	p := newProgress()
	var sent, atHand int
	for round := range rounds {
		for partition := range int32(partitions) {
			n := 5 + random.IntN(15)
			r.raw(t, topic, partition, numbers(sent, sent+n)...)
			sent += n
		}
		do := r.task(t, "g")
		do.Commit = random.IntN(2) == 0
		do.Kill = 1 + random.IntN(15)
		do.AtHand = random.IntN(2) == 0
		switch random.IntN(2) {
		case 0: // about when something is committed by Commit
			do.After = time.Duration(random.IntN(3_000_000))
		case 1: // about when it is in the background, which is once a second
			do.After = 900*time.Millisecond + time.Duration(random.IntN(400_000_000))
		}
		err := p.follow(t, do, nil)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != -1 {
			t.Errorf("a child that was to be killed: %v", err)
		}
		if t.Failed() {
			t.Fatalf("in round %d: Commit %v, killed %v after message %d, at hand %v", round, do.Commit, do.After, do.Kill, do.AtHand)
		}
		if do.AtHand {
			atHand++
			p.next[p.partition] = p.last[p.partition] // it was not done, and has to come again
		}
		expel(t, r, "g")
	}
	p.finish(t, r, sent)
	t.Logf("%d messages, %d processes killed, %d of them with a message at hand; %d messages handled twice", sent, rounds, atHand, p.doubled+atHand)
}

// seeded returns what is random in a test, and says from which seed.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("GRACEDB_FAULTS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("GRACEDB_FAULTS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}

// expel makes the broker notice at once that the members of a group are dead, which
// otherwise takes it a session timeout.
func expel(t testing.TB, r *rig, group string) {
	t.Helper()
	client, err := r.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	groups, err := describe.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	for _, m := range groups.Groups[0].Members {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		leave.Members = append(leave.Members, member)
	}
	if _, err := leave.RequestWith(t.Context(), client); err != nil {
		t.Fatal(err)
	}
}

// A process that streams is asked to stop: it does within 5 seconds, and the next
// goes on behind the last message that it handled.
func TestFault_P8_Terminated(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	r := newRig(t, kafkatest.Config{})
	p := newProgress()
	sent := 0
	var worst time.Duration
	for range 12 {
		r.raw(t, topic, 0, numbers(sent, sent+300)...)
		sent += 300
		do := r.task(t, "g")
		do.Handling = time.Duration(1 + random.IntN(5_000_000))
		stopAt, later := 1+random.IntN(200), time.Duration(random.IntN(5_000_000))
		var asked time.Time
		err := p.follow(t, do, func(n int, child *os.Process) {
			if n == stopAt {
				time.Sleep(later)
				asked = terminate(t, child)
			}
		})
		if err != nil {
			t.Errorf("a child that was asked to stop: %v", err)
		}
		worst = max(worst, time.Since(asked))
		within(t, "stopping", time.Since(asked), 5*time.Second)
		if t.Failed() {
			t.FailNow()
		}
	}
	if p.doubled > 0 {
		t.Errorf("%d messages are handled twice", p.doubled)
	}
	t.Logf("%d messages handled; stopped in %v at worst", p.next[0], worst)
	r.raw(t, topic, 0, "next")
	got, err := take(t, r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" }), 1)
	if err != nil {
		t.Fatal(err)
	}
	wantOffsets(t, got, p.next[0], p.next[0]+1)
}

// The same when the broker is mute just then: it stops in time, and what could not
// be committed comes again.
func TestFault_P8_TerminatedInSilence(t *testing.T) {
	t.Parallel()
	r := newRig(t, kafkatest.Config{})
	p := newProgress()
	r.raw(t, topic, 0, numbers(0, 100)...)
	do := r.task(t, "g")
	do.Handling = 10 * time.Millisecond
	var asked time.Time
	err := p.follow(t, do, func(n int, child *os.Process) {
		if n == 20 {
			r.Mute(kafkatest.MuteRequests)
			asked = terminate(t, child)
		}
	})
	if err != nil {
		t.Errorf("a child that was asked to stop: %v", err)
	}
	within(t, "stopping", time.Since(asked), 5*time.Second)
	t.Logf("stopped in %v", time.Since(asked))
	r.Mute(0)
	expel(t, r, "g")
	p.finish(t, r, 100)
	if p.doubled == 0 {
		t.Error("nothing comes again: the fault did not happen")
	}
}

func terminate(t testing.TB, child *os.Process) (at time.Time) {
	t.Helper()
	if err := child.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	return time.Now()
}
