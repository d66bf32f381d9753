package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

func TestFault_B1_LeaderRemoved(t *testing.T) {
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: 3}}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		var worst time.Duration
		for i := range 600 {
			switch i {
			case 100:
				if err := r.Kill(0); err != nil {
					t.Fatal(err)
				}
			case 300:
				if err := r.Restart(0); err != nil {
					t.Fatal(err)
				}
			case 400:
				if err := r.Kill(1); err != nil {
					t.Fatal(err)
				}
			}
			worst = max(worst, r.send(t, p, fmt.Sprint("k", i%7)))
			time.Sleep(5 * time.Millisecond)
		}
		within(t, "a message", worst, 250*time.Millisecond)
		t.Logf("worst %v", worst)
		closeProducer(t, p)
		r.judge(t)
	})
}

// All brokers down for a minute: Produce waits with its ctx, the buffer is bounded, and what
// was accepted with a ctx that lives longer arrives. What its caller has given up leaves the
// buffer at once, whatever waits beside it, and is certainly not written.
func TestFault_B5_AllBrokersDown(t *testing.T) {
	for _, lasting := range []int{0, 20} {
		t.Run(fmt.Sprint("lasting=", lasting), func(t *testing.T) { allBrokersDown(t, lasting) })
	}
}

func allBrokersDown(t *testing.T, lasting int) {
	const (
		limit    = 60_000
		overhead = 400                                // what a message costs beside its key and value
		most     = overhead + len("lasts"+"lasts/12") // what one costs here
		outage   = time.Minute
		patience = time.Second // of each caller
		glance   = 10          // messages from one look at the buffer to the next
	)
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: 3}}, func(t *testing.T, r *rig) {
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.MaxBufferedBytes = limit })
		r.send(t, p, "k")
		for id := range int32(3) {
			if err := r.Kill(id); err != nil {
				t.Fatal(err)
			}
		}
		accepted, peak := 0, 0
		produce := func(key string, patience time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			err := r.async(t, ctx, p, key)
			if err == nil {
				accepted++
			}
			if accepted%glance > 0 {
				return err
			}
			synctest.Wait() // until the callers of what has left the buffer know it
			buffered := 0
			for value, s := range r.sends() {
				if s.Outcome == pending {
					buffered += overhead + len(s.Key) + len(value)
				}
			}
			if peak = max(peak, buffered); buffered > limit {
				t.Errorf("%d bytes are buffered", buffered)
			}
			return err
		}
		for range lasting { // in another partition than the rest
			if err := produce("lasts", 2*time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		for start := time.Now(); time.Since(start) < outage; {
			begun := time.Now()
			if err := produce("k", patience); err != nil && (time.Since(begun) != patience || !errors.Is(err, gracedb.ErrDelivery)) {
				t.Errorf("after %v: %v", time.Since(begun), err)
			}
		}
		// Within their callers' patience as many as fit leave, and others come.
		if want := int(outage/patience) * (limit - lasting*most) / most * 9 / 10; accepted < want {
			t.Errorf("%d accepted, want %d", accepted, want)
		}
		if peak < limit-glance*most {
			t.Errorf("at most %d bytes were buffered", peak)
		}
		for id := range int32(3) {
			if err := r.Restart(id); err != nil {
				t.Fatal(err)
			}
		}
		within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
		if err := p.Flush(t.Context()); err != nil { // those that are withdrawn have heard of it
			t.Error(err)
		}
		closeProducer(t, p)
		r.judge(t)
		t.Logf("%d accepted, at most %d bytes buffered", accepted, peak)
		arrived := make(map[string]int)
		for _, s := range r.sends() {
			if s.Outcome == delivered {
				arrived[s.Key]++
			}
		}
		if n := r.count(); arrived["lasts"] != lasting || n[unknown] > 0 {
			t.Errorf("of %d accepted, %v arrived: %v", accepted, arrived, n)
		}
	})
}

func TestFault_B6_NotLeader(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		stop := r.traffic(t, p, 3, 20*time.Millisecond)
		time.Sleep(time.Second)
		f := r.reply(kerr.NotLeaderForPartition, -1)
		time.Sleep(3 * time.Second)
		f.Remove()
		within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
		stop()
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[failed]+n[unknown] > 20 {
			t.Errorf("%v", n)
		}
	})
}

// The broker has appended, and answers with an error all the same.
func TestFault_B7_ErrorAfterAppend(t *testing.T) {
	for _, answer := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend} {
		t.Run(answer.Message, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				for range 50 {
					r.reply(answer, 1)
					within(t, "a message", r.send(t, p, "k"), 600*time.Millisecond)
				}
				// For ever: who gives up is told that it may have been written.
				f := r.reply(answer, -1)
				_, err := r.try(t, p, "k", time.Second)
				wantKinds(t, err, is(gracedb.ErrOutcomeUnknown), is(gracedb.ErrDelivery))
				f.Remove()
				closeProducer(t, p)
				r.judge(t)
			})
		})
	}
}

