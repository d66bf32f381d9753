package gracedb_test

import (
	"errors"
	"flag"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testlog"
	"github.com/gracedb-go/gracedb/internal/testrig"
)

// No test leaves a goroutine behind. Examples are left to TestExamples, which runs this
// program again for each.
func TestMain(m *testing.M) {
	if os.Getenv(pasted) != "" {
		os.Exit(m.Run())
	}
	flag.Parse()
	skip := flag.Lookup("test.skip").Value
	if err := skip.Set(strings.TrimSuffix("^Example|"+skip.String(), "|")); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// A lockedBuffer may be written to from several goroutines.
type lockedBuffer = testlog.Log

func wantIs(t testing.TB, err error, is ...error) {
	t.Helper()
	for _, kind := range is {
		if !errors.Is(err, kind) {
			t.Errorf("not %q: %v", kind, err)
		}
	}
}

// The parts of testrig, by the names that tests here have for them.
const testTopic = testrig.Topic

type (
	service   = testrig.Service
	rigConfig = testrig.RigConfig
)

var (
	startCluster      = testrig.StartCluster
	virtually         = testrig.Virtually
	clusterFor        = testrig.ClusterFor
	mint              = testrig.Mint
	newProducer       = testrig.NewProducer
	newConsumer       = testrig.NewConsumer
	send              = testrig.Send
	poll              = testrig.Poll
	values            = testrig.Values
	produceRaw        = testrig.ProduceRaw
	wantErr           = testrig.WantErr
	kinds             = testrig.Kinds
	record            = testrig.Record
	groups            = testrig.Groups
	committed         = testrig.Committed
	constructors      = testrig.Constructors
	allow             = testrig.Allow
	produceWith       = testrig.ProduceWith
	within            = testrig.Within
	transact          = testrig.Transact
	withoutAutoCommit = testrig.WithoutAutoCommit
	withGroups        = testrig.WithGroups
	pollAll           = testrig.PollAll
	rewrite           = testrig.Rewrite
	newService        = testrig.NewService
	newClient         = testrig.NewClient
	tokenIs           = testrig.TokenIs
	event             = testrig.Event
	inBubble          = testrig.InBubble
	newRig            = testrig.NewRig
	contentIDOf       = testrig.ContentIDOf
)

// pasted is the variable that tells this program to run an example.
const pasted = "GRACEDB_TEST_EXAMPLE"

// Each example is what a reader makes of it who pastes it: a whole program, which learns
// from its environment alone where broker, GraceDB, authority and token are.
func TestExamples(t *testing.T) {
	var examples []*doc.Example
	for _, source := range []string{"example_test.go", "example_consumer_test.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		examples = append(examples, doc.Examples(file)...)
	}
	if len(examples) < 16 {
		t.Errorf("only %d examples", len(examples))
	}
	for _, example := range examples {
		name := "Example" + example.Name
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch {
			case example.Play == nil:
				t.Fatal("it needs what is not in its file: a reader cannot paste it")
			case example.Output == "":
				t.Fatal("it does not say what it prints, so that it is not run")
			}
			runExample(t, name)
		})
	}
}

// runExample runs an example in a process of its own, beside services of its own.
func runExample(t *testing.T, name string) {
	services, err := startServices()
	if err != nil {
		t.Fatal(err)
	}
	defer services.stop()
	token, err := services.token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	event, err := os.ReadFile("testdata/events/coinc.xml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, data := range map[string][]byte{"token": []byte(token), "coinc.xml": event} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+name+"$", "-test.timeout=2m")
	cmd.Dir = dir
	cmd.Env = append(
		slices.DeleteFunc(os.Environ(), func(v string) bool {
			name, _, _ := strings.Cut(v, "=")
			return slices.Contains([]string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "SSL_CERT_DIR"}, name)
		}),
		pasted+"="+name, "KAFKA_BROKER="+services.brokers[0], "TEST_SERVICE="+services.serviceURL,
		"BEARER_TOKEN_FILE="+filepath.Join(dir, "token"), "SSL_CERT_FILE="+services.caFile,
	)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+name+" ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// services are the embedded broker and GraceDB that an example runs against.
type services struct {
	brokers    []string
	serviceURL string
	caFile     string
	token      gracedb.TokenSource
	stop       func()
}

func startServices() (services, error) {
	authority, err := testauth.NewAuthority()
	if err != nil {
		return services{}, err
	}
	issuer, err := testauth.NewIssuer("https://issuer.test")
	if err != nil {
		return services{}, err
	}
	server, err := gracetest.Start(gracetest.Config{Authority: authority, Issuer: issuer})
	if err != nil {
		return services{}, err
	}
	broker, err := kafkatest.Start(kafkatest.Config{
		Authority: authority, Issuer: issuer,
		Topics: map[string]int{"localhost.test": 1, "localhost.gstlal": 1, "localhost.pycbc": 1},
	})
	if err != nil {
		server.Close()
		return services{}, err
	}
	token, err := issuer.Token(testauth.Claims{Subject: "albert.einstein@ligo.org"})
	if err != nil {
		return services{}, err
	}
	dir, err := os.MkdirTemp("", "gracedb-example")
	if err != nil {
		return services{}, err
	}
	caFile := filepath.Join(dir, "ca.pem")
	return services{
		brokers: broker.Addrs(), caFile: caFile,
		// The host's first label names the instance.
		serviceURL: strings.Replace(server.URL(), "127.0.0.1", "localhost", 1),
		token:      gracedb.StaticToken(token),
		stop: func() {
			broker.Close()
			server.Close()
			_ = os.RemoveAll(dir)
		},
	}, os.WriteFile(caFile, authority.PEM(), 0o600)
}
