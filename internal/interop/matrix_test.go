//go:build unix

package interop

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

var updateMatrix = flag.Bool("update-matrix", false, "write testdata/peer_matrix.txt anew")

const (
	// matrixPatience is when a call that does not return is given up. Ours gives up
	// an answer after a minute.
	matrixPatience = 75 * time.Second
	// matrixSettle is how long what is still queued after a call may take. The
	// peer's messages expire after 30 seconds.
	matrixSettle = 31 * time.Second
	// matrixAtOnce is how many cells run at the same time, most of which wait.
	matrixAtOnce = 16
)

// A matrixStep is one way in which a step of publishing goes.
type matrixStep struct {
	name   string
	fault  gracetest.Fault                          // at the server, On being filled in
	before func(c *kafkatest.Config, topic string)  // the broker starts
	ready  func(t *testing.T, k *matrixCell) func() // once all is connected; what it returns ends the fault
	size   int                                      // of the event; if zero, 100 bytes
	slow   bool                                     // takes long, so that it is begun first
}

var matrixReserve = []matrixStep{
	{name: "ok"},
	{name: "answer lost once", fault: gracetest.Fault{Drop: true}},
	{name: "answers lost", fault: gracetest.Fault{Drop: true, Times: -1}},
	{name: "400", fault: gracetest.Fault{Status: 400, Times: -1}},
	{name: "401", fault: gracetest.Fault{Status: 401, Times: -1}},
	{name: "403", fault: gracetest.Fault{Status: 403, Times: -1}},
	{name: "409", fault: gracetest.Fault{Status: 409, Times: -1}},
	{name: "429, then ok", fault: gracetest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}}},
	{name: "502", fault: gracetest.Fault{Status: 502, Times: -1}},
	{name: "503", fault: gracetest.Fault{Status: 503, Times: -1}},
	{name: "mute", fault: gracetest.Fault{Think: time.Hour, Status: 500, Times: -1}, slow: true},
	{name: "HTML", fault: gracetest.Fault{Status: 200, Body: "<html>", Times: -1}},
}

var matrixPublish = []matrixStep{
	{name: "ok"},
	{name: "no topic", slow: true, before: func(c *kafkatest.Config, topic string) { delete(c.Topics, topic) }},
	{name: "not authorized", before: func(c *kafkatest.Config, topic string) {
		acl := kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true}
		other := acl
		other.Name, other.Operation = strings.TrimSuffix(topic, "gstlal")+"test", kmsg.ACLOperationWrite
		c.Subjects = map[string][]kfake.ACL{"alice": {acl, other}}
	}},
	{name: "refused by the broker", ready: func(_ *testing.T, k *matrixCell) func() {
		return k.kafka.Fail(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed}).Remove
	}},
	{name: "too large for the client", size: 8_000_000},
	{name: "too large for the broker", size: 100_000, before: func(c *kafkatest.Config, topic string) {
		c.TopicMaxMessageBytes = map[string]int{topic: 50_000}
	}},
	{name: "token refused", ready: func(_ *testing.T, k *matrixCell) func() {
		k.kafka.RefuseTokens(kafkatest.Refusal{})
		k.kafka.Drop(kafkatest.RST)
		time.Sleep(7 * time.Second) // more than AuthGrace
		return k.kafka.AcceptTokens
	}},
	{name: "broker gone during the call", slow: true, ready: func(t *testing.T, k *matrixCell) func() {
		check := func(err error) {
			if err != nil {
				t.Errorf("%s: %v", k.name(), err)
			}
		}
		check(k.kafka.Kill(0))
		return func() { check(k.kafka.Restart(0)) }
	}},
	{name: "requests lost during the call", slow: true, ready: func(_ *testing.T, k *matrixCell) func() {
		return k.kafka.LoseProduces(-1, kafkatest.DropRequest).Remove
	}},
	{name: "connection cut before the acknowledgement, once", ready: func(_ *testing.T, k *matrixCell) func() {
		return k.kafka.LoseAcks(1, kafkatest.CutResponse).Remove
	}},
	{name: "acknowledgements lost during the call", slow: true, ready: func(_ *testing.T, k *matrixCell) func() {
		return k.kafka.LoseAcks(-1, kafkatest.DropResponse).Remove
	}},
	{name: "acknowledgements lost, but uploaded by the supervisor", slow: true, ready: func(t *testing.T, k *matrixCell) func() {
		end := k.kafka.LoseAcks(-1, kafkatest.DropResponse).Remove
		supervised := time.AfterFunc(5*time.Second, func() { k.supervise(t) })
		return func() { supervised.Stop(); end() }
	}},
}

