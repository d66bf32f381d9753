package kafkatest

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A batch with a record that the topic does not take is refused as a whole, and the
// records are named, with Kafka's texts. The order of the producer is as if it had not
// been sent.
func TestRecordErrors(t *testing.T) {
	const hour = 3_600_000
	for _, tt := range []struct {
		name, config, value string
		sent                func(now int64) sent
		want                *kerr.Error
		message             func(now int64) string
		records             map[int32]func(now int64) string
	}{
		{
			"without key", "cleanup.policy", "compact",
			func(int64) sent { return sent{producer: 7, records: 3, keyless: []int{1}} },
			kerr.InvalidRecord,
			func(int64) string {
				return "One or more records have been rejected due to 1 record errors in total, and only showing the first three errors at most: " +
					"[RecordError(batchIndex=1, message='Compacted topic cannot accept message without key in topic partition gracedb-test.test-0')]"
			},
			map[int32]func(int64) string{1: keyless},
		},
		{
			"many without key, compressed", "cleanup.policy", "compact,delete",
			func(int64) sent { return sent{producer: 7, records: 9, keyless: []int{0, 2, 4, 6}, codec: 1} },
			kerr.InvalidRecord,
			nil,
			map[int32]func(int64) string{0: keyless, 2: keyless, 4: keyless, 6: keyless},
		},
		{"with a key", "cleanup.policy", "compact", func(int64) sent { return one(7, 0, 0) }, nil, nil, nil},
		{"without key, not compacted", "cleanup.policy", "delete", func(int64) sent { return sent{producer: 7, records: 1, keyless: []int{0}} }, nil, nil, nil},
		{
			"too far ahead", "", "",
			func(now int64) sent { return sent{producer: 7, records: 2, times: []int64{now, now + hour + 1}} },
			kerr.InvalidTimestamp,
			func(int64) string { return "One or more records have been rejected due to invalid timestamp" },
			map[int32]func(int64) string{1: func(now int64) string {
				return fmt.Sprintf("Timestamp %d of message with offset 1 is out of range. The timestamp should be within [%d, %d]",
					now+hour+1, now-math.MaxInt64, now+hour)
			}},
		},
		{"an hour ahead", "", "", func(now int64) sent { return sent{producer: 7, records: 1, times: []int64{now + hour}} }, nil, nil, nil},
		{"55 years behind", "", "", func(int64) sent { return sent{producer: 7, records: 1, times: []int64{1}} }, nil, nil, nil},
		{
			"a second ahead", "message.timestamp.after.max.ms", "999",
			func(now int64) sent { return sent{producer: 7, records: 1, times: []int64{now + 1000}} },
			kerr.InvalidTimestamp, nil,
			map[int32]func(int64) string{0: nil},
		},
		{
			"a second behind", "message.timestamp.before.max.ms", "999",
			func(now int64) sent { return sent{producer: 7, records: 1, times: []int64{now - 1000}} },
			kerr.InvalidTimestamp, nil,
			map[int32]func(int64) string{0: nil},
		},
		{"ahead, by the broker's time", "message.timestamp.type", "LogAppendTime", func(now int64) sent { return sent{producer: 7, records: 1, times: []int64{now * 2}} }, nil, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
				remake(t, c, tt.config, tt.value)
				now := time.Now().UnixMilli()
				got := tt.sent(now).to(t, c, cl, 0)
				if tt.want == nil {
					wantCode(t, "taken", got, nil, 0)
					return
				}
				wantCode(t, "refused", got, tt.want, -1)
				if got.ErrorMessage == nil || tt.message != nil && *got.ErrorMessage != tt.message(now) {
					t.Errorf("message %s", text(got.ErrorMessage))
				}
				if len(got.ErrorRecords) != len(tt.records) {
					t.Errorf("%d records are named", len(got.ErrorRecords))
				}
				for _, r := range got.ErrorRecords {
					want, ok := tt.records[r.RelativeOffset]
					if !ok || r.ErrorMessage == nil || want != nil && *r.ErrorMessage != want(now) {
						t.Errorf("record %d: %s", r.RelativeOffset, text(r.ErrorMessage))
					}
				}
				if n := len(values(t, c, topic)); n != 0 {
					t.Errorf("%d records in the log", n)
				}
				wantCode(t, "the first of the producer", sent{producer: 7, records: 1}.to(t, c, cl, 0), nil, 0)
			})
		})
	}
}

func keyless(int64) string {
	return "Compacted topic cannot accept message without key in topic partition gracedb-test.test-0"
}

func text(s *string) string {
	if s == nil {
		return "missing"
	}
	return *s
}

// remake makes the topic anew with one more setting.
func remake(t testing.TB, c *Cluster, name, value string) {
	t.Helper()
	if err := c.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	configs := map[string]string{name: value}
	if name == "" {
		configs = nil
	}
	if err := c.CreateTopic(topic, 1, configs); err != nil {
		t.Fatal(err)
	}
}

