package gracedb

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A partition whose batch the engine has dropped while it wrote the request is not
// named in it: Kafka would answer nothing more on the connection.
func TestNoPartitionWithoutBatchIsSent(t *testing.T) {
	partition := func(n int32, records []byte) kmsg.ProduceRequestTopicPartition {
		return kmsg.ProduceRequestTopicPartition{Partition: n, Records: records}
	}
	topic := func(name string, p ...kmsg.ProduceRequestTopicPartition) kmsg.ProduceRequestTopic {
		return kmsg.ProduceRequestTopic{Topic: name, TopicID: [16]byte{name[0]}, Partitions: p}
	}
	full, dropped := partition(0, []byte("batch")), partition(1, nil)
	for _, c := range []struct {
		name       string
		sent, want []kmsg.ProduceRequestTopic
	}{
		{"all there", []kmsg.ProduceRequestTopic{topic("a", full)}, []kmsg.ProduceRequestTopic{topic("a", full)}},
		{"one of two", []kmsg.ProduceRequestTopic{topic("a", dropped, full)}, []kmsg.ProduceRequestTopic{topic("a", full)}},
		{"a whole topic", []kmsg.ProduceRequestTopic{topic("a", full), topic("b", dropped)}, []kmsg.ProduceRequestTopic{topic("a", full)}},
		{"nothing left", []kmsg.ProduceRequestTopic{topic("a", dropped)}, nil},
	} {
		for _, version := range []int16{3, 8, 9, 12, 13} {
			req := kmsg.NewPtrProduceRequest()
			req.Version, req.Acks, req.TimeoutMillis, req.Topics = version, -1, 1000, c.sent
			frame := produceFrame(req)
			got := writtenTo(t, frame)
			req.Topics = c.want
			if diff := cmp.Diff(produceFrame(req), got); diff != "" {
				t.Errorf("%s, version %d: sent (-want +got):\n%s", c.name, version, diff)
			}
		}
	}
}

// produceFrame returns req as it goes over the wire.
func produceFrame(req *kmsg.ProduceRequest) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(kmsg.Produce))
	b = binary.BigEndian.AppendUint16(b, uint16(req.Version))
	b = binary.BigEndian.AppendUint32(b, 77)
	b = append(b, 0, 2, 'm', 'e')
	if req.IsFlexible() {
		b = append(b, 0)
	}
	b = req.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// writtenTo returns what a broker gets of a frame.
func writtenTo(t *testing.T, frame []byte) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	conn := newAnswers(nil, nil).watch(near)
	defer conn.Close()
	got := make(chan []byte)
	go func() {
		b := make([]byte, 2*len(frame))
		n, _ := far.Read(b)
		got <- b[:n]
	}()
	if n, err := conn.Write(frame); n != len(frame) || err != nil {
		t.Errorf("Write = %d, %v, of %d", n, err, len(frame))
	}
	return <-got
}

// The engine sends again what was not taken, or the topic is started anew.
func TestStuckIsNoticed(t *testing.T) {
	const epoch0, epoch1 = 0, 1
	for _, c := range []struct {
		name   string
		epoch  int16 // of what is sent after the first was refused
		number int32
		stuck  bool
	}{
		{"the first again", epoch0, 57, false},
		{"a new epoch", epoch1, 0, false},
		{"the next, in the old epoch", epoch0, 58, true},
		{"the next, in a new epoch", epoch1, 58, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var stuck atomic.Int32
				a := newAnswers(nil, func(topic string) {
					if topic != "topic" {
						t.Errorf("topic %q", topic)
					}
					stuck.Add(1)
				})
				near, far := net.Pipe()
				conn := a.watch(near)
				defer func() { _, _ = conn.Close(), far.Close() }()
				ask := func(epoch int16, number int32, code int16) {
					roundTrip(t, conn, far, batchFrame(epoch, number), func() {}, produceAnswer(code))
					time.Sleep(10 * time.Millisecond)
				}
				ask(epoch0, 57, kerr.UnknownProducerID.Code)
				// It was on its way, and is answered as what follows a gap is.
				ask(epoch0, 58, kerr.OutOfOrderSequenceNumber.Code)
				for i := range int32(3) {
					code := int16(0)
					if c.stuck {
						code = kerr.OutOfOrderSequenceNumber.Code
					}
					ask(c.epoch, c.number+i, code)
				}
				time.Sleep(2 * stuckAfter)
				if got := stuck.Load(); got != 1 && c.stuck || got != 0 && !c.stuck {
					t.Errorf("told %d times", got)
				}
			})
		})
	}
}

// batchFrame returns a request with one batch of one message.
func batchFrame(epoch int16, number int32) []byte {
	batch := kmsg.RecordBatch{ProducerID: 7, ProducerEpoch: epoch, FirstSequence: number, NumRecords: 1, Magic: 2, Records: []byte("r")}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks = 9, -1
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: "topic", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch.AppendTo(nil)}}}}
	return produceFrame(req)
}

// produceAnswer returns the answer to it.
func produceAnswer(code int16) []byte {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = 9
	resp.Topics = []kmsg.ProduceResponseTopic{{Topic: "topic", Partitions: []kmsg.ProduceResponseTopicPartition{{ErrorCode: code}}}}
	b := append(binary.BigEndian.AppendUint32(make([]byte, 4), 77), 0)
	b = resp.AppendTo(b)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// roundTrip sends a frame over conn and, after meanwhile, reads the answer that far gives.
func roundTrip(t *testing.T, conn, far net.Conn, frame []byte, meanwhile func(), answer []byte) {
	t.Helper()
	go func() { _, _ = io.CopyN(io.Discard, far, int64(len(frame))) }()
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	go func() { _, _ = far.Write(answer) }()
	if _, err := io.ReadFull(conn, make([]byte, len(answer))); err != nil {
		t.Fatal(err)
	}
}

// Who drops a topic while another is being dropped waits for it, as for anything that
// takes time: the engine may be asking a silent broker for its metadata.
func TestOneDropAtATime(t *testing.T) {
	// Who waits for a lock keeps virtual time from passing, for ever.
	watchdog := time.AfterFunc(30*time.Second, func() { panic("hangs") })
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		a := newAnswers(nil, nil)
		all := func(string) bool { return true }
		start := time.Now()
		var inside atomic.Int32
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				a.drop(all, func() {
					if inside.Add(1) != 1 {
						t.Error("two at once")
					}
					time.Sleep(time.Second)
					inside.Add(-1)
				})
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// What the engine has forgotten, or has not looked at when it is closed, may be in the log:
// nobody is told of it what the answer said.
func TestAnswersThatAreNotLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAnswers(nil, nil)
		near, far := net.Pipe()
		conn := a.watch(near)
		defer func() { _, _ = conn.Close(), far.Close() }()
		all := func(string) bool { return true }
		ask := func(number int32, meanwhile func()) {
			roundTrip(t, conn, far, batchFrame(0, number), meanwhile, produceAnswer(0))
		}
		before := a.now()
		time.Sleep(time.Second)
		ask(0, func() {})
		time.Sleep(time.Second)
		after := a.now()
		if !a.takenSince(all, 0, before) || a.takenSince(all, 0, after) || a.takenSince(all, 1, before) {
			t.Error("which batch was taken is not known")
		}
		if a.doubtSince(before) {
			t.Error("doubt without a reason")
		}
		ask(1, func() { a.forget(all) })
		if !a.doubtSince(after) {
			t.Error("no doubt of a batch that the engine has forgotten")
		}
	})
}
