package gracedb

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/consume"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/gracedbapi"
	"github.com/gracedb-go/gracedb/internal/savefile"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// A ConsumerConfig configures a Consumer.
//
// Whatever brokers send, a Consumer holds at most 64 MiB beyond the largest message that it
// accepts, for all its partitions together. It accepts batches that inflate to 15 MiB and,
// with what their messages take once they are decoded (some 200 bytes each, and 40 for each
// header), to 32 MiB, whether they are compressed or not: a batch of 15 MiB, or of 180,000
// messages. One that is larger is told with its place and passed over. What does not fit yet
// is fetched again when there is room. Beside that each broker may have an answer on its way,
// which is of 5 MiB, or of one batch if that is larger, and never of more than 21 MiB.
//
// Messages of a transaction are read once it is committed, as by the Python package, and not at
// all if it is aborted. One that hangs, neither committed nor aborted, holds back all that is
// behind it in its partitions, until its timeout has passed (the broker's
// transaction.max.timeout.ms, 15 minutes, at most) or an administrator has aborted it
// (kafka-transactions.sh). kgo.FetchIsolationLevel(kgo.ReadUncommitted()) in Cluster.Opts reads
// all messages as they come.
//
// A batch that cannot be read is tried again, with pauses of 100 ms to 30 s: Poll says so once a
// minute, and Check while it lasts. Poll says that it is lost, and goes on behind it when it is
// called again, if the batch does not decode although its checksum is right, or if its checksum
// has been wrong for a minute.
type ConsumerConfig struct {
	Cluster Cluster  // how to reach the brokers
	Topics  []string // pipeline or full topic names; Subscribe adds more; if empty, Poll waits for it
	// GroupID resumes the position of a consumer group. If empty, the Consumer
	// belongs to no group and leaves nothing behind.
	GroupID string
	// FromBeginning starts at the oldest message, unless the group has a
	// position, instead of at the next.
	FromBeginning bool
	// Since starts at the first message whose Time is not before it, instead of at
	// the next one; if there is none, at the next. In a group it does so only where the
	// group has no position: Seek moves one. Messages behind the first are read whatever
	// their Time is, as producers set it. It excludes FromBeginning (ErrConfig), and holds for
	// Subscribe, too.
	Since time.Time
	// Lazy starts without a token or a broker.
	Lazy bool
}

// A Consumer reads messages. Close, Check and Lag may be called at any time; other
// methods from one goroutine at a time.
type Consumer struct {
	core *consume.Consumer // all that it does, with records of kgo instead of messages
}

// NewConsumer returns a Consumer that is in position: no message published
// after it returns is missed. A topic that does not exist, or may not be read, is
// ErrTopic, unless cfg.Lazy; later partitions are picked up from their first
// message, and those that no broker leads from where they ended, when one does. It
// waits as NewProducer does.
//
// Its errors are ErrConfig, or ErrConsumer with ErrToken, ErrAuthentication,
// ErrConnection or ErrTopic. The Consumer must be closed.
func NewConsumer(ctx context.Context, cfg ConsumerConfig) (*Consumer, error) {
	at, err := cfg.Cluster.config("kafka.consume")
	if err != nil {
		return nil, err
	}
	core, err := consume.New(ctx, consume.Config{
		Cluster: at, Topics: cfg.Topics, GroupID: cfg.GroupID,
		FromBeginning: cfg.FromBeginning, Since: cfg.Since, Lazy: cfg.Lazy,
	})
	if err != nil {
		return nil, err
	}
	return &Consumer{core}, nil
}

// made returns an error for a Consumer that no constructor made, or nil.
func (c *Consumer) made() error {
	if c == nil || c.core == nil {
		return errs.New([]error{errs.Config, errs.Consumer}, "kafka: this Consumer was not made by NewConsumer")
	}
	return nil
}

// Subscribe adds topics, positioned as by NewConsumer.
func (c *Consumer) Subscribe(ctx context.Context, topics ...string) error {
	if err := c.made(); err != nil {
		return err
	}
	return c.core.Subscribe(ctx, topics...)
}

// Poll waits for the next message, or for ctx, whose error it returns as is and
// which is looked at first. Lost connections heal unseen; a refused token (after
// 5 seconds) or topic is reported once for as long as it lasts, and so is a gap
// where the broker has lost messages, or a topic was deleted and made anew. What keeps a group from being used is reported
// when it begins, and once a minute while it lasts.
func (c *Consumer) Poll(ctx context.Context) (Message, error) {
	if err := c.made(); err != nil {
		return Message{}, err
	}
	r, err := c.core.Poll(ctx)
	if err != nil {
		return Message{}, err
	}
	return received(r), nil
}

// received returns r as a Message. The value is not copied.
func received(r *kgo.Record) Message {
	m := Message{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
		Key: r.Key, Value: r.Value, Time: r.Timestamp,
	}
	if len(r.Headers) > 0 {
		m.Headers = make([]Header, len(r.Headers))
		for i, h := range r.Headers {
			m.Headers[i] = Header(h)
		}
	}
	return m
}