var matrixSecond = []matrixStep{
	{name: "ok"},
	{name: "400", fault: gracetest.Fault{Status: 400, Times: -1}},
	{name: "403", fault: gracetest.Fault{Status: 403, Times: -1}},
	{name: "409", fault: gracetest.Fault{Status: 409, Times: -1}},
	{name: "500", fault: gracetest.Fault{Status: 500, Times: -1}},
	{name: "answer lost once", fault: gracetest.Fault{Drop: true}},
	{name: "answers lost", fault: gracetest.Fault{Drop: true, Times: -1}},
	{name: "down", fault: gracetest.Fault{Refuse: true, Times: -1}},
	{name: "HTML", fault: gracetest.Fault{Status: 200, Body: "<html>", Times: -1}},
}

// matrixCells is the part of TestPublishMatrix that is run here: each way of each
// step with the others as they should be, and each way of uploading after a
// reservation that failed, a certain failure of Kafka, and an uncertain one.
func matrixCells() (cells []matrixCell) {
	plain, only := gracedb.PublishOptions{}, gracedb.PublishOptions{PublishOnly: true}
	fallback := gracedb.PublishOptions{HTTPFallback: true}
	reserve, publish, second := matrixReserve, matrixPublish, matrixSecond
	add := func(o gracedb.PublishOptions, r, p, s matrixStep) {
		cells = append(cells, matrixCell{opts: o, reserve: r, publish: p, second: s})
	}
	for _, r := range reserve {
		add(plain, r, publish[0], second[0])
		add(fallback, r, publish[0], second[0])
	}
	add(only, reserve[0], publish[0], second[0])
	for _, p := range publish[1:] {
		for _, o := range []gracedb.PublishOptions{plain, only, fallback} {
			add(o, reserve[0], p, second[0])
		}
	}
	for _, s := range second[1:] {
		add(fallback, reserve[3], publish[0], s)
		add(fallback, reserve[0], publish[3], s)
		add(fallback, reserve[0], publish[10], s)
	}
	return cells
}

// A matrixCell is one cell, and, when a side runs, its own GraceDB and broker.
type matrixCell struct {
	opts                     gracedb.PublishOptions
	reserve, publish, second matrixStep

	grace  *gracetest.Server
	kafka  *kafkatest.Cluster
	topic  string
	caFile string
	token  string
}

func (k *matrixCell) name() string {
	options := "none"
	switch {
	case k.opts.PublishOnly:
		options = "PublishOnly"
	case k.opts.HTTPFallback:
		options = "HTTPFallback"
	}
	return fmt.Sprintf("%s | reserve %s | publish %s | HTTP %s", options, k.reserve.name, k.publish.name, k.second.name)
}

// A matrixSide publishes the event of a cell when it is told to go, and says what
// its caller was told. Then settle waits for what is still queued.
type matrixSide func(ctx context.Context, t *testing.T, box *Sandbox, k *matrixCell, begin func()) (told string, settle func())

// The same cells for ligo-gracedb and for this library, over real connections: what
// each sends, what is on the topic when the call returns and once all is well again,
// what the server has when the supervisor is through with the topic, and what the
// caller is told. RELIABILITY.md says what the differences mean.
func TestPublishMatrixOfBothSides(t *testing.T) {
	wanted(t)
	authority, err := testauth.NewAuthority()
	must(t, err)
	issuer, err := testauth.NewIssuer("https://issuer.test")
	must(t, err)
	box, err := NewSandbox(t.Context(), t.TempDir(), authority, issuer)
	must(t, err)
	token, err := issuer.Token(testauth.Claims{})
	must(t, err)
	must(t, box.SetToken(token))

	cells := matrixCells()
	lines := make([][2]string, len(cells))
	var wg sync.WaitGroup
	slots := make(chan struct{}, matrixAtOnce)
	order := make([]int, len(cells))
	for i := range order {
		order[i] = i
	}
	slow := func(i int) int {
		if cells[i].reserve.slow || cells[i].publish.slow {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(slow(a), slow(b)) })
	for _, i := range order {
		for side, run := range []matrixSide{ours, theirs} {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				k := cells[i]
				k.caFile, k.token = box.CAFile, token
				lines[i][side] = k.run(t, authority, issuer, box, run)
			})
		}
	}
	wg.Wait()
	compareMatrix(t, cells, lines)
}