// Before 4.0 a broker takes any time.
func TestOldBrokersTakeAnyTime(t *testing.T) {
	bubble(t, Config{Versions: kversion.V3_9_0()}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		ahead := sent{producer: 7, records: 1, times: []int64{time.Now().Add(2 * time.Hour).UnixMilli()}}
		wantCode(t, "2 h ahead", ahead.to(t, c, cl, 0), nil, 1)
	})
}

// The time of an append is told and kept where the topic wants it; of a duplicate, the
// time in it is told on every topic.
func TestAppendTime(t *testing.T) {
	for _, kind := range []string{"CreateTime", "LogAppendTime"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
				remake(t, c, "message.timestamp.type", kind)
				now := time.Now().UnixMilli()
				made := now - 5000
				batch := sent{producer: 7, records: 2, times: []int64{made, made}}
				request := batch.request(t, c)
				binary.BigEndian.PutUint64(request.Topics[0].Partitions[0].Records[batchMax:], uint64(made))
				seal(request.Topics[0].Partitions[0].Records)
				first := ask(t, cl, 0, request).Topics[0].Partitions[0]
				time.Sleep(time.Minute)
				again := ask(t, cl, 0, request).Topics[0].Partitions[0]
				wantCode(t, "first", first, nil, 0)
				wantCode(t, "again", again, nil, 0)
				wantFirst, wantAgain, wantRecord := int64(-1), made, made
				if kind == "LogAppendTime" {
					wantFirst, wantAgain, wantRecord = now, now, now
				}
				if first.LogAppendTime != wantFirst || again.LogAppendTime != wantAgain {
					t.Errorf("appended at %d, again at %d, want %d, %d", first.LogAppendTime, again.LogAppendTime, wantFirst, wantAgain)
				}
				records, err := c.Records(topic)
				if err != nil || len(records) != 2 {
					t.Fatal(len(records), err)
				}
				for _, r := range records {
					if got := r.Timestamp.UnixMilli(); got != wantRecord {
						t.Errorf("the record is of %d, want %d", got, wantRecord)
					}
				}
			})
		})
	}
}

// Where the log is uncompressed the limit counts what a batch is inflated, too.
func TestUncompressedTopic(t *testing.T) {
	bubble(t, Config{MaxMessageBytes: 1_048_588}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		large := sent{producer: 7, records: 1, value: make([]byte, 1_100_000), codec: 1}
		wantCode(t, "by the producer's codec", large.to(t, c, cl, 0), nil, 1)
		remake(t, c, "compression.type", "uncompressed")
		wantCode(t, "uncompressed", large.to(t, c, cl, 0), kerr.MessageTooLarge, -1)
		small := large
		small.value = make([]byte, 1_000_000)
		wantCode(t, "uncompressed, smaller", small.to(t, c, cl, 0), nil, 0)
		remake(t, c, "compression.type", "gzip")
		wantCode(t, "gzip", large.to(t, c, cl, 0), nil, 0)
	})
}

// What an encoder can get wrong.
func TestMalformedBatches(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		put := func(at int, v ...byte) func([]byte) []byte {
			return func(b []byte) []byte { return seal(append(append(b[:at:at], v...), b[at+len(v):]...)) }
		}
		for _, tt := range []struct {
			name   string
			change func([]byte) []byte
			want   *kerr.Error
		}{
			{"short", func(b []byte) []byte { return b[:40] }, kerr.InvalidRecord},
			{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, kerr.InvalidRecord},
			{"two batches", func(b []byte) []byte { return append(b, b...) }, kerr.InvalidRecord},
			{"checksum", func(b []byte) []byte { b[batchChecksum]++; return b }, kerr.CorruptMessage},
			{"magic", put(batchMagic, 1), kerr.InvalidRecord},
			{"first offset", put(7, 1), kerr.InvalidRecord},
			{"offset delta", put(batchDelta+3, 7), kerr.InvalidRecord},
			{"count", put(batchCount+3, 3), kerr.InvalidRecord},
			{"fewer records than said", func(b []byte) []byte { b[batchDelta+3] = 2; return put(batchCount+3, 3)(b) }, kerr.InvalidRecord},
			{"more records than said", func(b []byte) []byte { b[batchDelta+3] = 0; return put(batchCount+3, 1)(b) }, kerr.InvalidRecord},
			{"control batch", put(batchAttrs+1, controlBit), kerr.InvalidRecord},
			{"not compressed", put(batchAttrs+1, 4), kerr.CorruptMessage},
			{"length of a record", put(batchLeast, 0x7e), kerr.InvalidRecord},
			{"offset of a record", put(batchLeast+3, 2), kerr.InvalidRecord},
		} {
			req := sent{producer: 7, records: 2}.request(t, c)
			p := &req.Topics[0].Partitions[0]
			p.Records = tt.change(p.Records)
			wantCode(t, tt.name, ask(t, cl, 0, req).Topics[0].Partitions[0], tt.want, -1)
		}
		if n := len(values(t, c, topic)); n != 1 {
			t.Errorf("%d records in the log", n)
		}
		wantCode(t, "as it was", sent{producer: 7, records: 2}.to(t, c, cl, 0), nil, 1)
	})
}
