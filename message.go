package gracedb

import (
	"encoding/json"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// A Message is one Kafka record.
type Message struct {
	// Topic is a pipeline name such as "gstlal", or, with a dot, a full topic
	// name of the instance; a received Message has the full name, such as
	// "gracedb-dev.gstlal".
	Topic     string
	Partition int32 // as acknowledged or received
	Offset    int64 // as acknowledged or received
	Key       []byte
	Value     []byte
	// Headers are at most 1,000: Produce refuses more with ErrTooLarge, and a Consumer
	// passes over a message with more. Each counts as 10 bytes and what it holds.
	Headers []Header
	Time    time.Time // record timestamp; if zero when produced, now
}

// A Header is one Kafka record header.
type Header struct {
	Key   string
	Value []byte
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
