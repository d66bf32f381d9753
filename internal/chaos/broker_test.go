//go:build unix

package chaos

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestFault_B2_LeaderKilledOnKafka(t *testing.T) {
	r := newRig(t, "b2", 1)
	p := r.producer(t, nil)
	stop := r.traffic(t, p, 4)
	var worst, healed time.Duration
	for range 5 {
		led, err := r.leader(t.Context(), r.topic, 0)
		must(t, err)
		killed := time.Now()
		must(t, r.kafka.Kill(led))
		r.firstAck(t, p)
		worst = max(worst, time.Since(killed))
		must(t, r.kafka.Restart(t.Context(), led))
		up := time.Now()
		r.firstAck(t, p)
		healed = max(healed, time.Since(up))
		waitInSync(t, r.kafka, r.topic)
	}
	stop()
	atMost(t, "the first acknowledgement of another leader", worst, brokerTimeout+room*time.Second)
	within(t, "the first acknowledgement after the broker's return", healed, time.Second)
	r.close(t, p)
}

func TestFault_B3_LeaderHaltedOnKafka(t *testing.T) {
	r := newRig(t, "b3", 1)
	p := r.producer(t, nil)
	stop := r.traffic(t, p, 4)
	led, err := r.leader(t.Context(), r.topic, 0)
	must(t, err)
	must(t, r.kafka.Stop(led))
	halted := time.Now()
	went := make(chan time.Duration, 1)
	var contErr error
	time.AfterFunc(5*time.Second, func() {
		contErr = r.kafka.Cont(led)
		went <- time.Since(halted)
	})
	r.firstAck(t, p)
	took := time.Since(halted)
	atMost(t, "the first acknowledgement after SIGSTOP", took, brokerTimeout+room*time.Second)
	t.Logf("SIGCONT after %v", round(<-went))
	must(t, contErr)
	up := time.Now()
	r.firstAck(t, p)
	within(t, "the first acknowledgement after SIGCONT", time.Since(up), time.Second)
	wait(time.Second)
	stop()
	waitInSync(t, r.kafka, r.topic)
	r.close(t, p)
}

func TestFault_B4_RollingRestartOnKafka(t *testing.T) {
	r := newRig(t, "b4", 3)
	p := r.producer(t, nil)
	stop := r.traffic(t, p, 6)
	for i := range r.kafka.Addrs() {
		must(t, r.kafka.Restart(t.Context(), i))
		waitInSync(t, r.kafka, r.topic)
	}
	stop()
	r.close(t, p)
}

// A topic's limit is lowered, and a message refused while others are on their way
// behind it: these are sent again, and of none is the outcome unknown.
func TestFault_B11_MessagesBehindOnKafka(t *testing.T) {
	const limit = 20_000
	r := newRig(t, "b11", 1)
	p := r.producer(t, nil)
	r.send(t, p, "before")
	_, err := r.kafka.Admin().AlterTopicConfigs(t.Context(), []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "max.message.bytes", Value: new(strconv.Itoa(limit))},
	}, r.topic)
	must(t, err)
	wait(2 * time.Second) // until the brokers know
	for range 10 {
		r.proxy.Freeze()
		var told sync.WaitGroup
		for i := range 4 {
			m := r.history.Begin("key")
			if i == 0 {
				m.Value = append(m.Value, history.Noise(2*limit)...)
			}
			told.Add(1)
			must(t, p.Produce(t.Context(), m, func(got gracedb.Message, err error) {
				defer told.Done()
				r.history.End(m, got, err)
				switch {
				case i > 0 && err != nil:
					t.Error(err)
				case i == 0 && (!errors.Is(err, gracedb.ErrTooLarge) || errors.Is(err, gracedb.ErrOutcomeUnknown)):
					t.Errorf("the outcome of a message of %d bytes is %v", len(m.Value), err)
				}
			}))
			time.Sleep(20 * time.Millisecond) // each in a request of its own
		}
		r.proxy.Thaw()
		told.Wait()
	}
	must(t, p.Close())
	r.judge(t)
}

