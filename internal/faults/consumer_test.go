package faults

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// take polls until n messages or an error came.
func take(t testing.TB, c *gracedb.Consumer, n int) (got []gracedb.Message, err error) {
	t.Helper()
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m, err := c.Poll(ctx)
		cancel()
		if err != nil {
			return got, err
		}
		got = append(got, m)
	}
	return got, nil
}

// ranged ranges over a Stream until n messages or an error came, which must be the last
// that comes, or nothing for a while.
func ranged(t testing.TB, c *gracedb.Consumer, n int, lasting time.Duration) (got []gracedb.Message, failure error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	for m, err := range c.Stream(ctx) {
		if failure != nil {
			t.Fatalf("the stream goes on after %v", failure)
		}
		if failure = err; err != nil {
			continue
		}
		if got = append(got, m); len(got) == n {
			break
		}
	}
	return got, failure
}

// silent checks that nothing comes for a while.
func silent(t testing.TB, c *gracedb.Consumer, lasting time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	if m, err := c.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %q, %v", m.Value, err)
	}
}

func numbers(from, to int) (values []string) {
	for i := from; i < to; i++ {
		values = append(values, fmt.Sprint(i))
	}
	return values
}

func wantOffsets(t testing.TB, got []gracedb.Message, from, to int64) {
	t.Helper()
	if int64(len(got)) != to-from {
		t.Errorf("%d messages, want %d", len(got), to-from)
	}
	for i, m := range got {
		if m.Offset != from+int64(i) {
			t.Fatalf("message %d is at %d, want %d", i, m.Offset, from+int64(i))
		}
	}
}

var withAndWithout = []string{"", "g"}

// both runs f without a group and with one.
func both(t *testing.T, cfg kafkatest.Config, f func(*testing.T, *rig, string)) {
	for _, group := range withAndWithout {
		t.Run("group="+group, func(t *testing.T) {
			virtually(t, cfg, func(t *testing.T, r *rig) { f(t, r, group) })
		})
	}
}

// A connection that breaks, a broker that is gone for a while, leaders that move:
// consumers do not notice.
func TestFault_N13_ConsumerHeals(t *testing.T) {
	both(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: 1}}, func(t *testing.T, r *rig, group string) {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
		var got []gracedb.Message
		n := 0
		for i, fault := range []func() (heal func()){
			func() func() { r.Drop(kafkatest.RST); return func() {} },
			func() func() { r.Refuse(); r.Drop(kafkatest.FIN); return func() { r.Accept() } },
			func() func() { r.Freeze(); return func() { r.Thaw() } },
			func() func() { _ = r.MoveLeader(topic, 0, 1); return func() {} },
			func() func() { _ = r.Kill(1); return func() { _ = r.Restart(1) } },
			func() func() {
				return r.Inject(kafkatest.Fault{Do: kafkatest.GarbageResponse, Keys: []kmsg.Key{kmsg.Fetch}, Count: 5}).Remove
			},
			func() func() {
				return r.Inject(kafkatest.Fault{Do: kafkatest.HalfResponse, Keys: []kmsg.Key{kmsg.Fetch}, Count: 5}).Remove
			},
		} {
			heal := fault()
			time.Sleep(3 * time.Second)
			r.raw(t, topic, 0, numbers(n, n+10)...)
			heal()
			n += 10
			start := time.Now()
			for len(got) < n {
				more, err := take(t, con, n-len(got))
				got = append(got, more...)
				// Garbage may look like a frame of a GiB, which is told when there is nothing to
				// be read, and so with the next fault at the latest.
				if err != nil && i != 5 && (i != 6 || !strings.Contains(err.Error(), "invalid large response size")) {
					t.Errorf("fault %d: %v", i, err)
				}
			}
			within(t, fmt.Sprint("receiving after fault ", i), time.Since(start), 12*time.Second)
			t.Logf("fault %d: received after %v", i, time.Since(start))
		}
		wantOffsets(t, got, 0, int64(n))
	})
}

