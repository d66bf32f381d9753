package testrig

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
)

// A Constructor is one of the two that connect.
type Constructor struct {
	Name string
	Kind error
	Make func(context.Context, gracedb.Cluster, string) (interface{ Close() error }, error)
}

// Constructors are the two, the second also with a group.
var Constructors = []Constructor{
	{"producer", gracedb.ErrProducer, func(ctx context.Context, c gracedb.Cluster, topic string) (interface{ Close() error }, error) {
		return gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: c, Topic: topic})
	}},
	{"consumer", gracedb.ErrConsumer, func(ctx context.Context, c gracedb.Cluster, topic string) (interface{ Close() error }, error) {
		return gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: c, Topics: []string{topic}})
	}},
	{"group", gracedb.ErrConsumer, func(ctx context.Context, c gracedb.Cluster, topic string) (interface{ Close() error }, error) {
		return gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: c, Topics: []string{topic}, GroupID: "g"})
	}},
}

// Allow returns the right to do op with what has this name.
func Allow(of kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
	return kfake.ACL{Resource: of, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
}

// Within returns a context that ends after d.
func Within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// WithoutAutoCommit keeps the engine from storing positions by itself. While a group
// cannot be joined it would wait for a lock with that, and virtual time with it.
func WithoutAutoCommit(cluster gracedb.Cluster) gracedb.Cluster {
	cluster.Opts = append(cluster.Opts, kgo.AutoCommitInterval(24*time.Hour))
	return cluster
}
