package gracedb

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
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
	conn := (&answers{}).watch(near)
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
