package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// enough is more than any of these tests takes, on the slowest machine.
const enough = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	t.Cleanup(cancel)
	return ctx
}

// tempDir is where temporary files go, all of which must be gone in the end.
func tempDir(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
	})
}

// An output is what a command writes.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer  // guarded by mu
	written chan struct{} // closed by the next Write; guarded by mu
}

func newOutput() *output { return &output{written: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.written)
	o.written = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) state() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.written
}

func (o *output) String() string {
	text, _ := o.state()
	return text
}

// wait waits until there is text that re matches, and returns its groups.
func (o *output) wait(ctx context.Context, t *testing.T, re string) []string {
	t.Helper()
	for {
		text, written := o.state()
		if m := regexp.MustCompile(re).FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-written:
		case <-ctx.Done():
			t.Fatalf("nothing like %q in:\n%s", re, text)
		}
	}
}

// start runs a command. stop asks it to end, as Ctrl-C does, and waits.
func start(ctx context.Context, args ...string) (out *output, stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	out, done := newOutput(), make(chan error, 1)
	go func() { done <- run(ctx, args, out, out) }()
	return out, func() error {
		cancel()
		return <-done
	}
}

func TestPublishOnEmbeddedServices(t *testing.T) {
	tempDir(t)
	var out, errs bytes.Buffer
	if err := run(within(t), nil, &out, &errs); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for n := range len(sampleEvents()) {
		for _, step := range []string{"published", "received ", "completed"} {
			if want := fmt.Sprintf("\n%s G%d ", step, 1001+n); !strings.Contains(out.String(), want) {
				t.Errorf("no %q", want)
			}
		}
	}
	for _, want := range []string{
		"\nfallback  G1007 ", "coinc.xml over HTTP in ", "connection refused", // without the broker
		"\npublished G1008 ", "\ncompleted G1008 ", // with it again
		"\nGraceDB has all 8 events, byte for byte as published.\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", &out)
	}
	if errs.Len() > 0 {
		t.Errorf("on stderr: %s", &errs)
	}
}

func TestPublishFilesOnEmbeddedServices(t *testing.T) {
	tempDir(t)
	var out bytes.Buffer
	if err := run(within(t), []string{"-pipeline", "CWB", "../../testdata/events/trigger.txt"}, &out, io.Discard); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !regexp.MustCompile(`received  T1001 +localhost\.test .* trigger\.txt\n`).MatchString(out.String()) {
		t.Errorf("not received:\n%s", &out)
	}
}

// TestInterrupted is Ctrl-C at the start, in the middle and near the end.
func TestInterrupted(t *testing.T) {
	for _, when := range []string{"Kafka broker", "REST client", "published G1002", "killed"} {
		t.Run(when, func(t *testing.T) {
			tempDir(t)
			ctx := within(t)
			out, stop := start(ctx)
			out.wait(ctx, t, when)
			if err := stop(); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
		})
	}
}

// A shortWriter takes so many writes.
type shortWriter struct{ left int }

var errGone = errors.New("the reader is gone")

func (w *shortWriter) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, errGone
	}
	return len(p), nil
}

func TestReaderGone(t *testing.T) {
	for _, lines := range []int{0, 9} {
		t.Run(fmt.Sprint(lines), func(t *testing.T) {
			tempDir(t)
			if err := run(within(t), nil, &shortWriter{lines}, io.Discard); !errors.Is(err, errGone) {
				t.Errorf("%v, want %v", err, errGone)
			}
		})
	}
}

