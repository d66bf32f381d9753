package gracedb_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// Names of topics that no topic can have are not repeated to whoever asks for one that is
// missing.
func TestHostileTopicNames(t *testing.T) {
	virtually(t, kafkatest.Config{Topics: map[string]int{"gracedb-test.other": 1}}, func(t *testing.T, c *kafkatest.Cluster) {
		bad := []string{"gracedb-test.a\nb", "gracedb-test.\x1b[31mred", "gracedb-test.\u202etxt", "gracedb-test." + strings.Repeat("x", 5000), "other\r\n.name"}
		c.Inject(kafkatest.Fault{Do: kafkatest.RewriteResponse, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1, Rewrite: func(req kmsg.Request, resp kmsg.Response) {
			if len(req.(*kmsg.MetadataRequest).Topics) > 0 {
				return
			}
			r := resp.(*kmsg.MetadataResponse)
			for _, name := range bad {
				topic := kmsg.NewMetadataResponseTopic()
				topic.Topic = &name
				r.Topics = append(r.Topics, topic)
			}
		}})
		for _, make := range constructors {
			for _, instance := range []string{"gracedb-test", "elsewhere"} {
				cluster := clusterFor(t, c, "alice")
				cluster.Instance = instance
				_, err := make.Make(t.Context(), cluster, "missing")
				wantErr(t, err, kinds(make.Kind, gracedb.ErrTopic), nil)
				checkClean(t, err)
			}
		}
		cluster := clusterFor(t, c, "alice")
		cluster.Instance = "elsewhere"
		_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster})
		wantErr(t, err, kinds(gracedb.ErrTopic), nil, "instances that have: gracedb-test")
		checkClean(t, err)
	})
}

func checkClean(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	text := err.Error()
	t.Log(text)
	if strings.ContainsAny(text, "\x1b\u202e\r") || strings.Contains(text, "red") || strings.Contains(text, "xxxx") || !strings.Contains(text, "gracedb-test") {
		t.Errorf("%q", text)
	}
}
