package faults_test

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// The same as TestCanaryInEveryBrokersAnswer for the answers to the members of a group, and
// for what is left of others. It runs on a real clock: while the engine (v1.22.3) waits for an
// answer to a commit it holds a lock that others wait for, so that virtual time would stand
// still. Each case has clients of its own, which last for as long as their calls may take.
func TestCanaryInGroupAnswers(t *testing.T) {
	issuer, token := aliceToken(t)
	start := func() *kafkatest.Cluster {
		return testrig.StartCluster(t, kafkatest.Config{Topics: map[string]int{testrig.Topic: 1}, Issuer: issuer})
	}
	var mu sync.Mutex
	var members []string
	c := start()
	all := c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Count: -1, Rewrite: func(_ kmsg.Request, r kmsg.Response) {
		mu.Lock()
		defer mu.Unlock()
		textMembers(reflect.ValueOf(r), reflect.TypeOf(r).Elem().Name(), func(name string, _ func(string)) {
			if !slices.Contains(members, name) {
				members = append(members, name)
			}
		})
	}})
	showGroup(t, newLeak(t, token), c, token, "all")
	all.Remove()
	mu.Lock()
	members = slices.DeleteFunc(members, func(name string) bool { // those that the other test has
		return strings.HasPrefix(name, "SASL") || strings.HasPrefix(name, "Metadata")
	})
	slices.Sort(members)
	mu.Unlock()
	for _, answer := range []string{"JoinGroup", "SyncGroup", "OffsetFetch", "OffsetCommit", "FindCoordinator", "LeaveGroup"} {
		if !slices.ContainsFunc(members, func(name string) bool { return strings.HasPrefix(name, answer) }) {
			t.Errorf("no text of an answer to %s is among %v", answer, members)
		}
	}
	t.Logf("%d members: %v", len(members), members)

	type oneCase struct{ member, form string }
	cases := make(chan oneCase)
	var done sync.WaitGroup
	var hits atomic.Int64
	for range 6 {
		c := start()
		done.Go(func() {
			for tt := range cases {
				l := newLeak(t, token)
				l.causes = true
				said := disguises(token)[tt.form]
				hit := c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Count: -1, Rewrite: func(_ kmsg.Request, r kmsg.Response) {
					hit := false
					textMembers(reflect.ValueOf(r), reflect.TypeOf(r).Elem().Name(), func(name string, set func(string)) {
						if name == tt.member {
							set(said)
							hit = true
						}
					})
					if hit && hits.Add(1)%3 == 0 { // what names a thing may say that it has failed
						failAll(reflect.ValueOf(r))
					}
				}})
				l.show("a case", fmt.Sprint(tt))
				showGroup(t, l, c, token, tt.member+tt.form)
				hit.Remove()
				if _, before, leaked := l.leaked(); leaked {
					t.Errorf("%v: a piece of the token is shown after …%q", tt, before)
				}
			}
		})
	}
	forms := []string{"plain", "zero width", "host", "beheaded", "path"}
	for i, member := range members {
		for j, form := range forms {
			if !testing.Short() || j == i%len(forms) {
				cases <- oneCase{member, form}
			}
		}
	}
	close(cases)
	done.Wait()
	t.Logf("%d texts written", hits.Load())
}

// failAll sets each error code in an answer.
func failAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			failAll(v.Elem())
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			for i := range v.Len() {
				failAll(v.Index(i))
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "ErrorCode" {
				v.Field(i).SetInt(int64(kerr.UnknownServerError.Code))
			} else {
				failAll(v.Field(i))
			}
		}
	}
}

// showGroup makes the calls of a member of a group, and shows what comes of them.
func showGroup(t *testing.T, l *leak, c *kafkatest.Cluster, token, name string) {
	cluster := gracedb.Cluster{
		Brokers: c.Addrs(), Instance: "gracedb-test", CAFile: c.CAFile(), Token: gracedb.StaticToken(token),
		Logger: slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug - 8})),
	}
	within := func(d time.Duration, what string, call func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		err := call(ctx)
		l.show(what, err)
		return err
	}
	pc := gracedb.ProducerConfig{Cluster: cluster, Topic: "test", AuthGrace: -1, FlushTimeout: 500 * time.Millisecond, Lazy: true}
	p, err := gracedb.NewProducer(t.Context(), pc)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { l.show("Close", p.Close()) }()
	cc := gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: name, FromBeginning: true}
	var con *gracedb.Consumer
	if within(time.Second, "NewConsumer", func(ctx context.Context) (err error) {
		con, err = gracedb.NewConsumer(ctx, cc)
		return err
	}) != nil {
		cc.Lazy = true
		if con, err = gracedb.NewConsumer(t.Context(), cc); err != nil {
			t.Error(err)
			return
		}
	}
	defer func() { l.show("Close", con.Close()) }()
	_ = within(time.Second, "ProduceSync", func(ctx context.Context) error {
		_, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("{}")})
		return err
	})
	_ = within(500*time.Millisecond, "Check", p.Check)
	for range 2 {
		_ = within(time.Second, "Poll", func(ctx context.Context) error {
			_, err := con.Poll(ctx)
			return err
		})
	}
	_ = within(500*time.Millisecond, "Commit", con.Commit)
	_ = within(500*time.Millisecond, "consumer Check", con.Check)
	_ = within(500*time.Millisecond, "Subscribe", func(ctx context.Context) error { return con.Subscribe(ctx, "absent") })
	_ = within(300*time.Millisecond, "Poll", func(ctx context.Context) error {
		_, err := con.Poll(ctx)
		return err
	})
}