func TestFault_B8_MissingTopic(t *testing.T) {
	virtually(t, kafkatest.Config{Topics: map[string]int{topic: 1, "gracedb-test.gstlal": 1, "gracedb-dev.test": 1}}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		produce := func() error {
			m := r.begin("k")
			m.Topic = "nosuch"
			got, err := p.ProduceSync(t.Context(), m)
			r.end(t, m, got, err)
			return err
		}
		start := time.Now()
		err := produce()
		within(t, "ProduceSync", time.Since(start), 3*time.Second)
		wantKinds(t, err, is(gracedb.ErrTopic, gracedb.ErrDelivery, kerr.UnknownTopicOrPartition), is(gracedb.ErrOutcomeUnknown),
			"gracedb-test.nosuch", "alice", r.Addrs()[0], "gstlal")
		t.Logf("after %v: %v", time.Since(start), err)
		start = time.Now()
		told := make(chan error, 1)
		m := r.begin("k")
		m.Topic = "nosuch"
		if err := p.Produce(t.Context(), m, func(got gracedb.Message, err error) { r.end(t, m, got, err); told <- err }); err != nil {
			t.Fatal(err)
		}
		wantKinds(t, <-told, is(gracedb.ErrTopic, gracedb.ErrDelivery), nil, "gracedb-test.nosuch")
		within(t, "Produce", time.Since(start), 3*time.Second)
		// It is there as soon as it is made.
		if err := r.CreateTopic("gracedb-test.nosuch", 1, nil); err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		if err := produce(); err != nil {
			t.Error(err)
		}
		within(t, "the first message", time.Since(start), time.Second)
		closeProducer(t, p)
		r.judge(t, topic, "gracedb-test.nosuch")
	})
}

func TestFault_B9_TopicMadeAnew(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				began := time.Now()
				var made time.Time // the topic there is
				for range 5 {
					stop := func() {}
					if busy {
						stop = r.traffic(t, p, 3, 10*time.Millisecond)
					}
					time.Sleep(300 * time.Millisecond)
					if err := r.DeleteTopic(topic); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond)
					if err := r.CreateTopic(topic, 1, nil); err != nil {
						t.Fatal(err)
					}
					made = time.Now()
					took := r.firstAck(t, p)
					within(t, "the first acknowledgement", took, 5*time.Second)
					t.Logf("after %v", took)
					stop()
					if err := p.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
				closeProducer(t, p)
				// What was acknowledged of a deleted topic is gone with its log, and offsets
				// begin anew. All else is judged.
				log := r.records(t)
				there := make(map[string]bool)
				for _, rec := range log {
					there[string(rec.Value)] = true
				}
				for value, s := range r.sends() {
					if s.Outcome == delivered && !there[value] && !s.Began.After(made) {
						log = append(log, &kgo.Record{Topic: topic, Partition: s.Partition, Offset: s.Offset, Value: []byte(value)})
					}
				}
				r.unordered(began, made)
				for _, broken := range r.check(log) {
					t.Error(broken)
				}
				t.Logf("%v, of which the last topic has %d", r.count(), len(there))
			})
		})
	}
}

func allow(name string, ops ...kmsg.ACLOperation) (acls []kfake.ACL) {
	for _, op := range ops {
		acls = append(acls, kfake.ACL{
			Resource: kmsg.ACLResourceTypeTopic, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true,
		})
	}
	return acls
}

func TestFault_B10_NotAllowed(t *testing.T) {
	const read, write, describe = kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe
	cfg := kafkatest.Config{
		Topics:   map[string]int{topic: 1, "gracedb-test.secret": 1, "gracedb-test.readable": 1},
		Subjects: map[string][]kfake.ACL{"alice": append(allow(topic, write, describe), allow("gracedb-test.readable", read, describe)...)},
	}
	virtually(t, cfg, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		for _, name := range []string{"secret", "readable"} {
			before := r.Requests()[kmsg.Produce]
			start := time.Now()
			_, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: name})
			within(t, "ProduceSync", time.Since(start), 500*time.Millisecond)
			wantKinds(t, err, is(gracedb.ErrTopic, gracedb.ErrDelivery, kerr.TopicAuthorizationFailed), is(gracedb.ErrOutcomeUnknown, gracedb.ErrAuthentication),
				"gracedb-test."+name, "alice")
			if n := r.Requests()[kmsg.Produce] - before; n > 1 {
				t.Errorf("%d requests", n)
			}
			t.Log(err)
		}
		// Rights that are taken away show at once, and neighbours work on.
		if err := r.SetACLs("alice", allow("gracedb-test.secret", write, describe)...); err != nil {
			t.Fatal(err)
		}
		_, err := r.try(t, p, "k", 10*time.Second)
		wantKinds(t, err, is(gracedb.ErrTopic, gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown), topic)
		wantKinds(t, p.Check(t.Context()), is(gracedb.ErrTopic), nil, topic, "alice")
		if _, err := p.ProduceSync(t.Context(), gracedb.Message{Topic: "secret"}); err != nil {
			t.Error(err)
		}
		closeProducer(t, p)
		r.judge(t)
	})
}

