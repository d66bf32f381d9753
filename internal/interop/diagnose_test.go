//go:build unix

package interop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A ward is three brokers of Apache Kafka and a GraceDB, for Diagnose to look at.
type ward struct {
	*setting
	cfg gracedb.DiagnoseConfig // with which all is well
}

func openWard(ctx context.Context, t *testing.T) *ward {
	t.Helper()
	kafka, err := realkafka.Start(ctx, realkafka.Config{Brokers: 3})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(kafka.Log(20))
		}
		must(t, kafka.Close())
	})
	grace, err := gracetest.Start(gracetest.Config{Authority: kafka.Authority, Issuer: kafka.Issuer})
	must(t, err)
	t.Cleanup(grace.Close)
	w := &ward{setting: &setting{kafka: kafka, grace: grace, instance: "real"}}
	one := "1"
	_, err = kafka.Admin().CreateTopic(ctx, 3, 1, map[string]*string{"min.insync.replicas": &one}, "real.aframe")
	must(t, err)
	topic := func(name string, config map[string]string) error {
		return kafka.CreateTopic(ctx, "real."+name, 1, config)
	}
	must(t, errors.Join(
		kafka.Allow(ctx, "alice", "*", kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpDescribeConfigs), kafka.AllowGroups(ctx, "alice"),
		kafka.Allow(ctx, "bob", "*", kadm.OpDescribe), kafka.AllowGroups(ctx, "bob"),
		kafka.Allow(ctx, "erin", "*", kadm.OpRead, kadm.OpWrite),
		topic("gstlal", nil), topic("test", nil),
		topic("pycbc", map[string]string{"max.message.bytes": "100000"}),
		topic("spiir", map[string]string{"compression.type": "uncompressed"}),
		topic("mly", map[string]string{"cleanup.policy": "compact"}),
		topic("cwb", map[string]string{"min.insync.replicas": "3"}),
	))
	token := gracedb.StaticToken(w.token(t, testauth.Claims{}))
	w.cfg = gracedb.DiagnoseConfig{
		Client:  gracedb.ClientConfig{ServiceURL: grace.URL(), CAFile: w.caFile(t), Token: token},
		Cluster: gracedb.Cluster{Brokers: kafka.Addrs(), Instance: "real", CAFile: w.caFile(t), Token: token},
		Publish: []string{"gstlal"}, Consume: []string{"test"}, GroupID: "of-diagnose",
	}
	return w
}

// diagnose returns what Diagnose finds, one finding a line.
func (w *ward) diagnose(ctx context.Context, t *testing.T, cfg gracedb.DiagnoseConfig) []gracedb.Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return gracedb.Diagnose(ctx, cfg)
}

// A plantedFault is a fault of the configuration, or in the brokers, and how Diagnose names it.
type plantedFault struct {
	name  string
	plant func(*testing.T, *ward, *gracedb.DiagnoseConfig)

	check, target, detail, advice string
}

// as makes another principal ask.
func as(claims testauth.Claims) func(*testing.T, *ward, *gracedb.DiagnoseConfig) {
	return func(t *testing.T, w *ward, cfg *gracedb.DiagnoseConfig) {
		cfg.Cluster.Token = gracedb.StaticToken(w.token(t, claims))
		cfg.Client.Token = cfg.Cluster.Token
	}
}

func publishing(pipeline string) func(*testing.T, *ward, *gracedb.DiagnoseConfig) {
	return func(_ *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) { cfg.Publish = []string{pipeline} }
}

// faultsOfSettings are named while all brokers are up.
var faultsOfSettings = []plantedFault{
	{"no token", func(t *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) {
		for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN"} {
			t.Setenv(name, "")
		}
		t.Setenv("BEARER_TOKEN_FILE", filepath.Join(t.TempDir(), "token"))
		cfg.Cluster.Token, cfg.Client.Token = nil, nil
	}, "token", "", "htgettoken", "renews the token"},
	{"expired token", as(testauth.Claims{IssuedAt: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)}), "token", "", "expired", "renews the token"},
	{"token that ends soon", func(t *testing.T, w *ward, cfg *gracedb.DiagnoseConfig) {
		as(testauth.Claims{Expires: time.Now().Add(3 * time.Minute)})(t, w, cfg)
	}, "token", "", "it ends in 2m", "renew"},
	{"scope", as(testauth.Claims{Scope: "read:/frames"}), "token", "", "lacks the scope", "scope"},
	{"audience", as(testauth.Claims{Audience: []string{"https://elsewhere.test"}}), "sasl", "", "another audience", "htgettoken"},
	{"signature of another", func(t *testing.T, w *ward, cfg *gracedb.DiagnoseConfig) {
		stranger, err := testauth.NewIssuer(w.kafka.Issuer.URL())
		must(t, err)
		forged, err := stranger.Token(testauth.Claims{})
		must(t, err)
		cfg.Cluster.Token = gracedb.StaticToken(forged)
	}, "sasl", "", "refused the token", ""},
	{
		"wrong port", func(_ *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) {
			cfg.Cluster.Brokers = []string{"localhost:1"}
		},
		"tcp", "localhost:1", "refused", "correct the port",
	},
	{"name that is not found", func(_ *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) {
		cfg.Cluster.Brokers = []string{"kafka.invalid:9092"}
	}, "names", "kafka.invalid", "", "DNS"},
	{"authority", func(t *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) {
		other, err := testauth.NewAuthority()
		must(t, err)
		cfg.Cluster.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		must(t, os.WriteFile(cfg.Cluster.CAFile, other.PEM(), 0o600))
	}, "tls", "", "authority", "CAFile"},
	{
		"no CA file", func(_ *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) { cfg.Cluster.CAFile = "/nowhere/ca.pem" },
		"tls", "", "/nowhere/ca.pem", "CAFile",
	},
	{
		"no TLS on a port that has it", func(_ *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) {
			cfg.Cluster.Plaintext, cfg.Cluster.CAFile = true, ""
		},
		"versions", "localhost", "no answer", "unset Plaintext",
	},
	{"not Kafka", func(_ *testing.T, w *ward, cfg *gracedb.DiagnoseConfig) {
		cfg.Cluster.Brokers = []string{strings.TrimSuffix(strings.TrimPrefix(w.grace.URL(), "https://"), "/api/")}
	}, "versions", "", "HTTP", "Kafka broker"},
	{
		"instance", func(_ *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) { cfg.Cluster.Instance = "unreal" },
		"topics", "unreal", "real", "Instance",
	},
	{
		"topic in another case", func(_ *testing.T, _ *ward, cfg *gracedb.DiagnoseConfig) { cfg.Consume = []string{"TEST"} },
		"topic", "TEST", "does not exist", `did you mean "real.test"`,
	},
	{"may not write", as(testauth.Claims{Subject: "bob"}), "write", "real.gstlal", "bob", "WRITE"},
	{"may not read", as(testauth.Claims{Subject: "bob"}), "read", "real.test", "bob", "READ"},
	{"may not see", as(testauth.Claims{Subject: "carol"}), "topic", "real.gstlal", "carol", "rights"},
	{"may not use the group", as(testauth.Claims{Subject: "erin"}), "group", "of-diagnose", "erin", "READ"},
	{"size", publishing("pycbc"), "size", "real.pycbc", "at most 100000 bytes", "max.message.bytes"},
	{"compression", publishing("spiir"), "compression", "real.spiir", "inflates", "compression.type"},
	{"compacted", publishing("mly"), "cleanup", "real.mly", "without a key", "Message.Key"},
}