// The coordinator of a group moves while it consumes.
func TestFault_B17_CoordinatorMoves(t *testing.T) {
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: 1}}, func(t *testing.T, r *rig) {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
		r.raw(t, topic, 0, numbers(0, 5)...)
		got, err := take(t, con, 5)
		if err != nil {
			t.Fatal(err)
		}
		for id := range int32(3) {
			if err := r.Kill(id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			first := 5 + 5*int(id)
			r.raw(t, topic, 0, numbers(first, first+5)...)
			more, err := take(t, con, 5)
			if err != nil {
				t.Error(err)
			}
			got = append(got, more...)
			if err := con.Commit(t.Context()); err != nil {
				t.Error(err)
			}
			if err := r.Restart(id); err != nil {
				t.Fatal(err)
			}
		}
		wantOffsets(t, got, 0, 20)
	})
}

// All brokers move to other addresses; the names to start from stay. Who reads has
// what is published then within the time that who publishes has: both find the
// brokers anew, however long it was quiet.
func TestFault_B15_ConsumersFollow(t *testing.T) {
	virtually(t, kafkatest.Config{Brokers: 3, Topics: map[string]int{topic: 3}}, func(t *testing.T, r *rig) {
		p := r.producer(t, func(c *gracedb.ProducerConfig) { r.behindNames(&c.Cluster) })
		var consumers []*gracedb.Consumer
		for _, group := range withAndWithout {
			consumers = append(consumers, r.consumer(t, func(c *gracedb.ConsumerConfig) { r.behindNames(&c.Cluster); c.GroupID = group }))
		}
		for _, quiet := range []time.Duration{0, 0, time.Second, 2900 * time.Millisecond, 7 * time.Second, time.Minute, 10 * time.Minute} {
			time.Sleep(quiet)
			start := time.Now()
			for id := range int32(3) {
				if err := r.Move(id); err != nil {
					t.Fatal(err)
				}
			}
			r.send(t, p, "k")
			sent := time.Since(start)
			for i, c := range consumers {
				if _, err := take(t, c, 1); err != nil {
					t.Error(err)
				}
				took, bound := time.Since(start), 5*time.Second
				if withAndWithout[i] != "" {
					// If the group changes meanwhile, its position is stored first, which
					// may take another 5 s where nobody answers.
					bound = 10 * time.Second
				}
				within(t, "receiving", took, bound)
				t.Logf("quiet for %v: sent in %v, received in %v", quiet, sent, took)
			}
		}
		closeProducer(t, p)
		r.judge(t)
	})
}

// Retention deletes what was not read yet: the gap is told, and reading goes on
// where the log begins, wherever it began itself.
func TestFault_B18_OffsetOutOfRange(t *testing.T) {
	for _, fromBeginning := range []bool{false, true} {
		for _, read := range []int{0, 3} { // messages before the gap
			t.Run(fmt.Sprintf("beginning=%v,read=%d", fromBeginning, read), func(t *testing.T) {
				both(t, kafkatest.Config{}, func(t *testing.T, r *rig, group string) { outOfRange(t, r, group, fromBeginning, read) })
			})
		}
	}
}

func outOfRange(t *testing.T, r *rig, group string, fromBeginning bool, read int) {
	const begin, trimmed, end = 5, 20, 25
	r.raw(t, topic, 0, numbers(0, begin)...)
	if err := r.Trim(topic, 0, begin); err != nil {
		t.Fatal(err)
	}
	con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID, c.FromBeginning = group, fromBeginning })
	at := begin + read
	r.raw(t, topic, 0, numbers(begin, at)...)
	if _, err := take(t, con, read); err != nil {
		t.Fatal(err)
	}
	silent(t, con, time.Second)
	// The consumer is away while the log moves on.
	r.Refuse()
	r.Drop(kafkatest.RST)
	r.raw(t, topic, 0, numbers(at, end)...)
	if err := r.Trim(topic, 0, trimmed); err != nil {
		t.Fatal(err)
	}
	if err := r.Accept(); err != nil {
		t.Fatal(err)
	}
	got, err := take(t, con, 1)
	if len(got) > 0 {
		t.Errorf("offset %d comes before the loss is told", got[0].Offset)
	}
	wantLoss(t, err, fmt.Sprintf("messages %d to %d", at, trimmed-1), fmt.Sprintf("begins at %d; continuing there", trimmed))
	got, err = take(t, con, end-trimmed)
	if err != nil {
		t.Error(err)
	}
	wantOffsets(t, got, trimmed, end)
	silent(t, con, time.Second)
}

