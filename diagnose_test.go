package gracedb_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A patient is what Diagnose is to look at: all is well until a test plants a fault.
type patient struct {
	*gracetest.Server
	kafka *kafkatest.Cluster
	cfg   gracedb.DiagnoseConfig
	token string
}

// newPatient starts services that trust the same tokens.
func newPatient(t *testing.T, web gracetest.Config, brokers kafkatest.Config) *patient {
	t.Helper()
	s, err := gracetest.Start(web)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	brokers.Issuer = s.Issuer()
	if brokers.Topics == nil {
		brokers.Topics = map[string]int{"gracedb-test.gstlal": 1, "gracedb-test.test": 2}
	}
	p := &patient{Server: s, kafka: startCluster(t, brokers)}
	p.give(t, testauth.Claims{})
	p.cfg.Client.ServiceURL, p.cfg.Client.CAFile = s.URL(), writeFile(t, s.PEM(), 0o600)
	p.cfg.Cluster = gracedb.Cluster{Brokers: p.kafka.Addrs(), Instance: "gracedb-test", CAFile: p.kafka.CAFile(), Plaintext: brokers.Plaintext}
	p.cfg.Publish, p.cfg.Consume, p.cfg.GroupID = []string{"gstlal"}, []string{"test"}, "g"
	return p
}

// give makes p use a token that says claims.
func (p *patient) give(t *testing.T, claims testauth.Claims) {
	t.Helper()
	var err error
	if p.token, err = p.Token(claims); err != nil {
		t.Fatal(err)
	}
	p.cfg.Client.Token = gracedb.StaticToken(p.token)
}

func writeFile(t *testing.T, data []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

// withoutTokens empties all places where tokens are looked for.
func withoutTokens(t *testing.T) {
	t.Helper()
	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "BEARER_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
}

func (p *patient) diagnose(t *testing.T) []gracedb.Finding {
	t.Helper()
	findings := gracedb.Diagnose(within(t, time.Minute), p.cfg)
	for _, f := range findings {
		line, whole := f.String(), fmt.Sprintf("%#v %+v %v", f, f, f.Err)
		switch {
		case strings.ContainsAny(line, "\n\r") || f.Check == "" || f.Target == "" || f.Detail == "":
			t.Errorf("not one whole line: %q", line)
		case strings.Contains(whole, "eyJ") || p.token != "" && strings.Contains(whole, p.token[len(p.token)-20:]):
			t.Errorf("a token shows in the finding of %s", f.Check)
		case (f.Severity == gracedb.OK || f.Severity == gracedb.Skipped) != (f.Err == nil):
			t.Errorf("severity and error disagree: %s: %v", line, f.Err)
		case f.Err != nil && f.Advice == "":
			t.Errorf("nothing says what to do: %s", line)
		}
	}
	return findings
}

func lines(findings []gracedb.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		b.WriteString("\n" + f.String())
	}
	return b.String()
}

// Where all is well each check says so, and nothing is written.
func TestDiagnoseFindsNothing(t *testing.T) {
	p := newPatient(t, gracetest.Config{}, kafkatest.Config{Brokers: 2})
	p.cfg.Cluster.Brokers = p.cfg.Cluster.Brokers[:1]
	findings := p.diagnose(t)
	seen := make(map[string]int)
	for _, f := range findings {
		seen[f.Check]++
		if f.Severity != gracedb.OK && f.Check != "replicas" { // 1 of min.insync.replicas, on two brokers
			t.Errorf("%s", f)
		}
	}
	for check, want := range map[string]int{
		"token": 2, "proxy": 1, "names": 3, "tcp": 3, "tls": 3, "clock": 1, "service": 1, "user": 1, "reservations": 1,
		"groups": 1, "searches": 1, "pipeline": 1, "versions": 2, "sasl": 2, "cluster": 1, "topics": 1, "topic": 2,
		"leaders": 2, "write": 1, "read": 1, "replicas": 1, "size": 1, "compression": 1, "cleanup": 1, "group": 1,
	} {
		if seen[check] != want {
			t.Errorf("%d findings of %s, want %d%s", seen[check], check, want, lines(findings))
		}
	}
	for _, r := range p.Requests() {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s was sent", r.Method, r.Path)
		}
	}
	for _, topic := range []string{"gracedb-test.gstlal", "gracedb-test.test"} {
		if n := len(values(t, p.kafka, topic)); n > 0 {
			t.Errorf("%d messages in %s", n, topic)
		}
	}
	if p.kafka.Kfake().GroupInfo("g") != nil {
		t.Error("a group was made")
	}
}

