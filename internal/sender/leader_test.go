package sender

import (
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// In these steps, the batch that fails was in flight before the partition lost its leader:
//
//  1. A batch is written, and its answer is lost.
//  2. Metadata say that the partition has no leader.
//  3. Another batch is sealed. The Sender looks for the leader, and for no batch's sake.
//  4. The first batch fails.
//  5. There is a leader again.
//
// Whoever has looked for the leader judges what has failed meanwhile.
func TestLeaderGoneWhileUnanswered(t *testing.T) {
	for _, lost := range []kafkatest.Action{kafkatest.DropRequest, kafkatest.DropResponse} {
		withRig(t, kafkatest.Config{}, true, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
			r.learn()
			r.must(r.send("first"))
			with, without := r.state, r.state
			without.Partitions = []Leader{{-1, 1}}
			with.Partitions = []Leader{{0, 2}}

			c.LoseProduces(1, lost)
			a := r.send("a")
			synctest.Wait()
			r.say(without, nil)
			r.learn()
			b := r.send("b")
			time.Sleep(20 * time.Second) // kgo gives a up after 5 s
			r.say(with, nil)
			r.learn()
			r.must(a)
			r.must(b)
			if diff := cmp.Diff([]string{"first", "a", "b"}, logged(t, c)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A record without a key does not wait for a partition whose leader has gone.
func TestKeylessRecordEvades(t *testing.T) {
	const dead = 0
	for name, row := range map[string]struct {
		lost, told, heldBack bool // when the record is sent: the broker leads no more; the Sender knows; an earlier batch is unanswered
		learns, stale        bool // the Sender hears of it then; brokers go on naming the leader
	}{
		"known":                        {lost: true, told: true},
		"found out by a failure":       {lost: true, heldBack: true},
		"not known to brokers":         {lost: true, heldBack: true, stale: true},
		"heard behind what is written": {heldBack: true, learns: true},
	} {
		t.Run(name, func(t *testing.T) {
			withRig(t, kafkatest.Config{}, false, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
				if err := c.AddPartitions(rigTopic, 2); err != nil {
					t.Fatal(err)
				}
				r.state.Partitions = []Leader{{0, 0}, {0, 0}}
				r.learn()
				gone := r.state
				gone.Partitions = []Leader{{-1, 1}, {0, 0}}
				if !row.stale {
					r.say(gone, nil)
				}
				if row.lost {
					if err := c.LoseLeader(rigTopic, dead); err != nil {
						t.Fatal(err)
					}
				}
				if row.told {
					r.learn()
				}
				if row.heldBack {
					c.Inject(kafkatest.Fault{Do: kafkatest.HoldRequest, Keys: []kmsg.Key{kmsg.Produce}, Count: 1, Delay: 100 * time.Millisecond})
				}
				keyed := record("keyed", 0)
				for i := 0; crc32.ChecksumIEEE(keyed.Key)%2 != dead; i++ {
					keyed.Key = fmt.Append(nil, i)
				}
				r.sender.Send(keyed)
				synctest.Wait()
				topic := r.sender.lock(rigTopic)
				topic.sticky = topic.parts[dead]
				topic.mu.Unlock()
				free := &Record{Topic: rigTopic, Value: []byte("free")}
				began := time.Now()
				r.sender.Send(free)
				if row.learns {
					r.learn()
				}
				r.must(free)
				if took := time.Since(began); took > 200*time.Millisecond {
					t.Errorf("it has waited for %v", took)
				}
			})
		})
	}
}

// Metadata that name fewer partitions of the same topic are late: the topic is the same. A
// broker without topic ids tells by the same that it was made anew, as no topic shrinks.
func TestFewerPartitions(t *testing.T) {
	for _, ids := range []bool{true, false} {
		r := newRig(t, nil, false)
		if !ids {
			r.state.ID = [16]byte{}
		}
		one, two := r.state, r.state
		two.Partitions = []Leader{{0, 0}, {0, 0}}
		topic, p := r.held()
		b := inFlight(r, p)
		r.say(two, nil)
		r.learn()
		last := topic.parts[1]
		r.say(one, nil)
		r.learn()
		if ids {
			if topic.anew || len(topic.parts) != 2 || topic.parts[1] != last || b.part.gone {
				t.Errorf("with ids: made anew %v, %d partitions", topic.anew, len(topic.parts))
			}
		} else if !topic.anew || !b.part.gone {
			t.Error("without ids: the topic is the same, and has fewer partitions")
		}
	}
}

// A topic is taken for missing when brokers have said so for some seconds, not because a
// single one says so now and then: one that has just started may not know it yet.
func TestMissingNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, false)
		topic, _ := r.held()
		waits := r.send("waits")
		missing := func() {
			topic.mu.Lock()
			r.sender.unlock(topic, topic.judgeState(State{}, kerr.UnknownTopicOrPartition))
		}
		for range 3 {
			missing()
			time.Sleep(time.Hour)
		}
		if o := r.told(waits); o != nil {
			t.Fatalf("missing once an hour: %+v", o)
		}
		began := time.Now()
		for r.told(waits) == nil && time.Since(began) < time.Minute {
			missing()
			time.Sleep(time.Second)
		}
		r.want(waits, NotInLog, kerr.UnknownTopicOrPartition)
		if took := time.Since(began); took < anewTime || took > anewTime+2*time.Second {
			t.Errorf("missing every second, and taken for missing after %v", took)
		}
	})
}

// A refusal to give a producer id that is for good is told to those who wait for it. One that
// passes is waited out.
func TestNoProducerID(t *testing.T) {
	for _, row := range []struct {
		code *kerr.Error
		want Result
	}{{kerr.ClusterAuthorizationFailed, NotInLog}, {kerr.CoordinatorLoadInProgress, InLog}} {
		t.Run(row.code.Message, func(t *testing.T) {
			withRig(t, kafkatest.Config{}, false, func(t *testing.T, r *rig, c *kafkatest.Cluster) {
				refused := c.Inject(kafkatest.Fault{Do: kafkatest.ErrorResponse, Keys: []kmsg.Key{kmsg.InitProducerID}, Err: row.code, Count: -1})
				r.learn()
				one := r.send("one")
				time.Sleep(time.Second)
				if row.want == NotInLog {
					r.want(one, NotInLog, row.code)
				} else if o := r.told(one); o != nil {
					t.Errorf("%+v", o)
				}
				refused.Remove()
				r.must(r.send("two"))
				if row.want == InLog {
					r.must(one)
				}
			})
		})
	}
}

// UNKNOWN_SERVER_ERROR in an answer about the topic is waited out, whether the topic is
// known or not, and is what Said tells meanwhile.
func TestServerErrorAboutTheTopic(t *testing.T) {
	withRig(t, kafkatest.Config{}, false, func(t *testing.T, r *rig, _ *kafkatest.Cluster) {
		good := r.state
		r.say(State{}, kerr.UnknownServerError)
		one := r.send("one")
		time.Sleep(time.Minute)
		if o := r.told(one); o != nil {
			t.Fatalf("%+v", o)
		}
		if said := r.sender.Said(one); !errors.Is(said, kerr.UnknownServerError) {
			t.Errorf("Said: %v", said)
		}
		r.say(good, nil)
		r.must(one)

		topic, p := r.held()
		two := r.send("two")
		topic.mu.Lock()
		r.sender.unlock(topic, topic.judgeState(State{}, kerr.UnknownServerError))
		if o := r.told(two); o != nil {
			t.Fatalf("of a topic that is known: %+v", o)
		}
		r.release(p)
		r.must(two)
	})
}