// Members come and go: every message is seen, and what comes again was not done.
func TestFault_B19_MembersComeAndGo(t *testing.T) {
	virtually(t, kafkatest.Config{Topics: map[string]int{topic: 6}}, func(t *testing.T, r *rig) {
		first := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" }) // pins the position
		var mu sync.Mutex
		seen := make(map[string]int)
		stored := make(map[int32]int64) // by partition: up to where a commit was acknowledged
		r.Inject(kafkatest.Fault{
			Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.OffsetCommit}, Count: -1,
			Rewrite: func(req kmsg.Request, resp kmsg.Response) {
				mu.Lock()
				defer mu.Unlock()
				accepted := make(map[int32]bool)
				for _, t := range resp.(*kmsg.OffsetCommitResponse).Topics {
					for _, p := range t.Partitions {
						accepted[p.Partition] = p.ErrorCode == 0
					}
				}
				for _, t := range req.(*kmsg.OffsetCommitRequest).Topics {
					for _, p := range t.Partitions {
						if accepted[p.Partition] {
							stored[p.Partition] = max(stored[p.Partition], p.Offset)
						}
					}
				}
			},
		})
		consume := func(ctx context.Context, c *gracedb.Consumer) {
			for m, err := range c.Stream(ctx) {
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				id := fmt.Sprint(m.Partition, "/", m.Offset)
				if seen[id]++; seen[id] > 1 && m.Offset < stored[m.Partition] {
					t.Errorf("%s comes again, and all before %d was stored as done", id, stored[m.Partition])
				}
				mu.Unlock()
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { consume(ctx, first) })
		random := rand.New(rand.NewPCG(7, 7))
		for range 10 {
			life := time.Duration(1000+random.IntN(9000)) * time.Millisecond
			start := time.Duration(random.IntN(8000)) * time.Millisecond
			wg.Go(func() {
				time.Sleep(start)
				c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: r.cluster("bob"), Topics: []string{"test"}, GroupID: "g"})
				if err != nil {
					t.Error(err)
					return
				}
				own, stop := context.WithTimeout(ctx, life)
				defer stop()
				consume(own, c)
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		const n = 1500
		for i := range n {
			r.raw(t, topic, int32(i%6), fmt.Sprint(i))
			time.Sleep(10 * time.Millisecond)
		}
		for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			mu.Lock()
			all := len(seen) == n
			mu.Unlock()
			if all {
				break
			}
			if time.Since(start) > 30*time.Second {
				t.Errorf("%d of %d seen", len(seen), n)
				break
			}
		}
		cancel()
		wg.Wait()
		doubled, done := 0, 0
		for _, times := range seen {
			doubled += times - 1
		}
		for _, at := range stored {
			done += int(at)
		}
		t.Logf("%d seen, %d doubled, %d stored as done", len(seen), doubled, done)
		if done < n/2 {
			t.Error("hardly a commit was seen")
		}
		// A member that leaves has one message in hand, which is not done.
		if doubled > 60 {
			t.Errorf("%d doubled", doubled)
		}
	})
}

// A batch that inflates to 1 GiB ends the Stream once, with its place. Ranging again
// goes on after it, and it takes no more memory than a large batch may.
func TestFault_X3_Bomb(t *testing.T) {
	for name, pack := range map[string]func(testing.TB) *bomb{
		"gzip": gzipBomb, "lz4": lz4Bomb, "snappy": snappyBomb, "snappy of Java": javaSnappyBomb,
		"zstd":            func(t testing.TB) *bomb { return zstdBomb(t, 0) },
		"zstd, size told": func(t testing.TB) *bomb { return zstdBomb(t, bombSize) },
	} {
		t.Run(name, func(t *testing.T) {
			b := pack(t)
			t.Logf("%d bytes inflate to %d", len(b.packed), bombSize)
			cfg := kafkatest.Config{MaxMessageBytes: 20 << 20}
			for _, group := range withAndWithout {
				// On the real clock: see TestFault_B11_MessageTooLarge.
				t.Run("group="+group, func(t *testing.T) { meetBomb(t, newRig(t, cfg), group, b) })
			}
		})
	}
}