func compareMatrix(t *testing.T, cells []matrixCell, lines [][2]string) {
	t.Helper()
	var got strings.Builder
	differ := 0
	for i, k := range cells {
		mark := "same"
		// Errors have other names on either side; the rest can be compared.
		ours, _, _ := strings.Cut(lines[i][0], "error: ")
		theirs, _, _ := strings.Cut(lines[i][1], "error: ")
		if ours != theirs {
			mark = "differs"
			differ++
		}
		fmt.Fprintf(&got, "%s: %s\n  ours:   %s\n  theirs: %s\n", k.name(), mark, lines[i][0], lines[i][1])
	}
	t.Logf("%d cells, of which %d differ", len(cells), differ)
	const golden = "testdata/peer_matrix.txt"
	if *updateMatrix {
		must(t, os.WriteFile(golden, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if diff := gocmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("the matrix differs from %s (-want +got); if that is meant, run with -update-matrix:\n%s", golden, diff)
	}
}

// run runs the cell for one side.
func (k *matrixCell) run(t *testing.T, authority *testauth.Authority, issuer *testauth.Issuer, box *Sandbox, side matrixSide) string {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var err error
	if k.grace, err = gracetest.Start(gracetest.Config{Authority: authority, Issuer: issuer}); err != nil {
		return err.Error()
	}
	defer k.grace.Close()
	instance, err := gracedb.DeriveInstanceName(k.grace.URL())
	if err != nil {
		return err.Error()
	}
	k.topic = gracedb.MakeTopicName(instance, "gstlal")
	cfg := kafkatest.Config{
		Authority: authority, Issuer: issuer,
		Topics: map[string]int{k.topic: 1, gracedb.MakeTopicName(instance, "test"): 1},
	}
	if k.publish.before != nil {
		k.publish.before(&cfg, k.topic)
	}
	if k.kafka, err = kafkatest.Start(cfg); err != nil {
		return err.Error()
	}
	defer k.kafka.Close()

	end, before := func() {}, 0
	told, settle := side(ctx, t, box, k, func() {
		for on, s := range map[string]matrixStep{"reserve": k.reserve, "upload": k.second, "create": k.second} {
			if s.fault.Times != 0 || s.fault.Status != 0 || s.fault.Drop {
				s.fault.On = on
				k.grace.Script(s.fault)
			}
		}
		if k.publish.ready != nil {
			end = k.publish.ready(t, k)
		}
		before = len(k.grace.Requests())
	})
	requests, soon := k.grace.Requests()[before:], k.records(t)
	end()
	k.grace.Heal()
	settle()
	late := k.records(t)
	k.supervise(t)
	return k.sum(requests, soon, late) + told
}

// sum is all but what the caller was told, in one line.
func (k *matrixCell) sum(requests []gracetest.Request, soon, late int) string {
	sent := map[string]int{}
	for _, q := range requests {
		if supervisor := q.Value("kafka_topic") != ""; !supervisor {
			sent[gracetest.KindOf(q)]++
		}
	}
	graceids, refused := len(k.grace.Reservations()), 0
	events := k.grace.Events()
	for _, e := range events {
		if !e.Reserved {
			graceids++
		}
		refused += e.Conflicts
	}
	messages := few(late)
	if few(soon) != few(late) {
		messages = few(soon) + ", later " + few(late)
	}
	uploads := fmt.Sprintf("%d events of %d graceids", len(events), graceids)
	if refused > 0 {
		uploads += ", uploads refused as double"
	}
	return fmt.Sprintf("sent %d reserve, %d upload, %d create; messages %s; %s; ", sent["reserve"], sent["upload"], sent["create"], messages, uploads)
}

// few counts as far as it matters: how often a message is doubled is a matter of
// time.
func few(n int) string {
	if n > 1 {
		return "several"
	}
	return fmt.Sprint(n)
}

func (k *matrixCell) records(t *testing.T) int {
	if k.kafka.Kfake().TopicInfo(k.topic) == nil {
		return 0
	}
	records, err := k.kafka.Records(k.topic)
	if err != nil {
		t.Errorf("%s: %v", k.name(), err)
	}
	return len(records)
}

// supervise uploads what is in the log, as the supervisor does.
func (k *matrixCell) supervise(t *testing.T) {
	if k.records(t) == 0 {
		return
	}
	records, err := k.kafka.Records(k.topic)
	if err == nil {
		err = k.grace.Supervise(t.Context(), func(yield func(gracedb.Message, error) bool) {
			for _, r := range records {
				if !yield(gracedb.Message{Topic: r.Topic, Key: r.Key, Value: r.Value}, nil) {
					return
				}
			}
		})
	}
	if err != nil {
		t.Errorf("%s: supervisor: %v", k.name(), err)
	}
}