// A planted fault and how Diagnose has to name it.
type planted struct {
	name    string
	web     gracetest.Config
	brokers kafkatest.Config
	plant   func(*testing.T, *patient)

	check    string
	severity gracedb.Severity
	target   string // a part of it
	detail   string // a part of it
	advice   string // a part of it
}

var plantedInTokens = []planted{
	{name: "no token", plant: func(t *testing.T, p *patient) {
		withoutTokens(t)
		p.cfg.Client.Token = nil
	}, check: "token", severity: gracedb.Failure, detail: "no usable token", advice: "renews the token"},
	{name: "expired", plant: func(t *testing.T, p *patient) {
		p.give(t, testauth.Claims{IssuedAt: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)})
	}, check: "token", severity: gracedb.Failure, detail: "expired", advice: "renews the token"},
	{name: "file open to others", plant: func(t *testing.T, p *patient) {
		withoutTokens(t)
		t.Setenv("BEARER_TOKEN_FILE", writeFile(t, []byte(p.token), 0o644))
		p.cfg.Client.Token = nil
	}, check: "token", severity: gracedb.Warning, detail: "mode 0644", advice: "chmod 600"},
	{name: "soon over", plant: func(t *testing.T, p *patient) {
		p.give(t, testauth.Claims{Expires: time.Now().Add(3 * time.Minute)})
	}, check: "token", severity: gracedb.Warning, detail: "it ends in 2m", advice: "renew it"},
	{
		name: "scope", plant: func(t *testing.T, p *patient) { p.give(t, testauth.Claims{Scope: "read:/frames"}) },
		check: "token", severity: gracedb.Warning, detail: "lacks the scope", advice: "scope",
	},
	{
		name: "audience", plant: func(t *testing.T, p *patient) {
			p.give(t, testauth.Claims{Audience: []string{"https://other.invalid"}})
		},
		check: "sasl", severity: gracedb.Failure, detail: "may want another audience", advice: "htgettoken",
	},
}

var plantedInHTTP = []planted{
	{name: "clock", plant: func(_ *testing.T, p *patient) {
		date := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
		p.Script(gracetest.Fault{On: "root", Status: http.StatusOK, Header: http.Header{"Date": {date}}, Body: "{}"})
	}, check: "clock", severity: gracedb.Failure, detail: "ahead of", advice: "set this machine's clock"},
	{name: "proxy", plant: func(_ *testing.T, p *patient) {
		dead := &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
		p.cfg.Client.CAFile, p.cfg.Client.HTTP = "", &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(dead), DisableKeepAlives: true}}
	}, check: "proxy", severity: gracedb.Failure, target: "127.0.0.1:1", detail: "connection refused", advice: "NO_PROXY"},
	{
		name: "GraceDB is down", plant: func(_ *testing.T, p *patient) { p.Close() },
		check: "tcp", severity: gracedb.Failure, detail: "connection refused", advice: "start what should listen",
	},
	{
		name: "GraceDB's authority", plant: func(_ *testing.T, p *patient) { p.cfg.Client.CAFile = p.kafka.CAFile() },
		check: "tls", severity: gracedb.Failure, detail: "authority", advice: "set CAFile",
	},
	{name: "a login page", plant: func(_ *testing.T, p *patient) {
		p.Script(gracetest.Fault{On: "root", Times: -1, Status: http.StatusOK, Body: "<html>log in</html>"})
	}, check: "service", severity: gracedb.Failure, detail: "a page instead of data", advice: "correct ServiceURL"},
	{
		name: "a user who is not wanted", web: gracetest.Config{Inactive: []string{"alice"}}, plant: func(*testing.T, *patient) {},
		check: "service", severity: gracedb.Failure, detail: "403", advice: "a subject that GraceDB knows",
	},
	{
		name: "no reservations", web: gracetest.Config{NoReservations: true}, plant: func(*testing.T, *patient) {},
		check: "reservations", severity: gracedb.Failure, detail: "does not reserve", advice: "PublishOnly",
	},
	{
		name: "pipeline mistyped", plant: func(_ *testing.T, p *patient) { p.cfg.Publish = []string{"gstlall"} },
		check: "pipeline", severity: gracedb.Failure, target: "gstlall", detail: `did you mean "gstlal"`, advice: "correct the name",
	},
}

