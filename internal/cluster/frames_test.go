package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testrace"
)

// judgedKeys are those of all requests that a client of this package sends.
var judgedKeys = []kmsg.Key{
	kmsg.ApiVersions, kmsg.SASLHandshake, kmsg.SASLAuthenticate, kmsg.Metadata, kmsg.Produce, kmsg.Fetch, kmsg.InitProducerID, kmsg.DescribeConfigs,
	kmsg.ListOffsets, kmsg.OffsetForLeaderEpoch, kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup,
	kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.ConsumerGroupHeartbeat,
}

// eachAnswer calls f with every version of every answer, filled with some of everything.
func eachAnswer(t *testing.T, f func(t *testing.T, resp kmsg.Response)) {
	for _, key := range judgedKeys {
		for v := range kmsg.ResponseForKey(int16(key)).MaxVersion() + 1 {
			t.Run(fmt.Sprintf("%s v%d", key.Name(), v), func(t *testing.T) {
				resp := kmsg.ResponseForKey(int16(key))
				resp.SetVersion(v)
				fill(reflect.ValueOf(resp).Elem(), rand.New(rand.NewPCG(uint64(key), uint64(v))))
				f(t, resp)
			})
		}
	}
}

func fill(v reflect.Value, r *rand.Rand) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name == "Version" || name == "UnknownTags" {
				continue
			}
			fill(v.Field(i), r)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 3))
		for i := range v.Len() {
			fill(v.Index(i), r)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.String:
		v.SetString(strings.Repeat("é", r.IntN(100)))
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64N(100))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	}
}

// frameOf returns resp as an answer to the request with the number 7.
func frameOf(resp kmsg.Response) []byte {
	body := binary.BigEndian.AppendUint32(nil, 7)
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		body = append(body, 0)
	}
	body = resp.AppendTo(body)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// A pieces is what a broker sends, in pieces of the given sizes.
type pieces struct {
	net.Conn
	stream []byte
	sizes  []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.stream) == 0 {
		return 0, io.EOF
	}
	n := len(b)
	if len(p.sizes) > 0 {
		n, p.sizes = min(n, int(p.sizes[0])+1), p.sizes[1:]
	}
	n = copy(b[:n], p.stream)
	p.stream = p.stream[n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error) { return len(b), nil }

// judged returns what kgo gets of the answer stream to a request of this version.
func judged(key, version int16, stream, sizes []byte) (got []byte, asked time.Duration, err error) {
	return judgedFor(nil, key, version, stream, sizes)
}

// judgedFor is judged on a connection whose answers to Fetch are made to fit.
func judgedFor(fit func() func([]byte), key, version int16, stream, sizes []byte) (got []byte, asked time.Duration, err error) {
	c := newFramedConn(&pieces{stream: slices.Clone(stream), sizes: sizes}, func(d time.Duration) { asked = d }, fit)
	request := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(key))
	request = binary.BigEndian.AppendUint16(request, uint16(version))
	_, _ = c.Write(binary.BigEndian.AppendUint32(request, 7))
	got, err = io.ReadAll(c)
	return got, asked, err
}