// A broker that throttles is obeyed, and ctx is still a bound.
func TestFault_B12_Throttled(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		r.Inject(kafkatest.Fault{Do: kafkatest.ThrottleResponse, Delay: 2 * time.Second, Keys: produces})
		r.send(t, p, "k")
		took, err := r.try(t, p, "k", 500*time.Millisecond)
		wantKinds(t, err, is(context.DeadlineExceeded), nil)
		within(t, "ProduceSync", took, 600*time.Millisecond)
		took = r.send(t, p, "k")
		if took < time.Second || took > 2*time.Second {
			t.Errorf("the next message took %v", took)
		}
		closeProducer(t, p)
		r.judge(t)
	})
}

func TestFault_B13_StorageError(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		f := r.reply(kerr.KafkaStorageError, -1)
		took, err := r.try(t, p, "k", 2*time.Second)
		within(t, "ProduceSync", took, 2100*time.Millisecond)
		// A disk may fail while the broker writes, and the engine goes on sending it.
		wantKinds(t, err, is(context.DeadlineExceeded, gracedb.ErrProducer, gracedb.ErrOutcomeUnknown, kerr.KafkaStorageError),
			is(gracedb.ErrDelivery, gracedb.ErrConnection), topic, "KAFKA_STORAGE_ERROR")
		f.Remove()
		within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
		closeProducer(t, p)
		r.judge(t)
	})
}

// The broker has forgotten the producer, or takes a batch for one out of order.
func TestFault_B14_ProducerForgotten(t *testing.T) {
	for _, answer := range []*kerr.Error{kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch} {
		t.Run(answer.Message, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				stop := r.traffic(t, p, 3, 10*time.Millisecond)
				for range 10 {
					time.Sleep(200 * time.Millisecond)
					r.reply(answer, 1)
				}
				stop()
				closeProducer(t, p)
				r.judge(t)
				if n := r.count(); n[failed]+n[unknown] > 0 {
					t.Errorf("%v", n)
				}
			})
		})
	}
}

// behindNames makes c start from names that lead to where the first broker is now.
func (r *rig) behindNames(c *gracedb.Cluster) {
	c.Brokers = []string{"kafka1.test:9092", "kafka2.test:9092"}
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "kafka") {
			addr = r.Addrs()[0]
		}
		return r.Dial(ctx, network, addr)
	}
	c.SkipHostnameVerification = true // the brokers' certificate is for localhost
}

// All brokers move to other addresses; the names to start from stay.
func TestFault_B15_AllAddressesChange(t *testing.T) {
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: 3}}, func(t *testing.T, r *rig) {
		p := r.producer(t, func(c *gracedb.ProducerConfig) { r.behindNames(&c.Cluster) })
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { r.behindNames(&c.Cluster) })
		member := r.consumer(t, func(c *gracedb.ConsumerConfig) { r.behindNames(&c.Cluster); c.GroupID = "g" })
		for range 4 {
			took := r.send(t, p, "k")
			within(t, "a message", took, 5*time.Second)
			for _, c := range []*gracedb.Consumer{con, member} {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				start := time.Now()
				if _, err := c.Poll(ctx); err != nil {
					t.Error(err)
				}
				cancel()
				t.Logf("sent in %v, received in %v", took, time.Since(start))
			}
			for id := range int32(3) {
				if err := r.Move(id); err != nil {
					t.Fatal(err)
				}
			}
		}
		closeProducer(t, p)
		r.judge(t)
	})
}

func TestFault_B16_AdvertisedHostUnreachable(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		r.Advertise(0, "broker7.invalid:9093")
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "broker7.invalid:9093" {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "broker7.invalid", IsNotFound: true}}
			}
			return r.Dial(ctx, network, addr)
		}
		cluster := r.cluster("alice")
		cluster.Dial = dial
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		wantKinds(t, err, is(gracedb.ErrConnection), nil, "broker7.invalid:9093")
		t.Log(err)
		_, err = gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}})
		wantKinds(t, err, is(gracedb.ErrConnection), nil, "broker7.invalid:9093")
		t.Log(err)
	})
}
