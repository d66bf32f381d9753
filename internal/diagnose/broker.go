package diagnose

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/token"
)

// brokerChecks are those of each broker, in their order.
var brokerChecks = []string{"names", "tcp", "tls", "versions", "sasl"}

// checkBroker checks one broker, whose token is raw. noToken names what failed if there is none.
func checkBroker(ctx context.Context, prober *cluster.Prober, address, raw, noToken string) (r report) {
	p := prober.Probe(ctx, address)
	for i, s := range []struct {
		cluster.Step
		saw string
	}{
		{p.Names, families(p.Addresses)},
		{p.TCP, "connected to " + p.Peer},
		{p.TLS, ""},
	} {
		check := brokerChecks[i]
		switch {
		case s.Err != nil:
			r.fail(check, address, s.Took, s.Err, connectAdvice(s.Err, address))
			r.skip(check+" of "+address, address, brokerChecks[i+1:]...)
			return r
		case check == "tls":
			r.addTLS(address, s.Took, p.State)
		case !s.Done:
			r.ok(check, address, 0, "left to Cluster.Dial")
		default:
			r.ok(check, address, s.Took, "%s", s.saw)
		}
	}
	defer func() { _ = p.Conn.Close() }()
	l := &line{conn: p.Conn, address: address, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("gracedb-go"))}
	began := time.Now()
	versions, err := l.versions(ctx)
	if err != nil {
		advice := "look whether this is the port of a Kafka broker, and " + connectAdvice(err, address)
		if p.State == nil { // a broker with TLS hangs up on whoever speaks without
			advice = "unset Plaintext if the broker has TLS on this port; " + advice
		}
		r.fail("versions", address, time.Since(began), err, advice)
		r.skip("versions of "+address, address, "sasl")
		return r
	}
	r.addVersions(address, time.Since(began), versions)
	if noToken != "" {
		r.skip(noToken, address, "sasl")
		return r
	}
	began = time.Now()
	session, err := l.login(ctx, raw)
	if err != nil {
		r.fail("sasl", address, time.Since(began), err, getToken+"; if others' tokens are refused, too, whoever runs the brokers has to look at their log")
		return r
	}
	lasts := "without an end"
	if session > 0 {
		lasts = "of " + token.Span(session)
	}
	claims, _ := token.Check(raw)
	r.ok("sasl", address, time.Since(began), "logged in with sub %s, a session %s", claims.Subject, lasts)
	return r
}

// addVersions reports what a broker knows.
func (r *report) addVersions(address string, took time.Duration, known map[kmsg.Key]int16) {
	const produces, fetches, tellsRights = 3, 4, 8 // versions: of Kafka 0.11 the first two, of 2.3 the last
	var missing []string
	for _, need := range []struct {
		key     kmsg.Key
		version int16
	}{{kmsg.Produce, produces}, {kmsg.Fetch, fetches}, {kmsg.SASLAuthenticate, 0}, {kmsg.InitProducerID, 0}} {
		if has, ok := known[need.key]; !ok || has < need.version {
			missing = append(missing, fmt.Sprintf("%s %d", need.key.Name(), need.version))
		}
	}
	has := known[kmsg.Metadata]
	switch {
	case missing != nil:
		r.add(Finding{
			Check: "versions", Target: address, Severity: Failure, Took: took,
			Detail: "the broker is too old: it has no " + strings.Join(missing, ", "), Advice: "use Kafka 1.0 or later",
		})
	case has < tellsRights:
		r.warn("versions", address, took, fmt.Sprintf("the broker is older than Kafka 2.3 (Metadata %d): it does not tell which rights there are", has),
			"try what needs rights once before it matters, such as by Producer.Ping")
	default:
		r.ok("versions", address, took, "Produce up to %d, Fetch up to %d, Metadata up to %d", known[kmsg.Produce], known[kmsg.Fetch], has)
	}
}

// families says which addresses there are of each family.
func families(addresses []string) string {
	var v4, v6 []string
	for _, a := range addresses {
		if strings.Contains(a, ":") {
			v6 = append(v6, a)
		} else {
			v4 = append(v4, a)
		}
	}
	return "IPv4 " + orNone(v4) + ", IPv6 " + orNone(v6)
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return cluster.ShortList(list)
}

// checkBrokers checks brokers at the same time, and returns a report for each.
func checkBrokers(ctx context.Context, prober *cluster.Prober, addresses []string, raw, noToken string) []report {
	reports := make([]report, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		wg.Go(func() { reports[i] = checkBroker(ctx, prober, address, raw, noToken) })
	}
	wg.Wait()
	return reports
}
