//go:build unix

package interop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/samples"
)

func TestPythonCreatesEventsAndGoConsumesThem(t *testing.T) {
	ctx, s := need(t)
	s.create(ctx, t, 1, "spiir")
	peer := s.peer(ctx, t)
	must(t, peer.Do(ctx, "open_client", Args{"service_url": s.grace.URL()}, nil))
	must(t, peer.Do(ctx, "client_producer", Args{"bootstrap_servers": s.kafka.Addrs()[0], "ca_cert_path": s.caFile(t)}, nil))
	consumer := s.consumer(ctx, t, "spiir")

	n := 0
	for c := range eventCombinations {
		n++
		data := fmt.Appendf(nil, "event %d \x00\xff\u2211\r\n", n)
		args := Args{
			"group": "CBC", "pipeline": "spiir", "filename": "coinc.xml", "contents": data,
			"gracedb_upload": !c.publishOnly, "skip_supervisor": c.skip, "offline": c.offline,
		}
		if c.labels != nil {
			args["labels"] = c.labels
		}
		if c.search != "" {
			args["search"] = c.search
		}
		if c.replay != "" {
			args["replay_id"] = c.replay
		}
		var reserved struct{ GraceID, Submitter string }
		began := time.Now()
		must(t, peer.Do(ctx, "create_event", args, &reserved))

		m, err := consumer.Poll(ctx)
		must(t, err)
		got, err := m.Upload()
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		// What is not here, the peer does not send: group, search, offline, replay_id.
		want := gracedb.Upload{
			Server: s.grace.URL(), GraceID: reserved.GraceID, Submitter: reserved.Submitter, Pipeline: "spiir",
			PublishOnly: c.publishOnly, SkipSupervisor: c.skip, Labels: c.labels, Filename: "coinc.xml", Data: data,
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(gracedb.Upload{}, "Time")); diff != "" {
			t.Errorf("%+v (-created +consumed):\n%s", c, diff)
		}
		if got.Time.Before(began.Add(-time.Second)) || got.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("%+v: made at %v", c, got.Time)
		}
		if string(m.Key) != reserved.GraceID || m.Topic != s.topic("spiir") || (m.Key == nil) != c.publishOnly {
			t.Errorf("%+v: key %q in topic %s", c, m.Key, m.Topic)
		}
	}
	t.Logf("%d combinations", n)
}

func TestPythonCreatesAllSamplesAndGoConsumesThem(t *testing.T) {
	ctx, s := need(t)
	s.create(ctx, t, 1, "gstlal", "pycbc", "cwb", "aframe")
	peer := s.peer(ctx, t)
	must(t, peer.Do(ctx, "open_client", Args{"service_url": s.grace.URL()}, nil))
	must(t, peer.Do(ctx, "client_producer", Args{"bootstrap_servers": s.kafka.Addrs()[0], "ca_cert_path": s.caFile(t)}, nil))
	consumer := s.consumer(ctx, t, "gstlal", "pycbc", "cwb", "aframe")
	for _, e := range slices.Concat(samples.Events(), samples.LargeEvents()) {
		must(t, peer.Do(ctx, "create_event", Args{
			"group": e.Group, "pipeline": e.Pipeline, "search": e.Search, "filename": e.Filename, "contents": e.Data,
		}, nil))
		m, err := consumer.Poll(ctx)
		must(t, err)
		got, err := m.Upload()
		must(t, err)
		if got.Pipeline != e.Pipeline || got.Filename != e.Filename || !bytes.Equal(got.Data, e.Data) {
			t.Errorf("%s of %s came as %s of %s, %d bytes of %d", e.Filename, e.Pipeline, got.Filename, got.Pipeline, len(got.Data), len(e.Data))
		}
	}
}

// A combination is one way to call create_event.
type combination struct {
	labels                     []string
	search, replay             string
	offline, publishOnly, skip bool
}

func eventCombinations(yield func(combination) bool) {
	bools := []bool{false, true}
	for _, labels := range [][]string{nil, {}, {"INJ"}, {"INJ", "DQV", "INJ"}} {
		for _, search := range []string{"", "AllSky"} {
			for _, replay := range []string{"", "o4_replay-7"} {
				for _, offline := range bools {
					for _, publishOnly := range bools {
						for _, skip := range bools {
							if !yield(combination{labels, search, replay, offline, publishOnly, skip}) {
								return
							}
						}
					}
				}
			}
		}
	}
}

