//go:build unix

package interop

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// The names of the 19 tests in the peer's own integration file: if one were
// missing or skipped, all having passed would mean less than it seems to.
var peerTests = []string{
	"TestKafkaProducerIntegration.test_producer_creation",
	"TestKafkaProducerIntegration.test_ping_round_trip",
	"TestKafkaProducerIntegration.test_produce_single_message_strict",
	"TestKafkaProducerIntegration.test_produce_multiple_messages",
	"TestKafkaProducerIntegration.test_produce_with_delivery_callback",
	"TestKafkaProducerIntegration.test_produce_with_headers",
	"TestKafkaProducerIntegration.test_explicit_topic_is_namespaced",
	"TestKafkaProducerIntegration.test_token_refresh_manager_over_time",
	"TestKafkaProducerIntegration.test_context_manager",
	"TestKafkaAuthenticationIntegration.test_token_discovery",
	"TestKafkaAuthenticationIntegration.test_oauth_callback",
	"TestKafkaAuthenticationIntegration.test_refresh_manager",
	"TestKafkaErrorHandling.test_unreachable_broker_fails_at_construction",
	"TestKafkaErrorHandling.test_missing_topic_fails_at_construction",
	"TestKafkaErrorHandling.test_wrong_instance_lists_available_instances",
	"TestKafkaErrorHandling.test_ping_missing_topic",
	"TestKafkaErrorHandling.test_missing_topic_diagnosed_on_strict_flush",
	"TestGraceDbClientIntegration.test_create_producer_from_client",
	"TestKafkaPerformance.test_throughput",
}

func TestPeerIntegrationFileOnRealKafka(t *testing.T) {
	t.Parallel() // it waits most of its time, for hosts that do not exist
	ctx, s := need(t)
	must(t, s.kafka.CreateTopic(ctx, "integration.test", 1, nil))
	box := s.sandbox(ctx, t)
	runPeerTests(t, box, []string{
		"KAFKA_BROKER=" + s.kafka.Addrs()[0],
		"TEST_SERVICE=https://integration.example/api/",
		"KAFKA_CA_CERT=" + box.CAFile,
	})
}

// The embedded broker, proved by a client that we did not write.
func TestPeerIntegrationFileOnTheDemo(t *testing.T) {
	t.Parallel()
	wanted(t)
	ctx := t.Context()
	binary := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "../demo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	demo := exec.CommandContext(ctx, binary, "serve")
	var stderr bytes.Buffer
	demo.Stderr = &stderr
	out, err := demo.StdoutPipe()
	must(t, err)
	must(t, demo.Start())
	env := exported(t, out, "KAFKA_BROKER", "TEST_SERVICE", "KAFKA_CA_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "BEARER_TOKEN_FILE")

	authority, err := testauth.NewAuthority()
	must(t, err)
	issuer, err := testauth.NewIssuer("https://nobody.test")
	must(t, err)
	box, err := NewSandbox(ctx, t.TempDir(), authority, issuer)
	must(t, err)
	runPeerTests(t, box, env)

	must(t, demo.Process.Signal(syscall.SIGTERM))
	if err := demo.Wait(); err != nil {
		t.Errorf("the demo, after SIGTERM: %v\n%s", err, stderr.Bytes())
	}
}

// exported reads from a program's output until it has told a shell to export all
// of these variables, and returns them with their values.
func exported(t *testing.T, out io.Reader, names ...string) (env []string) {
	t.Helper()
	left := slices.Clone(names)
	lines := bufio.NewScanner(out)
	for len(left) > 0 && lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "export "); ok {
			env = append(env, v)
			name, _, _ := strings.Cut(v, "=")
			left = slices.DeleteFunc(left, func(n string) bool { return n == name })
		}
	}
	if len(left) > 0 {
		t.Fatalf("not exported: %q (%v)", left, lines.Err())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // so that it never waits for us
	return env
}

// runPeerTests runs the peer's own integration file, unchanged.
func runPeerTests(t *testing.T, box *Sandbox, env []string) {
	t.Helper()
	report := filepath.Join(box.Dir, "report.xml")
	cmd := box.Command(t.Context(), "-m", "pytest", "-p", "no:cacheprovider", "--junitxml="+report,
		"--pyargs", "ligo.gracedb.kafka.test.integration.test_kafka_integration")
	cmd.Env = append(append(cmd.Env, "KAFKA_PERFORMANCE_TESTS=1"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("pytest: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(report)
	must(t, err)
	var suites struct {
		Cases []struct {
			Class   string    `xml:"classname,attr"`
			Name    string    `xml:"name,attr"`
			Skipped *struct{} `xml:"skipped"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
		} `xml:"testsuite>testcase"`
	}
	must(t, xml.Unmarshal(raw, &suites))
	passed := make(map[string]bool)
	for _, c := range suites.Cases {
		// The class name has the module in front.
		name := filepath.Ext(c.Class)[1:] + "." + c.Name
		passed[name] = c.Skipped == nil && c.Failure == nil && c.Error == nil
	}
	for _, name := range peerTests {
		if !passed[name] {
			t.Errorf("%s has not passed", name)
		}
	}
	if len(passed) != len(peerTests) {
		t.Errorf("%d tests ran, want %d:\n%s", len(passed), len(peerTests), out)
	}
}