// drop writes a batch that is b.
func (r *rig) drop(t *testing.T, b *bomb) {
	t.Helper()
	client, err := r.Client(kgo.WithCompressor(b), kgo.ProducerBatchMaxBytes(20<<20), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	// The engine takes what its compressor has made of a batch if that is smaller.
	err = client.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Value: make([]byte, len(b.packed))}).FirstErr()
	client.Close()
	if err != nil {
		t.Fatal(err)
	}
}

func meetBomb(t *testing.T, r *rig, group string, b *bomb) {
	r.raw(t, topic, 0, "before")
	r.drop(t, b)
	r.raw(t, topic, 0, "after")
	runtime.GC() // twice empties the engine's pools, where a buffer of such a size may be
	runtime.GC()
	copies := 4 * uint64(len(b.packed)) // the broker makes two for a fetch, and two fetches bring the batch
	holding(t, 64<<20+copies, func() {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID, c.FromBeginning = group, true })
		got, err := ranged(t, con, 2, time.Minute)
		if len(got) != 1 || string(got[0].Value) != "before" {
			t.Errorf("%d messages before the batch", len(got))
		}
		wantKinds(t, err, is(gracedb.ErrConsumer), is(gracedb.ErrConnection), topic, "partition 0 offset 1", "inflates")
		t.Log(err)
		got, err = ranged(t, con, 1, time.Minute)
		if err != nil || len(got) != 1 || got[0].Offset != 2 || string(got[0].Value) != "after" {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// holding runs f, on the real clock, and checks how much of the heap is held at any time:
// what the collector, which runs all along, finds in use. What it has not collected yet, on
// a busy machine, is not held.
func holding(t *testing.T, bound uint64, f func()) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	live := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	runtime.GC()
	before := live()
	most := before
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
				most = max(most, live())
			}
		}
	}()
	f()
	close(stop)
	<-ended
	if n := most - before; n > bound {
		t.Errorf("%d MiB held", n>>20)
	} else {
		t.Logf("%d MiB held", n>>20)
	}
}

// bombSize is what bombs inflate to.
const bombSize = 1 << 30

// A bomb is a Compressor of kgo that makes of each batch the same: one record of zeros.
type bomb struct {
	packed []byte
	codec  kgo.CompressionCodecType
}

// Compress is kgo's Compressor.
func (b *bomb) Compress(*bytes.Buffer, []byte, ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return b.packed, b.codec
}

// bombHead is what the record begins with. All behind it are zeros: the value, and the
// number of headers.
func bombHead() []byte {
	head := []byte{0, 0, 0, 1} // attributes, two deltas, no key
	head = binary.AppendVarint(head, bombSize-15)
	return append(binary.AppendVarint(nil, bombSize-5), head...)
}

// write writes the record, piece by piece.
func (b *bomb) write(t testing.TB, w io.WriteCloser) {
	t.Helper()
	piece := make([]byte, 1<<20)
	copy(piece, bombHead())
	for range bombSize / len(piece) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		clear(piece[:len(bombHead())])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func gzipBomb(t testing.TB) *bomb {
	b := &bomb{codec: kgo.CodecGzip}
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, w)
	b.packed = buf.Bytes()
	return b
}

// zstdBomb tells its size beforehand if that is not zero.
func zstdBomb(t testing.TB, size int64) *bomb {
	b := &bomb{codec: kgo.CodecZstd}
	var buf bytes.Buffer
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	if w.Reset(&buf); size > 0 {
		w.ResetContentSize(&buf, size)
	}
	b.write(t, w)
	b.packed = buf.Bytes()
	return b
}

// lz4Bomb repeats a block of zeros: blocks are independent of each other, and what is
// too large is found out before the checksum at the end.
func lz4Bomb(t testing.TB) *bomb {
	const head, tail = 7, 8
	first, zeros := compressed(t, kgo.Lz4Compression(), bombHead()), compressed(t, kgo.Lz4Compression(), nil)
	packed := first[:len(first)-tail]
	for range bombSize/blockSize - 1 {
		packed = append(packed, zeros[head:len(zeros)-tail]...)
	}
	return &bomb{codec: kgo.CodecLz4, packed: append(packed, zeros[len(zeros)-tail:]...)}
}

