package gracedb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/diagnose"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/gracedbapi"
	"github.com/gracedb-go/gracedb/internal/token"
	"github.com/gracedb-go/gracedb/internal/topicname"
)

// A DiagnoseConfig says what Diagnose is to check. Cluster takes ServiceURL and Token from
// Client where it has none of its own, as [Client.NewProducer] does.
type DiagnoseConfig struct {
	Client  ClientConfig // without a ServiceURL nothing is checked over HTTP
	Cluster Cluster      // without Brokers nothing of Kafka
	Publish []string     // pipelines or topics that must take messages
	Consume []string     // pipelines or topics that must be readable
	GroupID string       // a consumer group that must be usable; empty for none
}

// A Finding is what came of one check. None of its fields holds a token.
type Finding struct {
	Check    string        // what was checked, such as "token" or "tls"
	Target   string        // of what: a host, a topic, a group
	Severity Severity      // how bad it is
	Detail   string        // one sentence: what was seen
	Advice   string        // what to do; empty if all is well
	Err      error         // nil if all is well, or Skipped; it has the kinds that other calls would return
	Took     time.Duration // how long the check took; 0 if it asked nobody
}

// String returns f in one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s %s: %s", f.Severity, f.Check, f.Target, f.Detail)
	if f.Advice != "" {
		s += " (what to do: " + f.Advice + ")"
	}
	return s
}

// A Severity is how bad a Finding is.
type Severity int

// The severities.
const (
	OK      Severity = iota
	Warning          // it works now, but may not at some time, or for some messages
	Failure          // something will not work
	Skipped          // could not be checked because of an earlier Failure, which Detail names
)

// String returns "ok", "warning", "failure" or "skipped".
func (s Severity) String() string {
	names := []string{"ok", "warning", "failure", "skipped"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return names[s]
}

// Diagnose checks what publishing and consuming need, writes nothing, and returns a Finding
// for each check, in order. Each check is made whatever has failed before, if it can be.
// Hosts are checked at the same time, and each is waited for some seconds, or until ctx ends.
//
// With a Client: the token, the proxy, names, TCP, TLS, the clock, the root document, whom the
// server takes the token for, reservations, and whether it knows the pipelines of Publish.
// With a Cluster: the token; for each broker, those of the metadata too, names, TCP, TLS,
// versions and the login; the topics of the instance; of each topic that is named the leaders,
// the rights and, for Publish, replicas, the limit of size, compression and cleanup.policy;
// and the group. Publish names test for events of group Test.
func Diagnose(ctx context.Context, cfg DiagnoseConfig) []Finding {
	var d diagnose.Config
	if cfg.Client.ServiceURL != "" {
		d.Service = &diagnose.Service{
			Token: token.Source(cfg.Client.Token), Own: cfg.Client.HTTP == nil, Status: statusOf,
			API: func(src token.Source) (*gracedbapi.Client, error) {
				once := cfg.Client
				once.Token, once.Retries = TokenSource(src), -1
				c, err := NewClient(once)
				if err != nil {
					return nil, err
				}
				return c.api, nil
			},
		}
	}
	var wrong error
	if len(cfg.Cluster.Brokers) > 0 {
		d.Kafka, wrong = cfg.kafka()
	}
	for _, name := range cfg.Publish {
		_, pipeline, full := strings.Cut(name, ".")
		if !full {
			pipeline = name
		}
		d.Publish = append(d.Publish, pipeline)
	}
	var findings []Finding
	if wrong != nil {
		findings = append(findings, Finding{
			Check: "configuration", Target: "Cluster", Severity: Failure, Detail: strings.TrimPrefix(wrong.Error(), "gracedb: "),
			Advice: "correct DiagnoseConfig.Cluster as it says", Err: wrong,
		}, Finding{Check: "cluster", Target: "Cluster", Severity: Skipped, Detail: "not checked: configuration of Cluster failed"})
	}
	for _, f := range diagnose.Run(ctx, d) {
		findings = append(findings, Finding{f.Check, f.Target, Severity(f.Severity), f.Detail, f.Advice, f.Err, f.Took})
	}
	return findings
}

// statusOf returns the status of the answer that err is about, or 0.
func statusOf(err error) int {
	if answer, ok := errors.AsType[*StatusError](err); ok {
		return answer.StatusCode
	}
	return 0
}

// kafka returns what to check of the cluster.
func (cfg DiagnoseConfig) kafka() (*diagnose.Kafka, error) {
	c := cfg.Cluster
	if c.ServiceURL == "" && c.Instance == "" {
		c.ServiceURL = cfg.Client.ServiceURL
	}
	if c.Token == nil {
		c.Token = cfg.Client.Token
	}
	at, err := c.config("")
	if err != nil {
		return nil, err
	}
	at.Token = token.Source(c.Token) // nil: Diagnose itself looks for one
	full := func(names []string) (topics []string, err error) {
		for _, name := range names {
			topic := topicname.Full(at.Instance, name)
			if err := topicname.Check(topic); err != nil {
				return nil, errs.New([]error{errs.Config, errs.Topic}, "kafka: %s", errs.Reason(err))
			}
			topics = append(topics, topic)
		}
		return slices.Compact(topics), nil
	}
	k := &diagnose.Kafka{Config: at, GroupID: cfg.GroupID}
	if k.Publish, err = full(cfg.Publish); err != nil {
		return nil, err
	}
	if k.Consume, err = full(cfg.Consume); err != nil {
		return nil, err
	}
	return k, nil
}