var plantedInBrokers = []planted{
	{
		name: "broker is down", plant: func(_ *testing.T, p *patient) { p.kafka.Refuse() },
		check: "tcp", severity: gracedb.Failure, detail: "connection refused", advice: "start what should listen",
	},
	{
		name: "broker's name", plant: func(_ *testing.T, p *patient) { p.cfg.Cluster.Brokers = []string{"kafka.invalid:9092"} },
		check: "names", severity: gracedb.Failure, target: "kafka.invalid", detail: "kafka.invalid", advice: "DNS",
	},
	{
		name: "silent broker", plant: func(_ *testing.T, p *patient) { p.kafka.Freeze() },
		check: "tls", severity: gracedb.Failure, detail: "no answer within", advice: "firewall",
	},
	{
		name: "broker's authority", plant: func(_ *testing.T, p *patient) { p.cfg.Cluster.CAFile = p.cfg.Client.CAFile },
		check: "tls", severity: gracedb.Failure, detail: "authority", advice: "set CAFile",
	},
	{
		name: "no CA file", plant: func(_ *testing.T, p *patient) { p.cfg.Cluster.CAFile = "/nowhere/ca.pem" },
		check: "tls", severity: gracedb.Failure, detail: "/nowhere/ca.pem", advice: "CAFile",
	},
	{
		name: "broker without TLS", brokers: kafkatest.Config{Plaintext: true}, plant: func(_ *testing.T, p *patient) { p.cfg.Cluster.Plaintext = false },
		check: "tls", severity: gracedb.Failure, detail: "TLS", advice: "speaks TLS",
	},
	{name: "not Kafka", plant: func(t *testing.T, p *patient) {
		u, err := url.Parse(p.URL())
		if err != nil {
			t.Fatal(err)
		}
		p.cfg.Cluster.Brokers, p.cfg.Cluster.CAFile = []string{u.Host}, p.cfg.Client.CAFile
	}, check: "versions", severity: gracedb.Failure, detail: "HTTP", advice: "port of a Kafka broker"},
	{name: "a broker that the metadata name", brokers: kafkatest.Config{Brokers: 2}, plant: func(_ *testing.T, p *patient) {
		p.cfg.Cluster.Brokers = p.cfg.Cluster.Brokers[:1]
		p.kafka.Advertise(1, "inside.invalid:9092")
	}, check: "names", severity: gracedb.Failure, target: "inside.invalid:9092", detail: "advertised.listeners", advice: "DNS"},
	{
		name: "old broker", brokers: kafkatest.Config{Versions: kversion.V2_2_0()}, plant: func(*testing.T, *patient) {},
		check: "versions", severity: gracedb.Warning, detail: "older than Kafka 2.3", advice: "Ping",
	},
}

