//go:build unix

package interop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/samples"
)

// A peerMessage is what the peer's poll and stream return.
type peerMessage struct {
	Topic     string
	Partition int32
	Offset    int64
	Key       *string
	Value     json.RawMessage
	Timestamp int64 // ms
	Headers   map[string]string
}

// place says where a message lies, for the peer to find it.
func place(m gracedb.Message) []any { return []any{m.Topic, m.Partition, m.Offset} }

// A published is an event that went out by PublishEvent.
type published struct {
	event   gracedb.Event
	options gracedb.PublishOptions
	receipt gracedb.Receipt
}

// publishSamples publishes every sample event, with options that differ.
func publishSamples(ctx context.Context, t *testing.T, s *setting) []published {
	t.Helper()
	s.create(ctx, t, 1, "gstlal", "pycbc", "cwb", "aframe")
	client, producer := s.client(t), s.producer(ctx, t, "")
	var all []published
	for i, sample := range slices.Concat(samples.Events(), samples.LargeEvents()) {
		e := gracedb.Event{
			Group: sample.Group, Pipeline: sample.Pipeline, Search: sample.Search,
			Filename: sample.Filename, Data: sample.Data,
		}
		switch i {
		case 1:
			e.Group = "Test"
		case 2:
			e.Labels, e.Offline = []string{"INJ"}, true
		case 3:
			e.Labels, e.ReplayID = []string{"INJ", "DQV"}, "o4_replay-7"
		}
		for _, options := range []gracedb.PublishOptions{{}, {SkipSupervisor: true}, {PublishOnly: true}} {
			receipt, err := client.PublishEvent(ctx, producer, e, options)
			must(t, err)
			all = append(all, published{e, options, receipt})
		}
	}
	return all
}

func TestGoPublishesAllSamplesAndPythonStreamsThem(t *testing.T) {
	ctx, s := need(t)
	began := time.Now()
	all := publishSamples(ctx, t, s)

	peer := s.peer(ctx, t)
	must(t, peer.Do(ctx, "open_consumer", s.options(t, Args{
		"topics": []string{"gstlal", "pycbc", "cwb", "aframe", "test"}, "auto_offset_reset": "earliest",
	}), nil))
	var places [][]any
	for _, p := range all {
		places = append(places, place(p.receipt.Message))
	}
	var messages []peerMessage
	must(t, peer.Do(ctx, "find", Args{"places": places, "timeout": 60}, &messages))

	for _, p := range all {
		i := slices.IndexFunc(messages, func(m peerMessage) bool {
			return cmp.Equal(place(p.receipt.Message), []any{m.Topic, m.Partition, m.Offset})
		})
		m := messages[i]
		var v struct {
			Type           string
			Server         string `json:"gracedb_server"`
			GraceID        *string
			Submitter      *string
			Pipeline       string
			Upload         bool `json:"gracedb_upload"`
			SkipSupervisor bool `json:"skip_supervisor"`
			Labels         []string
			EventFile      []string
			Timestamp      float64 `json:"_producer_timestamp"`
			ContentID      string  `json:"content_id"`
			Group          string
			Search         string
			Offline        bool
			ReplayID       string `json:"replay_id"`
		}
		must(t, json.Unmarshal(m.Value, &v))
		data, err := base64.StdEncoding.DecodeString(v.EventFile[1])
		must(t, err)
		got := gracedb.Event{
			Group: v.Group, Pipeline: v.Pipeline, Search: v.Search, Labels: v.Labels, Offline: v.Offline,
			ReplayID: v.ReplayID, Filename: v.EventFile[0], Data: data,
		}
		if diff := cmp.Diff(p.event, got); diff != "" {
			t.Errorf("%s (-published +streamed):\n%.2000s", p.event.Filename, diff)
		}
		wantGraceID, wantSubmitter := &p.receipt.GraceID, &p.receipt.Submitter
		wantKey := wantGraceID
		if p.options.PublishOnly {
			wantGraceID, wantSubmitter, wantKey = nil, nil, &v.ContentID
		}
		for _, c := range []struct {
			what      string
			want, got any
		}{
			{"type", "upload", v.Type},
			{"gracedb_server", s.grace.URL(), v.Server},
			{"key", wantKey, m.Key},
			{"graceid", wantGraceID, v.GraceID},
			{"submitter", wantSubmitter, v.Submitter},
			{"gracedb_upload", !p.options.PublishOnly, v.Upload},
			{"skip_supervisor", p.options.SkipSupervisor, v.SkipSupervisor},
			{"headers", map[string]string(nil), m.Headers},
		} {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("%s: %s (-published +streamed):\n%s", p.event.Filename, c.what, diff)
			}
		}
		for what, at := range map[string]time.Time{
			"record's": time.UnixMilli(m.Timestamp), "message's": time.UnixMicro(int64(v.Timestamp * 1e6)),
		} {
			if at.Before(began.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
				t.Errorf("%s: the %s time is %v", p.event.Filename, what, at)
			}
		}
	}
}

func TestGoMessagesPassThePeersSchema(t *testing.T) {
	ctx, s := need(t)
	producer := s.producer(ctx, t, "test")
	ping, err := producer.Ping(ctx, "")
	must(t, err)
	messages := []gracedb.Message{ping}
	for _, p := range publishSamples(ctx, t, s) {
		messages = append(messages, p.receipt.Message)
	}
	peer := s.peer(ctx, t)
	for _, m := range messages {
		records, err := s.kafka.Records(ctx, m.Topic)
		must(t, err)
		for _, r := range records {
			if r.Partition == m.Partition && r.Offset == m.Offset {
				must(t, peer.Do(ctx, "validate", Args{"message": json.RawMessage(r.Value)}, nil))
			}
		}
	}
	if err := peer.Do(ctx, "validate", Args{"message": Args{"type": "upload"}}, nil); err == nil {
		t.Error("the schema lets everything through")
	}
}
