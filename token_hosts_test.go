package gracedb_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A broker names another host as its own, which has a certificate for that name.
func TestTokenHosts(t *testing.T) {
	for _, tt := range []struct {
		hosts []string
		shown bool
	}{
		{nil, true},
		{[]string{".example.org", "LocalHost."}, true},
		{[]string{"example.org"}, false},
		{[]string{".localhost"}, false},
		{[]string{".host"}, false},
		{[]string{"127.0.0.1"}, false},
	} {
		t.Run(fmt.Sprint(tt.hosts), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
				cluster := clusterFor(t, c, "alice")
				cluster.Brokers, cluster.TokenHosts = []string{"127.0.0.1:9092"}, tt.hosts
				var mu sync.Mutex
				var dialed []string
				cluster.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					dialed = append(dialed, address)
					if address == cluster.Brokers[0] {
						address = c.Addrs()[0]
					}
					return c.Dial(ctx, network, address)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
				if err == nil {
					defer func() { _ = p.Close() }()
				}
				mu.Lock()
				defer mu.Unlock()
				if shown := slices.Contains(dialed, c.Addrs()[0]); shown != tt.shown {
					t.Errorf("dialed %q", dialed)
				}
				if tt.shown {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantErr(t, err, kinds(gracedb.ErrConnection), nil, c.Addrs()[0], "TokenHosts")
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("told after %v", took)
				}
			})
		})
	}
}

func TestTokenHostsAndBrokersAreChecked(t *testing.T) {
	for _, host := range []string{"", ".", "*.example.org", "https://example.org", "alice:hunter2@example.org", "example.org:9092", "a,b"} {
		_, err := gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "gracedb-test", TokenHosts: []string{host}}.ClientOpts()
		wantErr(t, err, kinds(gracedb.ErrConfig), nil, "TokenHosts")
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	}
	for _, broker := range []string{"alice:hunter2@host:9092", "SASL_SSL://alice:hunter2@host:9092", "SASL_SSL://hunter2:9092", "alice:hunter2@", "@hunter2"} {
		_, err := gracedb.Cluster{Brokers: []string{broker}, Instance: "gracedb-test"}.ClientOpts()
		wantErr(t, err, kinds(gracedb.ErrConfig), nil, "host:port")
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	}
}
