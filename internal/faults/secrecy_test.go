package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testrace"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// A leak collects everything that this package shows to anybody, and looks for
// pieces of a token in it.
type leak struct {
	t      *testing.T
	mu     sync.Mutex
	shown  bytes.Buffer
	causes bool // look into what errors wrap, too
	pieces map[string]bool
}

func newLeak(t *testing.T, token string) *leak {
	l := &leak{t: t, pieces: make(map[string]bool)}
	for i := 0; i+12 <= len(token); i++ {
		l.pieces[token[i:i+12]] = true
	}
	return l
}

func (l *leak) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shown.Write(b)
}

// show formats v in every way that programs do.
func (l *leak) show(what string, v any) {
	fmt.Fprintf(l, "\n%s: %v %+v %#v %q %s", what, v, v, v, v, v)
	if b, err := json.Marshal(v); err == nil {
		_, _ = l.Write(b)
	}
	slog.New(slog.NewJSONHandler(l, nil)).Info(what, "v", v)
	slog.New(slog.NewTextHandler(l, nil)).Info(what, "v", v)
	if !l.causes {
		return
	}
	if err, ok := v.(error); ok {
		if err = errors.Unwrap(err); err != nil {
			l.show(what, err)
		}
	}
	if many, ok := v.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			l.show(what, err)
		}
	}
}

// unseen deletes what stands in disguised tokens, as it is and as it is quoted.
var unseen = strings.NewReplacer("\u200b", "", "\u00ad", "", `\u200b`, "", `\u00ad`, "", `\U0000200b`, "", "%E2%80%8B", "", "&#8203;", "")

// disguises are how a peer may write a token that it was shown, so that whoever reads it
// has it whole, or nearly.
func disguises(token string) map[string]string {
	signature := token[strings.LastIndexByte(token, '.')+1:]
	every := func(n int, what string) string {
		var b strings.Builder
		for i := range len(token) {
			if i > 0 && i%n == 0 {
				b.WriteString(what)
			}
			b.WriteByte(token[i])
		}
		return b.String()
	}
	return map[string]string{
		"plain":       token,
		"bearer":      "Bearer " + token,
		"beheaded":    token[1:],
		"signature":   signature,
		"zero width":  every(2, "\u200b"),
		"soft hyphen": every(2, "\u00ad"),
		"escaped":     every(1, `\u200b`),
		"entities":    every(2, "&#8203;"),
		"host":        signature[:40] + "." + signature[40:] + ".example",
		"path":        "/api/" + signature + "/",
		"url":         "https://" + signature + ".example/" + token[1:],
	}
}

func (l *leak) check() {
	l.t.Helper()
	length, before, leaked := l.leaked()
	if leaked {
		l.t.Fatalf("a piece of the token is shown after …%q", before)
	}
	l.t.Logf("%d bytes looked at", length)
}

// leaked reports whether a piece of the token is shown, what stands before it, and how much
// is shown.
func (l *leak) leaked() (length int, before string, leaked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := unseen.Replace(l.shown.String())
	for i := 0; i+12 <= len(text); i++ {
		if l.pieces[text[i:i+12]] {
			return len(text), text[max(0, i-200):i], true
		}
	}
	return len(text), "", false
}

// One token goes through every way that this package talks: errors, logs at every
// level, formats, panics, files. No 12 bytes of its signature come out.
func TestFault_S4_CanaryToken(t *testing.T) {
	c := testrig.StartCluster(t, kafkatest.Config{Topics: map[string]int{"gracedb-test.test": 1}, MaxSession: 2 * time.Second})
	canary := testrig.Mint(t, c, testauth.Claims{Subject: "alice"})
	l := newLeak(t, canary)
	log := slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))

	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(canary), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BEARER_TOKEN_FILE", file)
	for name, source := range map[string]gracedb.TokenSource{
		"static": gracedb.StaticToken(canary),
		"found":  gracedb.ReloadToken(gracedb.FindToken(gracedb.TokenQuery{Scopes: []string{"other"}}), time.Hour),
		"failing": func(context.Context) (string, error) {
			return "", fmt.Errorf("no luck with %s", canary)
		},
		"garbled": gracedb.StaticToken(canary + "\x01auth=x"),
	} {
		cluster := testrig.ClusterFor(t, c, "alice")
		cluster.Token, cluster.Logger = source, log
		l.causes = name != "failing" // what the user's own source says stays the user's
		l.show(name, cluster)
		kafkaCanary(t, l, c, cluster)
		restCanary(t, l, c.Issuer(), source, log)
	}
	l.check()
}