// certificate returns brokers whose certificate is for hosts, and ends then.
func certificate(ends time.Duration, hosts ...string) kafkatest.Config {
	authority, err := testauth.NewAuthority()
	if err != nil {
		panic(err)
	}
	now := time.Now()
	c, err := authority.CertificateValid(now.Add(-48*time.Hour), now.Add(ends), hosts...)
	if err != nil {
		panic(err)
	}
	return kafkatest.Config{Authority: authority, TLS: &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}}
}

var plantedInCertificates = []planted{
	{
		name: "for another name", brokers: certificate(time.Hour, "kafka.elsewhere.test"), plant: func(*testing.T, *patient) {},
		check: "tls", severity: gracedb.Failure, detail: "another host name", advice: "use a name",
	},
	{
		name: "over", brokers: certificate(-time.Hour, "localhost"), plant: func(*testing.T, *patient) {},
		check: "tls", severity: gracedb.Failure, detail: "expired", advice: "renewed",
	},
	{
		name: "soon over", brokers: certificate(72*time.Hour, "localhost"), plant: func(*testing.T, *patient) {},
		check: "tls", severity: gracedb.Warning, detail: "the certificate ends in", advice: "renewed",
	},
}

// rights returns brokers where alice has these.
func rights(acls ...kfake.ACL) kafkatest.Config {
	return kafkatest.Config{Subjects: map[string][]kfake.ACL{"alice": acls}}
}

const (
	onTopic = kmsg.ACLResourceTypeTopic
	onGroup = kmsg.ACLResourceTypeGroup
	mayRead = kmsg.ACLOperationRead
	mayLook = kmsg.ACLOperationDescribe
)

// set makes another topic, which is set so, and publishes to it.
func set(name, value string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		if err := p.kafka.CreateTopic("gracedb-test.pycbc", 1, map[string]string{name: value}); err != nil {
			t.Fatal(err)
		}
		p.cfg.Publish = []string{"pycbc"}
	}
}