// Stream yields messages until ctx is done, which ends it silently, or until a
// failure, which is the last pair. Ranging again resumes.
//
// After a loop that ended by itself, without a failure, ctx.Err() says whether the program was
// stopped ([context.Canceled], and [context.Cause] by what) or its time was over
// ([context.DeadlineExceeded]). That no message came is no error: count them, and where none is
// odd, ask Check with a ctx that is not done: nil means that the topics were silent, and an
// error says what kept messages away.
func (c *Consumer) Stream(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := c.Poll(ctx)
			switch {
			case err != nil && ctx.Err() != nil && err == ctx.Err(): //nolint:errorlint // Poll returns it as is
				return
			case err != nil:
				yield(Message{}, err)
				return
			case !yield(m, nil):
				return
			}
		}
	}
}

// Check makes a round trip to the broker, to tell a silent topic from a dead
// connection, a refused token or a partition that no broker leads, and tells of what
// keeps the Consumer from reading and lasts, such as a group that it may not use. It
// waits until ctx ends.
func (c *Consumer) Check(ctx context.Context) error {
	if err := c.made(); err != nil {
		return err
	}
	return c.core.Check(ctx)
}

// Commit stores the position after the last message returned, if there is a
// group. Without it, a message is marked done when the next is asked for, and
// marks are stored within a second, at a rebalance and by Close.
func (c *Consumer) Commit(ctx context.Context) error {
	if err := c.made(); err != nil {
		return err
	}
	return c.core.Commit(ctx)
}

// Seek moves every partition to the first message whose Time is not before t, or to the
// end if there is none; or to the oldest message if t is zero. In a group it stores that as the
// position, so that a Consumer that starts later begins there, too. What was fetched and
// not returned yet is dropped; the message at hand counts as done. It is called by the
// goroutine that polls, and waits until ctx ends, also for this member to join its group.
//
// Other members of the group read on where they are, and store that: stop them first. What is
// stored then holds for their partitions, too.
//
// It fails with ErrTopic, or with ErrConnection if no broker leads a partition, and then nothing has
// moved. If the position cannot be stored, the Consumer has moved all the same: call Seek again.
func (c *Consumer) Seek(ctx context.Context, t time.Time) error {
	if err := c.made(); err != nil {
		return err
	}
	return c.core.Seek(ctx, t)
}

// Lag asks the brokers how far the Consumer is behind: one element for each partition that
// it reads, by topic and partition. In a group these are the partitions that this member has.
// It may be called at any time, and waits until ctx ends.
func (c *Consumer) Lag(ctx context.Context) ([]PartitionLag, error) {
	if err := c.made(); err != nil {
		return nil, err
	}
	lags, err := c.core.Lag(ctx)
	if err != nil {
		return nil, err
	}
	of := make([]PartitionLag, len(lags))
	for i, l := range lags {
		of[i] = PartitionLag(l)
	}
	return of, nil
}

// A PartitionLag is how far a Consumer is behind in one partition: End - Position offsets. Not
// each offset is a message: transactions and compaction leave gaps.
type PartitionLag struct {
	Topic     string // full topic name
	Partition int32  // of the topic, from 0
	Position  int64  // the next offset that will be returned; -1 if not known yet
	End       int64  // the offset after the last message that may be read, which is before an open transaction; -1 if no broker leads the partition
}

// Close commits all but the last message returned (call Commit first to include
// it: a deferred Close also runs in a panic), leaves the group and releases
// everything, in at most 3 seconds. Closing again is harmless.
func (c *Consumer) Close() error {
	if err := c.made(); err != nil {
		return err
	}
	return c.core.Close()
}

// A Message is one Kafka record.
type Message struct {
	// Topic is a pipeline name such as "gstlal", or, with a dot, a full topic
	// name of the instance; a received Message has the full name, such as
	// "gracedb-dev.gstlal".
	Topic     string
	Partition int32  // as acknowledged or received
	Offset    int64  // as acknowledged or received
	Key       []byte // messages with one key are on one partition, in order; may be empty
	Value     []byte // what is sent; received, it is the caller's to keep
	// Headers are at most 1,000: Produce refuses more with ErrTooLarge, and a Consumer
	// passes over a message with more. Each counts as 10 bytes and what it holds.
	Headers []Header
	Time    time.Time // record timestamp; if zero when produced, now
}