// Whatever TMPDIR is called, a shell that reads env.sh runs nothing of it.
func TestServeQuotes(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here")
	}
	dir := filepath.Join(t.TempDir(), "a b$(touch hit)`touch hit`'\"\\;touch hit;#")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	ctx := within(t)
	out, stop := start(ctx, "serve")
	out.wait(ctx, t, `export BEARER_TOKEN_FILE=.*\n`)
	scripts, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*", "*", "env.sh"))
	if err != nil || len(scripts) != 1 {
		t.Fatalf("%q, %v", scripts, err)
	}
	for _, script := range []string{scripts[0], filepath.Join(t.TempDir(), "printed")} {
		if script != scripts[0] {
			if err := os.WriteFile(script, []byte(out.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(ctx, shell, "-c", `. "$1" && printf %s "$BEARER_TOKEN_FILE"`, "sh", script)
		cmd.Dir = t.TempDir()
		said, err := cmd.CombinedOutput()
		if err != nil || filepath.Dir(string(said)) != filepath.Dir(scripts[0]) {
			t.Errorf("%s gives %q, %v", script, said, err)
		}
		if left, _ := filepath.Glob(filepath.Join(cmd.Dir, "*")); len(left) > 0 {
			t.Errorf("something was run: %q", left)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// startServe starts the command serve and sets the variables that it prints.
func startServe(ctx context.Context, t *testing.T) (out *output, stop func() error) {
	t.Helper()
	tempDir(t)
	out, stop = start(ctx, "serve")
	out.wait(ctx, t, `export BEARER_TOKEN_FILE=.*\n`)
	for _, m := range regexp.MustCompile(`(?m)^export ([A-Z_]+)=(.*)$`).FindAllStringSubmatch(out.String(), -1) {
		t.Setenv(m[1], m[2])
	}
	for name := range strings.FieldsSeq(regexp.MustCompile(`(?m)^unset (.*)$`).FindStringSubmatch(out.String())[1]) {
		t.Setenv(name, "")
	}
	return out, stop
}

// connect returns the flags for what startServe started.
func connect(more ...string) []string {
	return append([]string{"-brokers", os.Getenv("KAFKA_BROKER"), "-service", os.Getenv("TEST_SERVICE"), "-ca", os.Getenv("KAFKA_CA_CERT")}, more...)
}

func TestServe(t *testing.T) {
	ctx := within(t)
	out, stop := startServe(ctx, t)

	script := out.wait(ctx, t, `source (\S+)\n`)[1]
	exported, err := os.ReadFile(script)
	if err != nil || !strings.Contains(out.String(), string(exported)) {
		t.Errorf("%s: %q, %v", script, exported, err)
	}
	if info, err := os.Stat(os.Getenv("BEARER_TOKEN_FILE")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v, %v, want mode 0600", info, err)
	}
	// A client that knows nothing but the variables, as any program has it.
	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: os.Getenv("TEST_SERVICE"), CAFile: os.Getenv("REQUESTS_CA_BUNDLE")})
	if err != nil {
		t.Fatal(err)
	}
	cluster := gracedb.Cluster{Brokers: []string{os.Getenv("KAFKA_BROKER")}, ServiceURL: os.Getenv("TEST_SERVICE"), CAFile: os.Getenv("KAFKA_CA_CERT")}
	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"gstlal"}})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	event := gracedb.Event{Group: "CBC", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<LIGO_LW/>")}
	receipt, err := client.PublishEvent(ctx, producer, event, gracedb.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Poll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := m.Upload(); err != nil || u.GraceID != receipt.GraceID || !bytes.Equal(u.Data, event.Data) {
		t.Errorf("received %q, %q, %v, want %q, %q", u.GraceID, u.Data, err, receipt.GraceID, event.Data)
	}
	out.wait(ctx, t, receipt.GraceID+" is in GraceDB\n")

	// What is no event does not disturb it.
	if _, err := producer.ProduceSync(ctx, gracedb.Message{Topic: "gstlal", Value: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	out.wait(ctx, t, "not uploaded: .*offset 1")
	if err := stop(); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestRealServices(t *testing.T) {
	ctx := within(t)
	_, stopServe := startServe(ctx, t)
	publish := func() {
		t.Helper()
		var out bytes.Buffer
		if err := run(ctx, connect("-topic", "mly", "../../testdata/events/event.json"), &out, &out); err != nil {
			t.Fatalf("%v\n%s", err, &out)
		}
		if !strings.Contains(out.String(), "\nreceived  T") {
			t.Errorf("not received:\n%s", &out)
		}
	}

	publish()
	out, stop := start(ctx, append([]string{"stream"}, connect("-from-beginning", "mly", "test")...)...)
	out.wait(ctx, t, `localhost\.mly +0 +0 +\d+  T1001 +gstlal event\.json, 210 bytes\n`)
	publish()
	out.wait(ctx, t, `localhost\.mly +0 +1 +\d+  T1002 `)
	if err := stop(); err != nil {
		t.Errorf("stream: %v", err)
	}
	if err := stopServe(); err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestStreamFails(t *testing.T) {
	ctx := within(t)
	_, stop := startServe(ctx, t)
	err := run(ctx, append([]string{"stream"}, connect("nosuch")...), io.Discard, io.Discard)
	if !errors.Is(err, gracedb.ErrTopic) || !strings.Contains(err.Error(), "localhost.nosuch") {
		t.Errorf("%v, want ErrTopic", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string
	}{
		{"-nosuch", "-nosuch"},
		{"-brokers localhost:1 x.go", "-service"},
		{"-service https://gracedb-test.ligo.org/api/ x.go", "-brokers"},
		{"-ca x.pem", "-brokers"},
		{"-brokers localhost:1 -service https://gracedb-test.ligo.org/api/", "no file"},
		{"stream", "-brokers"},
		{"stream -brokers localhost:1", "-service"},
		{"stream -brokers localhost:1 -service https://gracedb-test.ligo.org/api/", "topic"},
		{"stream -nosuch", "-nosuch"},
		{"serve -kafka-port x", "-kafka-port"},
		{"serve -kafka-port 65536", "-kafka-port"},
		{"serve -gracedb-port -1", "-gracedb-port"},
		{"serve -token-life 1s", "-token-life"},
		{"serve more", `"more"`},
	} {
		args := strings.Fields(tt.args)
		for i := range args {
			args[i] = strings.Replace(args[i], "x.go", "main.go", 1)
		}
		err := run(within(t), args, io.Discard, io.Discard)
		if _, ok := errors.AsType[usageError](err); !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("demo %s: %v, want a usage error with %q", tt.args, err, tt.want)
		}
	}
}

func TestHelp(t *testing.T) {
	for args, want := range map[string]string{"-h": "-service", "stream -help": "-from-beginning", "serve -h": "-token-life"} {
		var out bytes.Buffer
		if err := run(within(t), strings.Fields(args), &out, io.Discard); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("demo %s: %v, %s, want %q", args, err, &out, want)
		}
	}
}

func TestMissingFile(t *testing.T) {
	err := run(within(t), []string{"nosuch.xml"}, io.Discard, io.Discard)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "nosuch.xml") {
		t.Errorf("%v, want the file's name", err)
	}
}

func TestTokenRenewal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	synctest.Test(t, func(t *testing.T) {
		issuer, err := testauth.NewIssuer("https://issuer.test")
		if err != nil {
			t.Fatal(err)
		}
		e := &embedded{uploads: make(chan upload), token: tokenFile{path: path, life: time.Hour, issuer: issuer}}
		if err := e.token.write(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.serve(ctx, e.token.life/2, io.Discard, io.Discard) }()
		for range 24 {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			token, err := e.token.read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			claims, err := issuer.Verify(token)
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(claims.Expires); left < 30*time.Minute {
				t.Errorf("%v left", left)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServeWithoutSupervisor(t *testing.T) {
	e := &embedded{uploads: make(chan upload)}
	close(e.uploads)
	if err := e.serve(within(t), time.Hour, io.Discard, io.Discard); err == nil {
		t.Error("serves on although the supervisor has ended")
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"coinc.xml": "coinc.xml", "": `""`, "a\x1b[2J": `"a\x1b[2J"`, "a\nb": `"a\nb"`, "\xff": `"\xff"`,
		strings.Repeat("x", 1000): `"` + strings.Repeat("x", 60) + `"`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %s, want %s", in, got, want)
		}
	}
}