// The right to write is taken away from a running producer.
func TestFault_B10_NotAllowedOnKafka(t *testing.T) {
	r := newRig(t, "b10", 1)
	must(t, r.kafka.Allow(t.Context(), "erin", r.topic, kadm.OpWrite, kadm.OpDescribe))
	r.tokens.say(testauth.Claims{Subject: "erin"})
	p := r.producer(t, nil)
	r.send(t, p, "k")

	rights := kadm.NewACLs().Allow("User:erin").AllowHosts().Topics(r.topic).Operations(kadm.OpWrite).ResourcePatternType(kadm.ACLPatternLiteral)
	_, err := r.kafka.Admin().DeleteACLs(t.Context(), rights)
	must(t, err)
	var requests int
	var took time.Duration
	for until := time.Now().Add(20 * time.Second); ; { // until the brokers have heard of it
		before := r.proxy.Requests(kmsg.Produce)
		if took, err = r.try(t, p, probe, time.Minute); err != nil || time.Now().After(until) {
			requests = r.proxy.Requests(kmsg.Produce) - before
			break
		}
	}
	within(t, "the refusal", took, 500*time.Millisecond)
	wantKinds(t, err, []error{gracedb.ErrTopic, gracedb.ErrDelivery}, r.topic, "erin")
	// One of them may keep the connection warm.
	if requests > 2 {
		t.Errorf("%d Produce requests", requests)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	r.judge(t)
}

// A consumer of a group sees every message once although its coordinator is
// killed, and the group's position is not lost.
func TestFault_B17_CoordinatorMovesOnKafka(t *testing.T) {
	r := newRig(t, "b17", 1)
	p := r.producer(t, nil)
	member := func(c *gracedb.ConsumerConfig) { c.GroupID = "b17" }
	c := r.consumer(t, member)
	const n = 20
	for range n {
		r.send(t, p, "k")
	}
	r.receive(t, c, 0, n)
	must(t, c.Commit(t.Context()))

	led, err := r.leader(t.Context(), offsetsTopic, 0)
	must(t, err)
	must(t, r.kafka.Kill(led))
	for range n {
		r.send(t, p, "k")
	}
	r.receive(t, c, n, n)
	start := time.Now()
	must(t, c.Commit(t.Context()))
	t.Logf("Commit after the coordinator's end took %v", round(time.Since(start)))
	must(t, c.Close())
	must(t, r.kafka.Restart(t.Context(), led))
	waitInSync(t, r.kafka, r.topic, offsetsTopic)

	next := r.consumer(t, member)
	r.send(t, p, "k")
	r.receive(t, next, 2*n, 1)
	r.close(t, p)
}

// receive takes n messages, which must be those from an offset on.
func (r *rig) receive(t *testing.T, c *gracedb.Consumer, from int64, n int) {
	t.Helper()
	for i := range int64(n) {
		m, err := c.Poll(t.Context())
		must(t, err)
		if m.Offset != from+i {
			t.Fatalf("message %d, want %d", m.Offset, from+i)
		}
	}
}

// Check says that all is well while one of three brokers is away, whichever topics were in
// use, as soon as others lead their partitions: a monitor is not to be alarmed by a rolling
// restart.
func TestCheckWithoutABrokerOnKafka(t *testing.T) {
	r := newRig(t, "check", 3)
	other := newRig(t, "check-other", 3)
	p := r.producer(t, nil)
	for range 20 { // of another topic than the default one, so that all of its partitions are in use
		if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: other.topic, Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	must(t, p.Check(t.Context()))
	led, err := r.leader(t.Context(), other.topic, 0)
	must(t, err)
	must(t, r.kafka.Kill(led))
	defer func() {
		must(t, r.kafka.Restart(context.Background(), led))
		waitInSync(t, r.kafka, r.topic)
		waitInSync(t, r.kafka, other.topic)
	}()
	for part := range int32(3) { // the session of the broker that is gone has to end
		for {
			now, err := r.leader(t.Context(), other.topic, part)
			if err == nil && now >= 0 && now != led {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	for range 4 {
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
	_, err = p.Ping(t.Context(), "")
	must(t, err)
}