// String returns m in one line, for logs: topic, partition, offset, the key (quoted, and cut),
// and the sizes and time, without the value's bytes.
func (m Message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%d@%d", cmp.Or(errs.Clean(m.Topic), "(no topic)"), m.Partition, m.Offset)
	if len(m.Key) > 0 {
		fmt.Fprintf(&b, " key %q", errs.CleanN(string(m.Key[:min(len(m.Key), maxShownKey+1)]), maxShownKey))
	}
	if m.Value != nil {
		fmt.Fprintf(&b, " %d bytes", len(m.Value))
	}
	if len(m.Headers) > 0 {
		fmt.Fprintf(&b, " %d headers", len(m.Headers))
	}
	if !m.Time.IsZero() {
		b.WriteString(" " + m.Time.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	return b.String()
}

// maxShownKey is how many bytes of a key Message.String shows.
const maxShownKey = 64

// A Header is one Kafka record header.
type Header struct {
	Key   string // its name; several headers may have one
	Value []byte // any bytes
}

// JSONMessage returns a Message for topic whose Value is the JSON encoding of v,
// as by [json.Marshal].
func JSONMessage(topic string, v any) (Message, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return Message{}, errs.New([]error{err}, "message for topic %q: cannot encode %T: %s", errs.Clean(topic), v, errs.Reason(err))
	}
	return Message{Topic: topic, Value: value}, nil
}

// Decode decodes the JSON in m.Value into v, as [json.Unmarshal] does, but
// stricter: two members of one name, invalid UTF-8 and more than 64 levels of
// nesting are errors. The error names m's topic, partition and offset; m.Value is
// there for what is not JSON. After an error v may be partly set.
func (m Message) Decode(v any) error {
	if err := wire.CheckDepth(m.Value); err != nil {
		return m.invalid(err)
	}
	err := jsonv2.Unmarshal(m.Value, v, jsonv1.DefaultOptionsV1(),
		jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false))
	if err != nil {
		return m.invalid(err)
	}
	return nil
}

// Upload decodes the event that m carries. It is ErrNotUpload if m is of another
// type, such as a ping. Any other error says what is wrong with m, naming its topic,
// partition and offset: the value is not JSON, or has a member twice; a member that
// every upload has (type, pipeline, eventFile) is missing, or one is of another type;
// the graceid is none; the file is damaged. The Upload shares no memory with m.
//
// The file is sent in base64 or, by some producers, as text. If the message has its
// content_id, that says which, and contents with another are an error. If it has not,
// what decodes is taken for base64, and what does not decode but has hardly a character
// that is not base64's is an error: it was damaged.
func (m Message) Upload() (Upload, error) {
	u, err := wire.Decode(m.Value)
	if err != nil {
		return Upload{}, m.invalid(err)
	}
	return Upload(u), nil
}

// invalid returns the error of a message whose value is not what it should be.
func (m Message) invalid(err error) error {
	return errs.New([]error{err}, "%s: %s", m.where(), errs.Reason(err))
}

// where says which message an error is about.
func (m Message) where() string {
	if m.Topic == "" {
		return "message"
	}
	return fmt.Sprintf("message in topic %s, partition %d, offset %d", errs.Clean(m.Topic), m.Partition, m.Offset)
}

// An Upload is an event as it travels over Kafka.
type Upload struct {
	Server         string   // GraceDB service URL, such as "https://gracedb-test.ligo.org/api/"; empty if the message does not say
	GraceID        string   // reserved graceid: letters and digits, safe in a file name; empty if PublishOnly
	Submitter      string   // from the reservation; empty if PublishOnly
	Pipeline       string   // in the case that the submitter wrote it, such as "MLy"
	PublishOnly    bool     // not to be uploaded to GraceDB (gracedb_upload is false)
	SkipSupervisor bool     // GraceDB's supervisor is asked to ignore the message
	Labels         []string // applied to the event when it is uploaded
	Filename       string   // as sent: it may hold directories, and is not to be trusted as a path
	Data           []byte   // contents of the file
	ContentID      string   // UUID of the first 16 bytes of Data's SHA-256, which has been compared; empty if it was not sent
	// Time is when the producer made the message, to the microsecond; zero if it
	// does not say.
	Time time.Time
	// Group, Search, Offline and ReplayID are empty in messages of producers that
	// do not send them.
	Group, Search string
	Offline       bool   // found in an offline search
	ReplayID      string // as Event's
	// Extra holds the members this package does not know, undecoded.
	Extra map[string]json.RawMessage
}

// ID returns GraceID or, for a message of PublishOnly, which has none, the content id of Data:
// what two messages with one event have in common, and those with two events have not.
func (u Upload) ID() string {
	return cmp.Or(u.GraceID, strings.ToLower(u.ContentID), wire.ContentID(u.Data))
}

// Save writes Data to a new file in dir, which must exist, and returns its path. The name is
// [Upload.ID], a hyphen, and the last element of Filename, such as "G1001-coinc.xml"; anything
// in it but letters of ASCII, digits and ._+=@,- is an underscore, and of a long one the end
// stays. The file appears whole or not at all, and is on the disk when Save returns.
//
// One of that name with the same content is success: to save a message again does no harm. With
// another content, or if it is a link or no file, it is left as it is, and the error matches
// [fs.ErrExist]. A program that is killed meanwhile may leave a file ".gracedb-….tmp" behind.
// Save may be called from several goroutines and programs at once.
func (u Upload) Save(dir string) (string, error) {
	if u.GraceID != "" {
		if err := gracedbapi.CheckGraceID(u.GraceID); err != nil {
			return "", err
		}
	}
	return savefile.Save(dir, savefile.Name(u.ID(), u.Filename), u.Data)
}
