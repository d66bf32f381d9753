package gracedb_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

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
	rig       = testrig.Rig
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
	inRig             = testrig.InRig
	contentIDOf       = testrig.ContentIDOf
)
