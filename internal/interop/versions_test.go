//go:build unix

package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// The tests of this file are about what the versions of Kafka do in ways of their
// own. Set GRACEDB_KAFKA to run them, and all others of this package, on another.

// Below these, topics go by their names instead of their ids: a request that is late
// then reaches whatever topic has the name by now.
const (
	produceByID = 13
	commitByID  = 10
)

// Each version that is tried takes the way that it is tried for.
func TestVersionIsWhatItIsTriedFor(t *testing.T) {
	ctx, s := need(t)
	all, err := s.kafka.Admin().ApiVersions(ctx)
	must(t, err)
	for id, v := range all {
		produce, _ := v.KeyMaxVersion(int16(kmsg.Produce))
		commit, _ := v.KeyMaxVersion(int16(kmsg.OffsetCommit))
		t.Logf("Kafka %s, broker %d: Produce up to %d, OffsetCommit up to %d", realkafka.Version(), id, produce, commit)
		names := strings.HasPrefix(realkafka.Version(), "3.")
		if (produce < produceByID) != names || (commit < commitByID) != names {
			t.Errorf("by names: %v wanted", names)
		}
	}
}

// made creates an empty topic and returns its full name.
func (s *setting) made(ctx context.Context, t *testing.T, pipeline string, config map[string]string) string {
	t.Helper()
	must(t, s.kafka.CreateTopic(ctx, s.topic(pipeline), 1, config))
	return s.topic(pipeline)
}

// values returns what a topic holds.
func (s *setting) values(ctx context.Context, t *testing.T, topic string) (values []string) {
	t.Helper()
	records, err := s.kafka.Records(ctx, topic)
	must(t, err)
	for _, r := range records {
		values = append(values, string(r.Value))
	}
	return values
}

// Of many messages at once the one that is too large fails, and no other; those are
// in the log once and in order.
func TestVersionProduce(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "versionproduce", map[string]string{"max.message.bytes": "20000"})
	p := s.producer(ctx, t, "")
	const n, large = 60, 30
	var want []string
	outcomes := make([]error, n)
	for i := range n {
		m := gracedb.Message{Topic: topic, Key: []byte("k"), Value: fmt.Appendf(nil, "message %d", i)}
		if i == large {
			m.Value = make([]byte, 30_000)
			_, _ = rand.Read(m.Value) // so that it does not shrink
		} else {
			want = append(want, string(m.Value))
		}
		must(t, p.Produce(ctx, m, func(_ gracedb.Message, err error) { outcomes[i] = err }))
	}
	if err := p.Flush(ctx); err != nil && !errors.Is(err, gracedb.ErrTooLarge) {
		t.Errorf("flush: %v", err)
	}
	for i, err := range outcomes {
		if (i == large) != errors.Is(err, gracedb.ErrTooLarge) || (i != large && err != nil) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if got := s.values(ctx, t, topic); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("the log holds %d: %q", len(got), got)
	}
}

// A group goes on where it was, whoever of it reads.
func TestVersionGroup(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "versiongroup", nil)
	p := s.producer(ctx, t, "")
	const n, half = 40, 17
	for i := range n {
		_, err := p.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: fmt.Append(nil, i)})
		must(t, err)
	}
	read := func(from, to int) {
		c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{
			Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{topic}, GroupID: "version-group", FromBeginning: true,
		})
		must(t, err)
		for i := from; i < to; i++ {
			m, err := c.Poll(ctx)
			must(t, err)
			if string(m.Value) != fmt.Sprint(i) || m.Offset != int64(i) {
				t.Fatalf("offset %d: %q, want %d", m.Offset, m.Value, i)
			}
		}
		must(t, c.Commit(ctx))
		must(t, c.Close())
		offsets, err := s.kafka.Admin().FetchOffsets(ctx, "version-group")
		must(t, err)
		if at, ok := offsets.Lookup(topic, 0); !ok || at.At != int64(to) {
			t.Errorf("the broker keeps %+v, want %d", at, to)
		}
	}
	read(0, half)
	read(half, n)
}

