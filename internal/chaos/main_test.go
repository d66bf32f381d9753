//go:build unix

package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/gracedb-go/gracedb/internal/realkafka"
)

const (
	instance    = "gracedb-test"
	sessionLife = 10 * time.Second // of a connection on one token
	// brokerTimeout is after how long a broker that does not answer is replaced.
	brokerTimeout = 3 * time.Second
	// room is how much longer than promised anything may take: these clocks are real,
	// and five processes share the machine.
	room = 10
)

// opened is what TestMain has to close, if any test has needed it.
var opened *realkafka.Cluster

// theBrokers starts them when the first test asks for them: each test uses a topic
// of its own, and leaves all brokers running.
var theBrokers = sync.OnceValues(func() (*realkafka.Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := realkafka.Start(ctx, realkafka.Config{Brokers: 3, SessionLife: sessionLife})
	if err != nil {
		return nil, err
	}
	opened = c
	errs := []error{
		c.AllowGroups(ctx, "alice"),
		c.CreateTopic(ctx, instance+".test", 1, nil),
	}
	// The first question after a group makes the topic for their positions.
	for {
		found := c.Admin().FindGroupCoordinators(ctx, "any")
		if found.Error() == nil || ctx.Err() != nil {
			errs = append(errs, found.Error())
			break
		}
		wait(50 * time.Millisecond)
	}
	for _, user := range []string{"alice", "carol"} {
		errs = append(errs, c.Allow(ctx, user, "*", kadm.OpRead, kadm.OpWrite, kadm.OpDescribe))
	}
	return c, errors.Join(errs...)
})

func TestMain(m *testing.M) {
	flag.Parse()
	if file := os.Getenv(childVariable); file != "" {
		os.Exit(runChild(file))
	}
	code := m.Run()
	if opened != nil {
		if err := opened.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// brokers returns the cluster, all of whose brokers are well, or skips the test.
func brokers(t *testing.T) *realkafka.Cluster {
	t.Helper()
	if os.Getenv("GRACEDB_INTEROP") != "1" {
		t.Skip("needs Java 17 and Maven to run Apache Kafka: set GRACEDB_INTEROP=1")
	}
	c, err := theBrokers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Log(15))
		}
	})
	return c
}

// waitInSync waits until every replica of the topics has all that is in them, and
// every partition a leader: only then may another broker fail.
func waitInSync(t testing.TB, c *realkafka.Cluster, topics ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		meta, err := c.Admin().Metadata(ctx, topics...)
		whole := err == nil
		for _, topic := range meta.Topics {
			whole = whole && topic.Err == nil
			for _, p := range topic.Partitions {
				whole = whole && p.Leader > 0 && len(p.ISR) == len(c.Addrs())
			}
		}
		if whole {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond): // other processes: nothing to be told by
		case <-ctx.Done():
			t.Fatalf("the replicas of %v do not come together: %v %v", topics, meta.Topics, err)
		}
	}
}

// caFile returns a file with the authority that the brokers' certificate is from.
func caFile(t testing.TB, c *realkafka.Cluster) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(file, c.Authority.PEM(), 0o600))
	return file
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