var plantedInTopics = []planted{
	{
		name: "instance", plant: func(_ *testing.T, p *patient) { p.cfg.Cluster.Instance = "gracedb" },
		check: "topics", severity: gracedb.Failure, target: "gracedb", detail: "gracedb-test", advice: "correct Instance",
	},
	{
		name: "topic missing", plant: func(_ *testing.T, p *patient) { p.cfg.Consume = []string{"GstLAL"} },
		check: "topic", severity: gracedb.Failure, target: "GstLAL", detail: "does not exist", advice: `did you mean "gracedb-test.gstlal"`,
	},
	{name: "no leader", plant: func(t *testing.T, p *patient) {
		if err := p.kafka.LoseLeader("gracedb-test.test", 1); err != nil {
			t.Fatal(err)
		}
	}, check: "leaders", severity: gracedb.Failure, target: "gracedb-test.test", detail: "partition 1", advice: "start"},
	{
		name: "may not write", brokers: rights(allow(onTopic, "gracedb-test.gstlal", mayRead), allow(onTopic, "gracedb-test.test", mayRead), allow(onGroup, "g", mayRead)),
		plant: func(*testing.T, *patient) {},
		check: "write", severity: gracedb.Failure, target: "gracedb-test.gstlal", detail: "alice", advice: "the right WRITE",
	},
	{
		name: "may not read", brokers: rights(allow(onTopic, "gracedb-test.test", mayLook), allow(onTopic, "gracedb-test.gstlal", kmsg.ACLOperationWrite), allow(onGroup, "g", mayRead)),
		plant: func(*testing.T, *patient) {},
		check: "read", severity: gracedb.Failure, target: "gracedb-test.test", detail: "alice", advice: "the right READ",
	},
	{
		name: "may not see", brokers: rights(allow(onTopic, "gracedb-test.test", mayRead)), plant: func(*testing.T, *patient) {},
		check: "topic", severity: gracedb.Failure, target: "gracedb-test.gstlal", detail: "alice", advice: "rights",
	},
	{
		name: "may not use the group", brokers: rights(allow(onTopic, "gracedb-test.test", mayRead)), plant: func(*testing.T, *patient) {},
		check: "group", severity: gracedb.Failure, target: "g", detail: "alice", advice: "the right READ",
	},
	{
		name: "may only see the group", brokers: rights(allow(onTopic, "gracedb-test.test", mayRead), allow(onGroup, "g", mayLook)), plant: func(*testing.T, *patient) {},
		check: "group", severity: gracedb.Failure, target: "g", detail: "alice", advice: "the right READ",
	},
	{name: "a group of others", plant: func(_ *testing.T, p *patient) {
		p.kafka.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.DescribeGroups}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
			g := &resp.(*kmsg.DescribeGroupsResponse).Groups[0]
			g.ErrorCode, g.State, g.ProtocolType = 0, "Stable", "connect"
		}})
	}, check: "group", severity: gracedb.Failure, target: "g", detail: `protocol "connect"`, advice: "another GroupID"},
	{
		name: "size", plant: set("max.message.bytes", "100000"),
		check: "size", severity: gracedb.Warning, target: "pycbc", detail: "at most 100000 bytes", advice: "max.message.bytes",
	},
	{
		name: "compression", plant: set("compression.type", "uncompressed"),
		check: "compression", severity: gracedb.Warning, target: "pycbc", detail: "inflates", advice: "compression.type",
	},
	{
		name: "compacted", plant: set("cleanup.policy", "compact"),
		check: "cleanup", severity: gracedb.Warning, target: "pycbc", detail: "without a key", advice: "Message.Key",
	},
	{name: "replicas", plant: func(_ *testing.T, p *patient) {
		p.kafka.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(_ kmsg.Request, resp kmsg.Response) {
			for _, topic := range resp.(*kmsg.MetadataResponse).Topics {
				for i := range topic.Partitions {
					topic.Partitions[i].ISR = nil
				}
			}
		}})
	}, check: "replicas", severity: gracedb.Failure, target: "gstlal", detail: "too few replicas", advice: "start"},
}

// Each planted fault is named, with what to do, whatever else is checked.
func TestDiagnoseNamesFaults(t *testing.T) {
	for name, faults := range map[string][]planted{
		"token": plantedInTokens, "http": plantedInHTTP, "brokers": plantedInBrokers, "certificate": plantedInCertificates, "topics": plantedInTopics,
	} {
		for _, fault := range faults {
			t.Run(name+"/"+fault.name, func(t *testing.T) {
				p := newPatient(t, fault.web, fault.brokers)
				fault.plant(t, p)
				findings := p.diagnose(t)
				for _, f := range findings {
					if f.Check == fault.check && f.Severity == fault.severity && strings.Contains(f.Target, fault.target) &&
						strings.Contains(f.Detail, fault.detail) && strings.Contains(f.Advice, fault.advice) {
						return
					}
				}
				t.Errorf("no %s of %s %s with %q and %q:%s", fault.severity, fault.check, fault.target, fault.detail, fault.advice, lines(findings))
			})
		}
	}
}

// What cannot be checked says so, and why; and ctx bounds the whole.
func TestDiagnoseIsBounded(t *testing.T) {
	p := newPatient(t, gracetest.Config{}, kafkatest.Config{Brokers: 3})
	p.kafka.Freeze()
	p.Script(gracetest.Fault{Times: -1, Wait: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	findings := gracedb.Diagnose(ctx, p.cfg)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	for _, check := range []string{"sasl", "topics", "write", "read", "group", "service"} {
		found := false
		for _, f := range findings {
			found = found || f.Check == check && f.Severity == gracedb.Skipped && strings.HasPrefix(f.Detail, "not checked: tls of ")
		}
		if !found {
			t.Errorf("%s is not skipped:%s", check, lines(findings))
		}
	}
}
