package faults_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// textMembers calls f with each member of an answer that is a text, and its name.
func textMembers(v reflect.Value, name string, f func(name string, set func(string))) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.String {
			f(name, func(s string) { v.Set(reflect.ValueOf(&s)) })
		} else if !v.IsNil() {
			textMembers(v.Elem(), name, f)
		}
	case reflect.String:
		f(name, v.SetString)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			f(name, func(s string) { v.SetBytes([]byte(s)) })
			return
		}
		for i := range v.Len() {
			textMembers(v.Index(i), name, f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			member := name + "." + v.Type().Field(i).Name
			textMembers(v.Field(i), member, func(name string, set func(string)) {
				f(name, func(s string) {
					set(s)
					// What an answer says of an error is read only if there is one.
					if code := v.FieldByName("ErrorCode"); strings.HasSuffix(name, "ErrorMessage") && code.IsValid() {
						code.SetInt(58) // SASL_AUTHENTICATION_FAILED
					}
				})
			})
		}
	}
}

// Whatever member of whatever answer a broker writes the token into, and however, it is
// shown nowhere.
func TestCanaryInEveryBrokersAnswer(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{Topics: map[string]int{testrig.Topic: 1}}, func(t *testing.T, c *kafkatest.Cluster) {
		token := testrig.Mint(t, c, testauth.Claims{Subject: "alice", Expires: time.Now().Add(1000 * time.Hour)})
		l := newLeak(t, token)
		l.causes = true
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Token = gracedb.StaticToken(token)
		cluster.Logger = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))

		var mu sync.Mutex
		var members []string
		all := c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Count: -1, Rewrite: func(_ kmsg.Request, r kmsg.Response) {
			mu.Lock()
			defer mu.Unlock()
			textMembers(reflect.ValueOf(r), reflect.TypeOf(r).Elem().Name(), func(name string, _ func(string)) {
				if !slices.Contains(members, name) {
					members = append(members, name)
				}
			})
		}})
		showKafka(t, l, c, cluster)
		all.Remove()
		members = slices.DeleteFunc(members, func(name string) bool { // the texts that are shown
			return !strings.HasPrefix(name, "SASL") && !strings.HasPrefix(name, "Metadata") && !strings.HasSuffix(name, "ErrorMessage")
		})
		forms := disguises(token)
		for i, member := range members {
			for _, form := range []string{"plain", "zero width", "host", []string{"beheaded", "path", "bearer", "escaped", "soft hyphen"}[i%5]} {
				hit := c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Count: -1, Rewrite: func(_ kmsg.Request, r kmsg.Response) {
					textMembers(reflect.ValueOf(r), reflect.TypeOf(r).Elem().Name(), func(name string, set func(string)) {
						if name == member {
							set(forms[form])
						}
					})
				}})
				l.show("a case", member+" "+form)
				showKafka(t, l, c, cluster)
				hit.Remove()
				l.check()
			}
		}
		t.Logf("%d members: %v", len(members), members)
	})
}

// showKafka makes every call to the brokers, and shows what comes of it.
func showKafka(t *testing.T, l *leak, c *kafkatest.Cluster, cluster gracedb.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	pc := gracedb.ProducerConfig{Cluster: cluster, Topic: "test", AuthGrace: -1, FlushTimeout: time.Second}
	p, err := gracedb.NewProducer(ctx, pc)
	l.show("NewProducer", err)
	if err != nil {
		pc.Lazy = true
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if p, err = gracedb.NewProducer(ctx, pc); err != nil {
			t.Fatal(err)
		}
	}
	cc := gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, GroupID: "g", FromBeginning: true}
	con, err := gracedb.NewConsumer(ctx, cc)
	l.show("NewConsumer", err)
	if err != nil {
		cc.Lazy = true
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if con, err = gracedb.NewConsumer(ctx, cc); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	m, err := p.ProduceSync(ctx, gracedb.Message{Value: []byte("{}")})
	m.Value, m.Key = nil, nil
	l.show("ProduceSync", err)
	l.show("Message", m)
	_, err = p.Ping(ctx, "missing")
	l.show("Ping", err)
	l.show("Produce", p.Produce(ctx, gracedb.Message{Value: []byte("{}")}, nil))
	l.show("Flush", p.Flush(ctx))
	l.show("Check", p.Check(ctx))
	_, err = con.Poll(ctx)
	l.show("Poll", err)
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	l.show("consumer Check", con.Check(ctx))
	l.show("Subscribe", con.Subscribe(ctx, "absent"))
	l.show("Commit", con.Commit(ctx))
	l.show("Close", p.Close())
	l.show("Close", con.Close())
}

// A broker that was shown the token may put it into the certificate that it shows next.
func TestCanaryInCertificate(t *testing.T) {
	testrig.Virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
		token := testrig.Mint(t, c, testauth.Claims{Subject: "alice"})
		signature := token[strings.LastIndexByte(token, '.')+1:]
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Token = gracedb.StaticToken(token)
		p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
		authority, err := testauth.NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		for name, trusted := range map[string]bool{"of another name": true, "of another authority": false} {
			l := newLeak(t, token)
			l.causes = true
			certificate, err := authority.Certificate(signature[:40]+".example", signature)
			if err != nil {
				t.Fatal(err)
			}
			bad := testrig.StartCluster(t, kafkatest.Config{Virtual: true, TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
			cluster := cluster
			cluster.Brokers, cluster.Dial = bad.Addrs(), bad.Dial
			cluster.Logger = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))
			if trusted {
				cluster.CAFile = filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(cluster.CAFile, authority.PEM(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			showKafka(t, l, bad, cluster)
			l.show(name, pingWithOpts(t, cluster, l))
			l.check()
		}
	})
}
