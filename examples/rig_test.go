//go:build unix

// Package examples_test runs the programs of this module, as the files in deploy start
// them, on an embedded broker and GraceDB.
package examples_test

import (
	"bufio"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

const (
	patience = time.Minute
	// What the files name; programs that are run here get what is embedded instead.
	publicService = "https://gracedb-test.ligo.org/api/"
	publicBroker  = "kafka-dev.ligo.org:9092"
)

// programs builds the programs once, as the documents say, and returns where they are.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gracedb-examples-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "./...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return dir, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// services are an embedded broker and GraceDB.
type services struct {
	broker, service string
	ca              []byte // of the authority that both are certified by
	token           string
}

func startServices(t *testing.T) services {
	t.Helper()
	authority, err := testauth.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := testauth.NewIssuer("https://issuer.test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := gracetest.Start(gracetest.Config{Authority: authority, Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	broker, err := kafkatest.Start(kafkatest.Config{
		Authority: authority, Issuer: issuer, Topics: map[string]int{"localhost.test": 1, "localhost.gstlal": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	token, err := issuer.Token(testauth.Claims{Subject: "albert.einstein@ligo.org"})
	if err != nil {
		t.Fatal(err)
	}
	return services{
		broker: broker.Addrs()[0],
		// The host's first label names the instance of the topics.
		service: strings.Replace(server.URL(), "127.0.0.1", "localhost", 1),
		ca:      authority.PEM(), token: token,
	}
}

// write writes files into a new directory, and returns that.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// environment returns what a program needs to trust the services, and variables more.
// Nothing of this process's is in it.
func (s services) environment(t *testing.T, variables ...string) []string {
	t.Helper()
	return append(variables, "SSL_CERT_FILE="+filepath.Join(write(t, map[string]string{"ca.pem": string(s.ca)}), "ca.pem"))
}

// arguments returns arguments with the services in the place of the public ones. It fails
// if a program could reach any other: it must never be run with its defaults.
func (s services) arguments(t *testing.T, args []string) []string {
	t.Helper()
	args = slices.Clone(args)
	replaced := map[string]string{publicService: s.service, publicBroker: s.broker, ":2112": "127.0.0.1:0"}
	for _, need := range []string{publicService, publicBroker} {
		if !slices.Contains(args, need) {
			t.Fatalf("%q has no %s", args, need)
		}
	}
	for i, arg := range args {
		if with, ok := replaced[arg]; ok {
			args[i] = with
		}
	}
	for _, name := range []string{"-service", "-broker"} {
		if i := slices.Index(args, name); i < 0 || !slices.Contains(slices.Collect(maps.Values(replaced)), args[i+1]) {
			t.Fatalf("%q: %s is not that of the services here", args, name)
		}
	}
	return args
}

// A process is a program that runs beside the test.
type process struct {
	cmd   *exec.Cmd
	lines chan string // that it prints, to either output
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, lines: make(chan string, 1000)}
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer in.Close()
		_ = cmd.Wait()
	}()
	go func() {
		defer close(p.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			p.lines <- scan.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return p
}

// line waits for a line that holds text.
func (p *process) line(t *testing.T, text string) string {
	t.Helper()
	var seen []string
	late := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("the program ended without %q; it printed:\n%s", text, strings.Join(seen, "\n"))
			}
			if seen = append(seen, line); strings.Contains(line, text) {
				return line
			}
		case <-late:
			t.Fatalf("no %q after %v; it printed:\n%s", text, patience, strings.Join(seen, "\n"))
		}
	}
}

// stop ends a program as a service manager does, and reports how.
func (p *process) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for line := range p.lines { // until it has ended
		seen = append(seen, line)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("after %v it ended with %d:\n%s", signal, code, strings.Join(seen, "\n"))
	}
}

// publish publishes an event by the program publish.
func (s services) publish(t *testing.T) string {
	t.Helper()
	dir := write(t, map[string]string{"coinc.xml": event(t), "token": s.token})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "publish"), "-service", s.service, "-broker", s.broker, "coinc.xml")
	cmd.Dir, cmd.Env = dir, s.environment(t, "BEARER_TOKEN_FILE="+filepath.Join(dir, "token"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func event(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../testdata/events/coinc.xml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