// The batches of each partition of an answer to Fetch are made to fit, in place and by what was made
// for this answer, and nothing of any other answer.
func TestFetchesAreMadeToFit(t *testing.T) {
	var given []string
	fit := func() func([]byte) {
		given = append(given, "answer")
		return func(batches []byte) {
			given = append(given, string(batches))
			batches[0] = 'X'
		}
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(11)
	resp.Topics = []kmsg.FetchResponseTopic{{Topic: "t", Partitions: []kmsg.FetchResponseTopicPartition{
		{RecordBatches: []byte("one")}, {RecordBatches: []byte("two")},
	}}}
	got, _, err := judgedFor(fit, resp.Key(), resp.GetVersion(), frameOf(resp), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got, []byte("Xne")) || !bytes.Contains(got, []byte("Xwo")) || !slices.Equal(given, []string{"answer", "one", "two"}) {
		t.Errorf("%q of %q", got, given)
	}
	given = nil
	other := kmsg.NewPtrMetadataResponse()
	if _, _, err := judgedFor(fit, other.Key(), other.GetVersion(), frameOf(other), nil); err != nil || given != nil {
		t.Error(err, given)
	}
}

// Every answer that a broker may give passes as it is, and its shape is known to the end.
func TestAnswersPass(t *testing.T) {
	eachAnswer(t, func(t *testing.T, resp kmsg.Response) {
		frame := frameOf(resp)
		got, _, err := judged(resp.Key(), resp.GetVersion(), slices.Concat(frame, frame), nil)
		if err != nil || !bytes.Equal(got, slices.Concat(frame, frame)) {
			t.Fatalf("%v: %x, want %x twice", err, got, frame)
		}
		w := newWalk(sentHead{kmsg.Key(resp.Key()), resp.GetVersion(), 7})
		if len(w.stack) == 0 {
			return
		}
		whole := len(w.stack[0].of) > 2
		if err := w.feed(frame[8:], 0); err != nil {
			t.Fatal(err)
		}
		ended := w.skip == 0 && w.have == 0
		for _, at := range w.stack {
			ended = ended && at.next == len(at.of) && at.repeat == 0
		}
		if whole && !ended {
			t.Errorf("the walk ended elsewhere: %+v", w.stack)
		}
	})
}

// A throttle time of more than two minutes is two minutes for the engine, wherever it is,
// and however the answer comes.
func TestThrottleIsLowered(t *testing.T) {
	eachAnswer(t, func(t *testing.T, resp kmsg.Response) {
		throttle := reflect.ValueOf(resp).Elem().FieldByName("ThrottleMillis")
		if !throttle.IsValid() || resp.Key() == int16(kmsg.ApiVersions) {
			return
		}
		throttle.SetInt(1)
		one := frameOf(resp)
		throttle.SetInt(2)
		if bytes.Equal(one, frameOf(resp)) {
			return // not in this version
		}
		for _, ms := range []int64{-1, 0, 1, 119_999, 120_000, 120_001, 0x1d4ff, 0x1ff00, 900_000, 0x01000000, 1<<31 - 1} {
			throttle.SetInt(ms)
			frame := frameOf(resp)
			throttle.SetInt(min(ms, maxThrottle.Milliseconds()))
			want := frameOf(resp)
			for _, size := range []byte{0, 1, 2, 255} {
				got, asked, err := judged(resp.Key(), resp.GetVersion(), frame, bytes.Repeat([]byte{size}, len(frame)))
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d ms in pieces of %d: %v: %x, want %x", ms, size+1, err, got, want)
				}
				if over := ms > maxThrottle.Milliseconds(); over != (asked != 0) || over && asked != time.Duration(ms)*time.Millisecond {
					t.Errorf("%d ms: told %v", ms, asked)
				}
			}
		}
	})
}

// Answers that count some thousands more than they hold, or more than is believed, are
// refused before they are decoded.
func TestAnswersThatLie(t *testing.T) {
	metadata := func(brokers, partitions int) kmsg.Response {
		m := kmsg.NewPtrMetadataResponse()
		m.SetVersion(12)
		m.Brokers = make([]kmsg.MetadataResponseBroker, brokers)
		m.Topics = []kmsg.MetadataResponseTopic{{Partitions: make([]kmsg.MetadataResponseTopicPartition, partitions)}}
		return m
	}
	topicsOf := func(n int) kmsg.Response {
		m := kmsg.NewPtrMetadataResponse()
		m.SetVersion(12)
		m.Topics = make([]kmsg.MetadataResponseTopic, n)
		return m
	}
	for _, tt := range []struct {
		name string
		resp kmsg.Response
		lie  func([]byte) []byte
		want string
	}{
		{"as many brokers as are believed", metadata(maxBrokers, 10), nil, ""},
		{"more brokers", metadata(maxBrokers+1, 10), nil, "1001 brokers"},
		{"as many partitions as are believed", metadata(1, maxPartitions), nil, ""},
		{"more partitions", metadata(1, 21_000), nil, "21000 partitions"},
		{"as many topics as are believed", topicsOf(maxTopics), nil, ""},
		{"more topics", topicsOf(maxTopics + 1), nil, "10001 topics"},
		{"partitions that are not there", metadata(1, 300), recount(301, 5000), "counts 5000 elements"},
		{"brokers that are not there", metadata(290, 1), recount(291, 900), "counts 900 elements"},
		{"larger than such answers are", metadata(1, 130_000), nil, "at most 2097152"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frame := frameOf(tt.resp)
			if tt.lie != nil {
				frame = tt.lie(frame)
			}
			got, _, err := judged(tt.resp.Key(), tt.resp.GetVersion(), frame, nil)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %s", err, tt.want)
			case tt.want != "" && len(got) == len(frame):
				t.Error("the engine has the whole answer")
			}
		})
	}
}

// recount changes the first count of was-1 elements in a flexible answer to n.
func recount(was, n uint64) func([]byte) []byte {
	return func(frame []byte) []byte {
		old := binary.AppendUvarint(nil, was)
		i := bytes.Index(frame[8:], old) + 8
		frame = slices.Concat(frame[:i], binary.AppendUvarint(nil, n+1), frame[i+len(old):])
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		return frame
	}
}

