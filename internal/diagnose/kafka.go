package diagnose

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

const (
	// requestTime is how long what brokers, or GraceDB, say is waited for.
	requestTime = 10 * time.Second
	// mostBrokers is how many of those that the metadata name are checked.
	mostBrokers = 32
)

// A kafka is a cluster that answers.
type kafka struct {
	*cluster.Client
	cfg     Kafka
	brokers int
	topics  map[string]kmsg.MetadataResponseTopic // all that this client sees
}

// checkKafka checks brokers, topics and the group.
func checkKafka(ctx context.Context, cfg Kafka) (r report) {
	raw := checkToken(ctx, &r, cfg.Config.Token, tokenFor(cfg), cfg.Config.Brokers[0])
	noToken := r.failed()
	prober := cfg.Config.Prober(ctx)
	bootstrap := slices.Compact(slices.Clone(cfg.Config.Brokers))
	var working []string
	failed := ""
	for i, of := range checkBrokers(ctx, prober, bootstrap, raw, noToken) {
		r = append(r, of...)
		switch bad := of.failed(); {
		case bad != "":
			failed = bad
		case noToken == "":
			working = append(working, bootstrap[i])
		}
	}
	if noToken != "" {
		failed = noToken
	}
	if working == nil {
		r.skip(failed, strings.Join(bootstrap, ","), "cluster")
		r.skipTopics(cfg, failed)
		return r
	}
	cfg.Config.Brokers, cfg.Config.Token = working, only(raw)
	r.checkCluster(ctx, cfg, prober, raw, bootstrap)
	return r
}

// tokenFor is what brokers may want of a token.
func tokenFor(cfg Kafka) token.Query {
	var q token.Query
	if host, _, err := net.SplitHostPort(cfg.Config.Brokers[0]); err == nil {
		q.Audience = []string{"https://" + host, host}
	}
	if cfg.Publish != nil {
		q.Scopes = append(q.Scopes, "gracedb.read")
	}
	if cfg.Consume != nil {
		q.Scopes = append(q.Scopes, "kafka.consume")
	}
	return q
}

// checkCluster asks the brokers that work for all that is not of a single connection.
func (r *report) checkCluster(caller context.Context, cfg Kafka, prober *cluster.Prober, raw string, checked []string) {
	at := strings.Join(cfg.Config.Brokers, ",")
	client, err := cluster.New(caller, cfg.Config, errs.Kafka, 0, nil, kgo.MetadataMaxAge(time.Hour))
	if err != nil {
		r.fail("configuration", "Cluster", 0, err, "correct DiagnoseConfig.Cluster as it says")
		r.skipTopics(cfg, "configuration of Cluster")
		return
	}
	defer client.Shut()
	k := &kafka{Client: client, cfg: cfg}
	ctx, cancel := context.WithTimeout(caller, requestTime)
	defer cancel()
	began := time.Now()
	var said *kmsg.MetadataResponse
	err = k.Await(ctx, cluster.Starting, "asking for the metadata", func(ctx context.Context) (err error) {
		req := kmsg.NewPtrMetadataRequest()
		req.IncludeTopicAuthorizedOperations = true // of all topics, since it names none
		said, err = req.RequestWith(ctx, k.KGO)
		return err
	})
	if err != nil {
		r.fail("cluster", at, time.Since(began), err, "look whether the brokers are up, and at their logs")
		r.skipTopics(cfg, "cluster of "+at)
		return
	}
	k.take(said)
	r.ok("cluster", at, time.Since(began), "%d broker(s), %d topic(s) that this client sees", k.brokers, len(k.topics))
	var others []string
	for _, b := range said.Brokers {
		if address := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))); !slices.Contains(checked, address) && len(others) < mostBrokers {
			others = append(others, address)
		}
	}
	done := make(chan []report)
	go func() { done <- checkBrokers(caller, prober, others, raw, "") }()
	took := time.Since(began)
	names := k.names()
	rest := make([]report, len(names)+1)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { rest[i].addTopic(caller, k, name) })
	}
	if cfg.GroupID != "" {
		wg.Go(func() { rest[len(names)].addGroup(caller, k) })
	}
	wg.Wait()
	for _, of := range <-done {
		*r = append(*r, of...)
	}
	r.addInstance(k, took)
	for _, of := range rest {
		*r = append(*r, of...)
	}
}

// names returns the topics to check, each once.
func (k *kafka) names() []string {
	var names []string
	for _, name := range slices.Concat(k.cfg.Publish, k.cfg.Consume) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (k *kafka) take(said *kmsg.MetadataResponse) {
	k.brokers, k.topics = len(said.Brokers), make(map[string]kmsg.MetadataResponseTopic)
	for _, t := range said.Topics {
		if t.Topic != nil {
			k.topics[*t.Topic] = t
		}
	}
}

// skipTopics reports that nothing of topics and of the group could be checked.
func (r *report) skipTopics(cfg Kafka, failed string) {
	r.skip(failed, cfg.Config.Instance, "topics")
	for _, name := range (&kafka{cfg: cfg}).names() {
		r.skip(failed, name, topicChecks(cfg, name)...)
	}
	if cfg.GroupID != "" {
		r.skip(failed, cfg.GroupID, "group")
	}
}

// topicChecks are those of a topic, in their order.
func topicChecks(cfg Kafka, name string) []string {
	checks := []string{"topic", "leaders"}
	if slices.Contains(cfg.Publish, name) {
		checks = append(checks, "write", "replicas", "size", "compression", "cleanup")
	}
	if slices.Contains(cfg.Consume, name) {
		checks = append(checks, "read")
	}
	return checks
}

// addInstance reports the topics of the instance.
func (r *report) addInstance(k *kafka, took time.Duration) {
	all := make(map[string]cluster.Topic, len(k.topics))
	own := 0
	for name := range k.topics {
		all[name] = cluster.Topic{}
		if strings.HasPrefix(name, k.Instance+".") {
			own++
		}
	}
	text := cluster.TopicsAtHand(all, k.Instance)
	if own == 0 {
		r.add(Finding{
			Check: "topics", Target: k.Instance, Severity: Failure, Took: took, Detail: text,
			Advice: fmt.Sprintf("correct Instance or ServiceURL, or have %s given rights to its topics", k.Principal()),
		})
		return
	}
	r.ok("topics", k.Instance, took, "%s", text)
}

// nearest returns the one of names that is name but for case or one letter; or "".
func nearest(name string, names []string) string {
	name = strings.ToLower(name)
	for _, n := range names {
		if low := strings.ToLower(n); low == name || oneLetter(low, name) || oneLetter(name, low) {
			return n
		}
	}
	return ""
}

// oneLetter reports whether a is b with one letter more, or another one.
func oneLetter(a, b string) bool {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return i < len(a) && (a[i+1:] == b[i:] || i < len(b) && a[i+1:] == b[i+1:])
}
