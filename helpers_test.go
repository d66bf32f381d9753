package gracedb_test

import (
	"errors"
	"os"
	"path/filepath"
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

// No test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// services are the embedded broker and GraceDB that the examples run against. A
// program names real ones instead.
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
		Topics: map[string]int{"localhost.test": 1, "localhost.gstlal": 1},
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