// snappyBomb only says that it is so large: zeros are a twentieth of their size in
// snappy, which does not fit into a fetch. But the size is told before them.
func snappyBomb(t testing.TB) *bomb {
	some := compressed(t, kgo.SnappyCompression(), bombHead())
	_, n := binary.Uvarint(some)
	return &bomb{codec: kgo.CodecSnappy, packed: append(binary.AppendUvarint(nil, bombSize), some[n:]...)}
}

// javaSnappyBomb is the same in the frame that Java's clients put around it.
func javaSnappyBomb(t testing.TB) *bomb {
	b := snappyBomb(t)
	packed := append([]byte("\x82SNAPPY\x00"), 0, 0, 0, 1, 0, 0, 0, 1)
	packed = binary.BigEndian.AppendUint32(packed, uint32(len(b.packed)))
	b.packed = append(packed, b.packed...)
	return b
}

// blockSize is the size of the largest block of lz4.
const blockSize = 4 << 20

// compressed compresses a block that begins with head and is zeros behind it.
func compressed(t testing.TB, codec kgo.CompressionCodec, head []byte) []byte {
	t.Helper()
	c, err := kgo.DefaultCompressor(codec)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, blockSize)
	copy(block, head)
	packed, _ := c.Compress(new(bytes.Buffer), block)
	return packed
}

// What is in a message is its own affair: it is delivered, and its decoders say
// what is wrong with it and where it is.
func TestFault_X4_NotJSON(t *testing.T) {
	const upload = `{"type":"upload","gracedb_server":"https://gracedb-test.ligo.org/api/","pipeline":"p",` +
		`"gracedb_upload":true,"eventFile":["coinc.xml","aGk="]}`
	with := func(members string) string { return strings.Replace(upload, "{", "{"+members+",", 1) }
	nested := func(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }
	cases := []struct {
		value           string
		decodes, upload bool
	}{
		{upload, true, true},
		{" \r\n" + upload + "\t ", true, true},
		{with(`"a":null`), true, true},
		{with(`"a":` + nested(63)), true, true},
		// JSON, but no upload.
		{"null", true, false},
		{"1", true, false},
		{`"x"`, true, false},
		{"[1]", true, false},
		{"{}", true, false},
		{nested(64), true, false},
		{`{"type":"upload"}`, true, false},
		{`{"type":null}`, true, false},
		{strings.Replace(upload, `"p"`, "null", 1), true, false},
		{strings.Replace(upload, "true", `"true"`, 1), true, false},
		{strings.Replace(upload, `"aGk="`, "null", 1), true, false},
		{with(`"labels":{}`), true, false},
		// No JSON.
		{"", false, false},
		{" ", false, false},
		{"{", false, false},
		{"\x00", false, false},
		{"\xff\xfe", false, false},
		{"\xef\xbb\xbf" + upload, false, false},
		{upload[:len(upload)-1], false, false},
		{upload + "x", false, false},
		{upload + upload, false, false},
		{with(""), false, false},
		{strings.ReplaceAll(upload, `"`, "'"), false, false},
		{with(`"a":NaN`), false, false},
		{with(`"a":01`), false, false},
		{with(`"a":"\x01"`), false, false},
		// JSON to most, but not the same to all.
		{`{"a":1,"a":2}`, false, false},
		{with(`"type":"upload"`), false, false},
		{with(`"\u0074ype":"upload"`), false, false},
		{with(`"a":{"b":1,"b":2}`), false, false},
		{with("\"a\":\"\xff\""), false, false},
		{with("\"\xff\":1"), false, false},
		{with(`"a":"\ud800"`), false, false},
		{strings.Replace(upload, "aGk=", "\xff", 1), false, false},
		{with(`"a":` + nested(64)), false, false},
		{nested(65), false, false},
		{strings.Repeat("[", 20_000), false, false},
	}
	both(t, kafkatest.Config{}, func(t *testing.T, r *rig, group string) {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
		deliver := func(value string) gracedb.Message {
			r.raw(t, topic, 0, value)
			got, err := take(t, con, 1)
			if err != nil || string(got[0].Value) != value {
				t.Fatalf("%.20q: %v, %v", value, got, err)
			}
			return got[0]
		}
		refuses := func(m gracedb.Message, by string, refused bool, err error, is ...error) {
			t.Helper()
			switch {
			case refused:
				if err == nil {
					t.Errorf("%s takes %.200q", by, m.Value)
					return
				}
				wantKinds(t, err, is, nil, topic, "partition 0", fmt.Sprint("offset ", m.Offset, ":"))
			case err != nil:
				t.Errorf("%s of %.200q: %v", by, m.Value, err)
			}
		}
		for _, c := range cases {
			m := deliver(c.value)
			var v any
			refuses(m, "Decode", !c.decodes, m.Decode(&v))
			u, err := m.Upload()
			refuses(m, "Upload", !c.upload, err)
			if errors.Is(err, gracedb.ErrNotUpload) {
				t.Errorf("%.200q is taken for a message of another type: %v", c.value, err)
			}
			if c.upload && string(u.Data) != "hi" {
				t.Errorf("Upload of %.200q: %+v", c.value, u)
			}
		}
		// JSON that is not what its reader is for.
		m := deliver(upload)
		var v struct{ Type int }
		refuses(m, "Decode", true, m.Decode(&v))
		m = deliver(`{"type":"ping"}`)
		_, err := m.Upload()
		refuses(m, "Upload", true, err, gracedb.ErrNotUpload)
	})
}