// faultsOfABroker are named while one of three brokers is down.
var faultsOfABroker = []plantedFault{
	{"a broker is down", func(*testing.T, *ward, *gracedb.DiagnoseConfig) {}, "tcp", "localhost", "refused", ""},
	{"no leader", publishing("aframe"), "leaders", "real.aframe", "partition", "start"},
	{"too few replicas", publishing("cwb"), "replicas", "real.cwb", "too few replicas", "start"},
}

// Diagnose names each fault on Apache Kafka, and leaves nothing there: no message, no group, no topic.
func TestDiagnoseOnRealKafka(t *testing.T) {
	wanted(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	w := openWard(ctx, t)
	before, err := w.kafka.Admin().ListTopics(ctx)
	must(t, err)

	for _, f := range w.diagnose(ctx, t, w.cfg) {
		t.Log(f)
		if f.Severity != gracedb.OK {
			t.Errorf("all is well, and it says %s", f)
		}
	}
	w.name(ctx, t, faultsOfSettings)

	after, err := w.kafka.Admin().ListTopics(ctx)
	must(t, err)
	if was, is := before.Names(), after.Names(); !slices.Equal(was, is) {
		t.Errorf("there were the topics %v, and are %v", was, is)
	}
	groups, err := w.kafka.Admin().ListGroups(ctx)
	must(t, err)
	if len(groups.Groups()) > 0 {
		t.Errorf("it leaves groups: %v", groups.Groups())
	}
	ends, err := w.kafka.Admin().ListEndOffsets(ctx, before.Names()...)
	must(t, err)
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 && strings.HasPrefix(end.Topic, "real.") {
			t.Errorf("it has written to %s", end.Topic)
		}
	})

	must(t, w.kafka.Kill(w.onlyReplica(ctx, t)))
	w.awaitLeaderless(ctx, t)
	w.name(ctx, t, faultsOfABroker)
}

// name plants each fault, and looks for it in what Diagnose finds.
func (w *ward) name(ctx context.Context, t *testing.T, faults []plantedFault) {
	t.Helper()
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			cfg := w.cfg
			fault.plant(t, w, &cfg)
			findings := w.diagnose(ctx, t, cfg)
			named := slices.ContainsFunc(findings, func(f gracedb.Finding) bool {
				return f.Severity != gracedb.OK && f.Severity != gracedb.Skipped && (fault.check == "" || f.Check == fault.check) &&
					strings.Contains(f.Target, fault.target) && strings.Contains(f.Detail, fault.detail) && strings.Contains(f.Advice, fault.advice)
			})
			if !named {
				for _, f := range findings {
					t.Log(f)
				}
				t.Errorf("nothing of %s about %q with %q and %q", fault.check, fault.target, fault.detail, fault.advice)
			}
		})
	}
}

// onlyReplica returns the index of a broker that has a partition of real.aframe, which has one replica.
func (w *ward) onlyReplica(ctx context.Context, t *testing.T) int {
	t.Helper()
	topics, err := w.kafka.Admin().ListTopics(ctx, "real.aframe")
	must(t, err)
	return int(topics["real.aframe"].Partitions[0].Leader) - 1
}

// awaitLeaderless waits until the brokers know that one is down.
func (w *ward) awaitLeaderless(ctx context.Context, t *testing.T) {
	t.Helper()
	for {
		topics, err := w.kafka.Admin().ListTopics(ctx, "real.aframe", "real.cwb")
		if err == nil && topics["real.aframe"].Partitions[0].Leader < 0 && len(topics["real.cwb"].Partitions[0].ISR) < 3 {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}