// kafkaCanary takes a producer and a consumer through refusals and outages.
func kafkaCanary(t *testing.T, l *leak, c *kafkatest.Cluster, cluster gracedb.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	cfg := gracedb.ProducerConfig{Cluster: cluster, Topic: "test", AuthGrace: -1, FlushTimeout: 100 * time.Millisecond, Lazy: true}
	l.show("config", cfg)
	p, err := gracedb.NewProducer(ctx, cfg)
	l.show("NewProducer", err)
	if err != nil {
		return
	}
	con, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"test"}, Lazy: true, GroupID: "g"})
	l.show("NewConsumer", err)
	if err != nil {
		return
	}
	for _, refusal := range []*kafkatest.Refusal{
		nil, {Status: "invalid_token " + tokenOf(cluster)}, {Direct: true}, {Scope: "bearer " + tokenOf(cluster)},
	} {
		if refusal != nil {
			c.RefuseTokens(*refusal)
			c.Drop(0)
		}
		step, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := p.ProduceSync(step, gracedb.Message{Value: []byte("{}")})
		l.show("ProduceSync", err)
		l.show("Produce", p.Produce(step, gracedb.Message{Value: []byte("{}")}, nil))
		l.show("Check", p.Check(step))
		_, err = con.Poll(step)
		l.show("Poll", err)
		l.show("consumer Check", con.Check(step))
		cancel()
		c.AcceptTokens()
	}
	l.show("Close", p.Close())
	l.show("Close", con.Close())
}

// showAtRest formats a producer and a consumer. That reads their fields without
// their locks, so the race detector does not watch it.
func showAtRest(t *testing.T, l *leak, source gracedb.TokenSource) {
	if testrace.Enabled {
		return
	}
	cluster := gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "gracedb-test", Token: source}
	p, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	con, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	l.show("Close", errors.Join(p.Close(), con.Close()))
	l.show("producer", p)
	l.show("consumer", con)
	func() {
		defer func() { l.show("panic", recover()) }()
		panic(p)
	}()
}

func tokenOf(c gracedb.Cluster) string {
	token, err := c.Token(context.Background())
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(token, "\x01auth=x")
}

// restCanary sends the token to a GraceDB that echoes it in every form.
func restCanary(t *testing.T, l *leak, issuer *testauth.Issuer, source gracedb.TokenSource, log *slog.Logger) {
	s, err := gracetest.Start(gracetest.Config{Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, s.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: s.URL(), CAFile: ca, Token: source, Logger: log, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	l.show("client", client)
	showAtRest(t, l, source)
	echo := tokenOf(gracedb.Cluster{Token: source})
	event := gracedb.Event{Group: "Test", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("x")}
	for _, body := range []string{
		`{"error":"bad token ` + echo + `"}`, `{"detail":"Bearer ` + echo + `"}`, "<html>" + echo + "</html>",
		`["` + echo[len(echo)/2:] + `"]`, strings.Repeat("x", 4090) + echo,
	} {
		for _, status := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusServiceUnavailable, http.StatusCreated} {
			for _, kind := range []string{"create", "reserve"} {
				s.Script(gracetest.Fault{On: kind, Status: status, Body: body, Times: -1})
			}
			receipt, err := client.CreateEvent(t.Context(), event)
			l.show("CreateEvent", err)
			l.show("receipt", receipt)
			_, err = client.Reserve(t.Context(), event)
			l.show("Reserve", err)
			s.Heal()
		}
	}
	s.Script(gracetest.Fault{On: "create", Status: http.StatusFound, Header: http.Header{"Location": {"https://elsewhere.test/?t=" + echo}}, Times: -1})
	_, err = client.CreateEvent(t.Context(), event)
	l.show("redirect", err)
}