// A handler that is slower than the group's session stays a member.
func TestFault_F8_SlowHandler(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
		r.raw(t, topic, 0, numbers(0, 4)...)
		var got []gracedb.Message
		for m, err := range con.Stream(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m)
			time.Sleep(10 * time.Minute)
			if len(got) == 4 {
				break
			}
		}
		wantOffsets(t, got, 0, 4)
		if err := con.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if err := con.Close(); err != nil {
			t.Error(err)
		}
		r.raw(t, topic, 0, "4")
		next, err := take(t, r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" }), 1)
		if err != nil || next[0].Offset != 4 {
			t.Errorf("%v, %v", next, err)
		}
	})
}

// A handler's panic reaches the caller, and its message comes again.
func TestFault_F9_HandlerPanics(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		r.raw(t, topic, 0, numbers(0, 4)...)
		for range 3 {
			func() {
				con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID, c.FromBeginning = "g", true })
				defer func() {
					if v := recover(); v != "at 2" {
						t.Errorf("recovered %v", v)
					}
				}()
				defer func() { _ = con.Close() }()
				for m := range con.Stream(t.Context()) {
					if m.Offset == 2 {
						panic("at 2")
					}
				}
			}()
		}
		got, err := take(t, r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" }), 2)
		if err != nil {
			t.Fatal(err)
		}
		wantOffsets(t, got, 2, 4)
	})
}

// Commit, with something to commit, on a broker that does not answer.
func TestFault_N7_CommitPastCtx(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
		r.raw(t, topic, 0, numbers(0, 4)...)
		if _, err := take(t, con, 2); err != nil {
			t.Fatal(err)
		}
		r.Mute(kafkatest.MuteRequests)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			start := time.Now()
			err := con.Commit(ctx)
			cancel()
			within(t, "Commit", time.Since(start), 400*time.Millisecond)
			wantKinds(t, err, is(gracedb.ErrConnection, gracedb.ErrConsumer, context.DeadlineExceeded), nil, r.Addrs()[0])
		}
		start := time.Now()
		if err := con.Close(); err != nil {
			t.Error(err)
		}
		within(t, "Close", time.Since(start), 3*time.Second)
	})
}

// A killed member's partitions move within 15 seconds.
func TestFault_B20_MoveToTheNextMember(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		// A client whose connections are cut for good is a dead one.
		var dead atomic.Bool
		first := r.consumer(t, func(c *gracedb.ConsumerConfig) {
			c.GroupID = "g"
			c.Cluster.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dead.Load() {
					return nil, errors.New("dead")
				}
				return r.Dial(ctx, network, addr)
			}
		})
		r.raw(t, topic, 0, numbers(0, 5)...)
		if _, err := take(t, first, 3); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond) // what is done is stored
		dead.Store(true)
		r.Drop(kafkatest.RST)
		start := time.Now()
		second := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = "g" })
		got, err := take(t, second, 3)
		if err != nil {
			t.Fatal(err)
		}
		within(t, "taking over", time.Since(start), 15*time.Second)
		t.Logf("taken over after %v", time.Since(start))
		wantOffsets(t, got, 2, 5)
	})
}
