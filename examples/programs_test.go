//go:build unix

package examples_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// get returns what follow answers.
func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// addressOf waits until follow is up, and returns where it listens.
func (p *process) addressOf(t *testing.T) string {
	t.Helper()
	_, address, ok := strings.Cut(p.line(t, "metrics are served"), "address=")
	if !ok {
		t.Fatal("it does not say where")
	}
	return address
}

// The program follow counts uploads, and has kprom's metrics of its Consumer.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := startServices(t)
	token := filepath.Join(write(t, map[string]string{"token": s.token}), "token")
	cmd := exec.Command(program(t, "follow"), "-service", s.service, "-broker", s.broker, "-listen", "127.0.0.1:0", "test", "gstlal")
	cmd.Env = s.environment(t, "BEARER_TOKEN_FILE="+token)
	p := start(t, cmd)
	address := p.addressOf(t)
	if status, body := get(t, address, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	t.Log(s.publish(t))
	p.line(t, "graceid=T1001")
	_, metrics := get(t, address, "/metrics")
	for _, want := range []string{
		`^gracedb_messages_total\{kind="upload",pipeline="gstlal"\} 1$`,
		`^gracedb_upload_age_seconds_count 1$`,
		`^kafka_consumer_connects_total\{node_id="\d+"\} [1-9]`,
		`^kafka_consumer_read_bytes_total\{node_id="\d+"\} [1-9]`,
		`^kafka_consumer_fetch_bytes_total\{node_id="\d+",topic="localhost\.test"\} [1-9]`,
		`^go_goroutines [1-9]`,
	} {
		if !regexp.MustCompile(`(?m)` + want).MatchString(metrics) {
			t.Errorf("/metrics has no %s:\n%s", want, metrics)
		}
	}
	p.stop(t, syscall.SIGTERM)
}

// A span as stdouttrace prints it.
type span struct {
	Name                string
	SpanContext, Parent struct{ TraceID, SpanID string }
	Status              struct{ Code string }
}

// The program trace makes one trace of what it publishes and receives, and has kotel's
// metrics of its Producer and its Consumer.
func TestTrace(t *testing.T) {
	t.Parallel()
	s := startServices(t)
	dir := write(t, map[string]string{"token": s.token, "coinc.xml": event(t)})
	cmd := exec.CommandContext(t.Context(), program(t, "trace"), "-service", s.service, "-broker", s.broker, "coinc.xml")
	cmd.Dir, cmd.Env = dir, s.environment(t, "BEARER_TOKEN_FILE="+filepath.Join(dir, "token"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	time.AfterFunc(patience, func() { _ = cmd.Cancel() })
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	spans := make(map[string]span)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var one span
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		// Of two that are received, the second has a trace in its headers.
		spans[one.Name] = one
	}
	root := spans["event"]
	for name, parent := range map[string]string{"PublishEvent": "event", "tell": "event", "localhost.test receive": "tell"} {
		got := spans[name]
		if got.SpanContext.TraceID == "" || got.SpanContext.TraceID != root.SpanContext.TraceID {
			t.Errorf("%s is not in the trace of the event: %+v", name, spans)
		}
		if got.Parent.SpanID != spans[parent].SpanContext.SpanID {
			t.Errorf("%s is not below %s: %+v", name, parent, spans)
		}
	}
	for _, want := range []string{
		"messaging.kafka.connects.count", "messaging.kafka.write_bytes", "messaging.kafka.read_bytes.count", "messaging.kafka.fetch_records.count",
	} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("there is no metric %s:\n%s", want, out)
		}
	}
}
