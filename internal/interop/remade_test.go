//go:build unix

package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testlog"
)

// A topic that is deleted and made anew at once, with most of 30 messages unread, is told
// to its consumers, with and without a group; and the new one is read whole, whatever a
// group stores late: a commit at once, one after a while, or the one of Close.
func TestVersionOldTopicIsTold(t *testing.T) {
	ctx, s := need(t)
	for i, tt := range []struct {
		name, group string
		late        func(*testing.T, *gracedb.Consumer)
	}{
		{"no group", "", func(*testing.T, *gracedb.Consumer) {}},
		{"group", "anew", func(*testing.T, *gracedb.Consumer) {}},
		{"late commit", "anew-commit", func(t *testing.T, c *gracedb.Consumer) { t.Logf("late commit: %v", c.Commit(ctx)) }},
		{"later commit", "anew-later", func(t *testing.T, c *gracedb.Consumer) {
			time.Sleep(5 * time.Second)
			t.Logf("later commit: %v", c.Commit(ctx))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pipeline := fmt.Sprint("anew", i)
			s.create(ctx, t, 1, pipeline)
			var log testlog.Log
			cfg := gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{pipeline}, GroupID: tt.group}
			cfg.Cluster.Logger = log.Logger()
			c, err := gracedb.NewConsumer(ctx, cfg)
			must(t, err)
			defer func() { must(t, c.Close()) }()
			put(ctx, t, s, pipeline, "old", 30)
			next := 0
			for ; next < 3; next++ {
				m, err := c.Poll(ctx)
				must(t, err)
				if string(m.Value) != fmt.Sprint("old ", next) {
					t.Fatalf("got %s", m.Value)
				}
			}
			remake(ctx, t, s, pipeline)
			tt.late(t, c)
			put(ctx, t, s, pipeline, "new", 5)
			for err == nil {
				var m gracedb.Message
				if m, err = c.Poll(ctx); err == nil {
					if string(m.Value) != fmt.Sprint("old ", next) {
						t.Fatalf("got %s, want old %d or what is lost", m.Value, next)
					}
					next++
				}
			}
			want := fmt.Sprintf("topic %s was deleted and made anew; what was not read of the old one, from offset %d, is lost; continuing at the beginning", s.topic(pipeline), next)
			if !errors.Is(err, gracedb.ErrConsumer) || !strings.HasSuffix(err.Error(), want) {
				t.Fatal(err)
			}
			for i := range 5 {
				m, err := c.Poll(ctx)
				must(t, err)
				if string(m.Value) != fmt.Sprint("new ", i) || m.Offset != int64(i) {
					t.Errorf("got %s, want new %d", m.Value, i)
				}
			}
			if text := log.String(); strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
				t.Logf("logged: %s", text)
			}
		})
	}
}

// What the group stores as it closes, of a topic that has just been made anew, is no
// position in the new one.
func TestVersionCloseAfterTopicMadeAnew(t *testing.T) {
	ctx, s := need(t)
	const pipeline = "anew-close"
	s.create(ctx, t, 1, pipeline)
	cfg := gracedb.ConsumerConfig{Cluster: s.cluster(t, testauth.Claims{}), Topics: []string{pipeline}, GroupID: pipeline}
	c, err := gracedb.NewConsumer(ctx, cfg)
	must(t, err)
	defer c.Close()
	put(ctx, t, s, pipeline, "old", 30)
	for range 4 {
		_, err := c.Poll(ctx)
		must(t, err)
	}
	remake(ctx, t, s, pipeline)
	put(ctx, t, s, pipeline, "new", 5)
	must(t, c.Close())
	c, err = gracedb.NewConsumer(ctx, cfg)
	must(t, err)
	defer c.Close()
	for i := range 5 {
		m, err := c.Poll(ctx)
		must(t, err)
		if string(m.Value) != fmt.Sprint("new ", i) {
			t.Errorf("got %s, want new %d", m.Value, i)
		}
	}
}

// put publishes n messages that say text and their number.
func put(ctx context.Context, t *testing.T, s *setting, pipeline, text string, n int) {
	t.Helper()
	p := s.producer(ctx, t, pipeline)
	for i := range n {
		_, err := p.ProduceSync(ctx, gracedb.Message{Value: fmt.Appendf(nil, "%s %d", text, i)})
		must(t, err)
	}
}

// remake deletes a topic and makes it anew as soon as the broker lets it.
func remake(ctx context.Context, t *testing.T, s *setting, pipeline string) {
	t.Helper()
	_, err := s.kafka.Admin().DeleteTopic(ctx, s.topic(pipeline))
	must(t, err)
	for {
		err := s.kafka.CreateTopic(ctx, s.topic(pipeline), 1, nil)
		if !errors.Is(err, kerr.TopicAlreadyExists) {
			must(t, err)
			return
		}
	}
}