// Tokens that live for seconds are renewed on connections that stay, unseen.
func TestVersionReauthentication(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "versiontokens", nil)
	var tokens atomic.Int64
	cluster := s.cluster(t, testauth.Claims{})
	cluster.Token = func(context.Context) (string, error) {
		tokens.Add(1)
		return s.kafka.Issuer.Token(testauth.Claims{Expires: time.Now().Add(5 * time.Second)})
	}
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: topic})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{topic}, GroupID: "version-tokens", FromBeginning: true})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	first := tokens.Load()
	n := 0
	for began := time.Now(); time.Since(began) < 12*time.Second; time.Sleep(100 * time.Millisecond) {
		_, err := p.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: fmt.Append(nil, n)})
		must(t, err)
		m, err := c.Poll(ctx)
		must(t, err)
		if string(m.Value) != fmt.Sprint(n) {
			t.Fatalf("%q, want %d", m.Value, n)
		}
		n++
	}
	// Two lives of a token have gone by, on connections of producer and consumer.
	if more := tokens.Load() - first; more < 4 {
		t.Errorf("%d more tokens were asked for", more)
	} else {
		t.Logf("%d messages, %d more tokens", n, more)
	}
}

// A topic that is deleted and made anew is written and read again by those that knew
// the old one, and no message fails for it.
func TestVersionTopicMadeAnew(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "versionanew", nil)
	p, c := s.producer(ctx, t, topic), s.consumer(ctx, t, topic)
	_, err := p.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: []byte("old")})
	must(t, err)
	if m, err := c.Poll(ctx); err != nil || string(m.Value) != "old" {
		t.Fatalf("%q, %v", m.Value, err)
	}
	_, err = s.kafka.Admin().DeleteTopic(ctx, topic)
	must(t, err)
	s.made(ctx, t, "versionanew", nil)

	var sent []string
	for i := range 3 {
		value := fmt.Sprintf("new %d", i)
		_, err := p.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: []byte(value)})
		must(t, err)
		sent = append(sent, value)
	}
	if got := s.values(ctx, t, topic); !slices.Equal(got, sent) {
		t.Errorf("sent %q; the log holds %q", sent, got)
	}
	for i := 0; i < len(sent); {
		m, err := c.Poll(ctx)
		switch {
		case err == nil && string(m.Value) == sent[i]:
			i++
		case err != nil && ctx.Err() == nil && strings.Contains(err.Error(), topic):
			t.Logf("the consumer is told: %v", err)
		default:
			t.Fatalf("%q, %v, want %q", m.Value, err, sent[i])
		}
	}
}

// The demo as somebody runs it who has brokers.
func TestVersionDemoOnRealBrokers(t *testing.T) {
	ctx, s := need(t)
	topic := s.made(ctx, t, "versiondemo", nil)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	must(t, os.WriteFile(token, []byte(s.token(t, testauth.Claims{})), 0o600))
	demo := exec.CommandContext(ctx, "go", "run", "./internal/demo", "-brokers", s.kafka.Addrs()[0], "-service", s.grace.URL(),
		"-ca", s.caFile(t), "-topic", topic, "testdata/events/coinc.xml", "testdata/events/trigger.txt")
	demo.Dir = filepath.Join("..", "..")
	demo.Env = append(os.Environ(), "BEARER_TOKEN_FILE="+token, "BEARER_TOKEN=", "SCITOKEN=", "SCITOKEN_FILE=", "_CONDOR_CREDS=")
	var stderr bytes.Buffer
	demo.Stderr = &stderr
	out, err := demo.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%v\n%s\n%s", err, out, &stderr)
	}
	for _, file := range []string{"coinc.xml", "trigger.txt"} {
		for _, step := range []string{"published", "received "} {
			if !regexp.MustCompile(`(?m)^` + step + ` T[0-9]+ +` + regexp.QuoteMeta(topic) + ` .* ` + file + `$`).Match(out) {
				t.Errorf("%s was not %s", file, step)
			}
		}
	}
	if n := len(s.values(ctx, t, topic)); n != 2 || t.Failed() {
		t.Errorf("%d messages in the topic:\n%s", n, out)
	}
}
