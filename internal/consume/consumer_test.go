package consume

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/cluster"
)

// An option of the user that is wrapped is not looked at, and comes after those of this package.
func TestWrappedOpt(t *testing.T) {
	wrapped := struct{ kgo.Opt }{kgo.HeartbeatInterval(2 * time.Second)}
	c, err := New(t.Context(), Config{
		Cluster: cluster.Config{
			Brokers: []string{"localhost:1"}, Instance: "x",
			Opts: []kgo.Opt{kgo.FetchIsolationLevel(kgo.ReadUncommitted()), wrapped, kgo.ClientID("search")},
		},
		Topics: []string{"test"}, Lazy: true, GroupID: "g",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if beat := c.cluster.KGO.OptValue(kgo.HeartbeatInterval); beat != 2*time.Second {
		t.Errorf("the heartbeat's interval is %v", beat)
	}
}