// What the engine makes of the largest answers that pass is bounded.
func TestAnswersInMemory(t *testing.T) {
	aborted := func(n int) kmsg.Response {
		f := kmsg.NewPtrFetchResponse()
		f.SetVersion(4)
		f.Topics = []kmsg.FetchResponseTopic{{Partitions: []kmsg.FetchResponseTopicPartition{{AbortedTransactions: make([]kmsg.FetchResponseTopicPartitionAbortedTransaction, n)}}}}
		return f
	}
	topics := func(n int) kmsg.Response {
		f := kmsg.NewPtrFetchResponse()
		f.SetVersion(12)
		f.Topics = make([]kmsg.FetchResponseTopic, n)
		return f
	}
	most := uint64(2 * maxMade) // under the race detector each array is made twice
	for name, resp := range map[string]kmsg.Response{"aborted": aborted(160_000), "aborted more": aborted(2_000_000), "topics": topics(maxTopics), "topics more": topics(maxTopics + 1)} {
		frame := frameOf(resp)
		_, _, err := judged(resp.Key(), resp.GetVersion(), frame, nil)
		var before, after runtime.MemStats
		if err == nil {
			fresh := kmsg.ResponseForKey(resp.Key())
			fresh.SetVersion(resp.GetVersion())
			body := frame[8:]
			if resp.IsFlexible() {
				body = body[1:]
			}
			runtime.ReadMemStats(&before)
			if err := fresh.ReadFrom(body); err != nil {
				t.Error(err)
			}
			runtime.ReadMemStats(&after)
		}
		t.Logf("%s: %d MiB: %v, %d MiB made", name, len(frame)>>20, err, (after.TotalAlloc-before.TotalAlloc)>>20)
		if more := strings.HasSuffix(name, "more"); more != (err != nil) || after.TotalAlloc-before.TotalAlloc > most {
			t.Errorf("%s: %v, %d MiB", name, err, (after.TotalAlloc-before.TotalAlloc)>>20)
		}
	}
}

// FuzzFrames gives what a broker sends to one connection at once and to another in pieces.
// The engine gets the same of both: no more than was sent, and the same but for throttle
// times, and for the text of a refused login.
func FuzzFrames(f *testing.F) {
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.Fetch, kmsg.Produce, kmsg.Heartbeat, kmsg.SASLAuthenticate} {
		for v := range kmsg.ResponseForKey(int16(key)).MaxVersion() + 1 {
			resp := kmsg.ResponseForKey(int16(key))
			resp.SetVersion(v)
			fill(reflect.ValueOf(resp).Elem(), rand.New(rand.NewPCG(1, 2)))
			f.Add(int16(key), v, frameOf(resp), []byte{0, 1, 2, 3, 0, 0, 0, 200})
		}
	}
	for _, length := range []uint32{0, 3, 4, 5, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		f.Add(int16(3), int16(9), append(binary.BigEndian.AppendUint32(nil, length), "abcdefghijkl"...), []byte{0, 1})
	}
	f.Fuzz(func(t *testing.T, key, version int16, stream, sizes []byte) {
		whole, asked, err := judged(key, version, stream, nil)
		split, askedSplit, errSplit := judged(key, version, stream, sizes)
		if (err == nil) != (errSplit == nil) || err != nil && err.Error() != errSplit.Error() && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%v, in pieces %v", err, errSplit)
		}
		if err == nil && (!bytes.Equal(whole, split) || asked != askedSplit) {
			t.Errorf("%x after %v, in pieces %x after %v", whole, asked, split, askedSplit)
		}
		if key == int16(kmsg.SASLAuthenticate) {
			return
		}
		if len(whole) > len(stream) {
			t.Errorf("%d bytes of %d", len(whole), len(stream))
		}
		if asked == 0 && !bytes.HasPrefix(stream, whole) {
			t.Errorf("%x of %x", whole, stream)
		}
		fitted, askedFitted, errFitted := judgedFor(func() func([]byte) { return func(batches []byte) { clear(batches) } }, key, version, stream, sizes)
		if (err == nil) != (errFitted == nil) || err == nil && (len(fitted) != len(whole) || asked != askedFitted) {
			t.Errorf("%x after %v, %v, for a Consumer %x after %v, %v", whole, asked, err, fitted, askedFitted, errFitted)
		}
	})
}

// What an answer looks like is found out once.
func TestShapesAreKept(t *testing.T) {
	if testrace.Enabled {
		t.Skip("the race detector allocates")
	}
	for _, key := range judgedKeys {
		r := sentHead{key, kmsg.ResponseForKey(int16(key)).MaxVersion(), 7}
		if n := testing.AllocsPerRun(100, func() { newWalk(r) }); n > 2 {
			t.Errorf("%s: %v allocations", key.Name(), n)
		}
	}
}