func TestPingsOfBothSidesAreSeenByBoth(t *testing.T) {
	ctx, s := need(t)
	s.create(ctx, t, 2, "pings")
	consumer := s.consumer(ctx, t, "pings")
	peer := s.peer(ctx, t)
	must(t, peer.Do(ctx, "open_producer", s.options(t, Args{"topic": "pings"}), nil))
	must(t, peer.Do(ctx, "open_consumer", s.options(t, Args{"topics": "pings", "auto_offset_reset": "earliest"}), nil))

	ours, err := s.producer(ctx, t, "pings").Ping(ctx, "")
	must(t, err)
	var theirs struct {
		Topic     string
		Partition int32
		Offset    int64
	}
	must(t, peer.Do(ctx, "ping", nil, &theirs))

	type body struct {
		Type, Client, Sub, Scope string
		Timestamp                float64
	}
	check := func(side, client string, b body) {
		t.Helper()
		want := body{"ping", client, "alice", "gracedb.read kafka.consume", b.Timestamp}
		if diff := cmp.Diff(want, b); diff != "" {
			t.Errorf("%s: %s", side, diff)
		}
		if age := time.Since(time.UnixMicro(int64(b.Timestamp * 1e6))); age < -time.Second || age > time.Minute {
			t.Errorf("%s: %v old", side, age)
		}
	}
	for _, want := range []struct {
		client, key string
		partition   int32
		offset      int64
	}{{"gracedb-go", "ping/alice", ours.Partition, ours.Offset}, {"ligo-gracedb", "", theirs.Partition, theirs.Offset}} {
		m, err := consumer.Poll(ctx)
		must(t, err)
		var b body
		must(t, m.Decode(&b))
		check("seen by Go", want.client, b)
		if m.Topic != s.topic("pings") || m.Partition != want.partition || m.Offset != want.offset || string(m.Key) != want.key {
			t.Errorf("%s: %s %d %d key %q", want.client, m.Topic, m.Partition, m.Offset, m.Key)
		}
		if _, err := m.Upload(); !errors.Is(err, gracedb.ErrNotUpload) {
			t.Errorf("the ping as an upload: %v", err)
		}
	}
	var seen []struct{ Value body }
	must(t, peer.Do(ctx, "find", Args{
		"places": [][]any{place(ours), {theirs.Topic, theirs.Partition, theirs.Offset}}, "timeout": 30,
	}, &seen))
	for _, m := range seen {
		check("seen by Python", m.Value.Client, m.Value)
	}
}

func TestKeysOfBothSidesLandOnTheSamePartitions(t *testing.T) {
	ctx, s := need(t)
	const partitions = 6
	s.create(ctx, t, partitions, "sixfold")
	var keys []string
	for i := range 1000 {
		keys = append(keys, fmt.Sprintf("G%d", 400000+i*i))
	}
	peer := s.peer(ctx, t)
	must(t, peer.Do(ctx, "open_producer", s.options(t, nil), nil))
	var theirs map[string]int32
	must(t, peer.Do(ctx, "place", Args{"topic": "sixfold", "keys": keys}, &theirs))

	producer := s.producer(ctx, t, "")
	ours := make(map[string]int32)
	placed := make(chan gracedb.Message, len(keys))
	for _, key := range keys {
		must(t, producer.Produce(ctx, gracedb.Message{Topic: "sixfold", Key: []byte(key)}, func(m gracedb.Message, err error) {
			if err != nil {
				t.Error(err)
			}
			placed <- m
		}))
	}
	must(t, producer.Flush(ctx))
	used := make(map[int32]int)
	for range keys {
		m := <-placed
		ours[string(m.Key)] = m.Partition
		used[m.Partition]++
	}
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("(-Python +Go):\n%s", diff)
	}
	if len(theirs) != len(keys) || len(used) != partitions {
		t.Errorf("%d keys on partitions %v, want %d on %d", len(theirs), used, len(keys), partitions)
	}
}
