package gracedb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// An answer to a constructor whose length is impossible is told at once, with whose
// it is.
func TestConstructorFrameLength(t *testing.T) {
	for _, length := range []int32{90 << 20, -1} {
		for _, make := range constructors {
			t.Run(fmt.Sprint(length, "/", make.name), func(t *testing.T) {
				virtually(t, kafkatest.Config{}, func(t *testing.T, c *kafkatest.Cluster) {
					c.Inject(kafkatest.Fault{Do: kafkatest.HugeResponse, Length: length, Keys: []kmsg.Key{kmsg.Metadata}, Count: -1})
					start := time.Now()
					_, err := make.make(t.Context(), clusterFor(t, c, "alice"), "test")
					wantErr(t, err, kinds(make.kind), nil, c.Addrs()[0], fmt.Sprint(length))
					if took := time.Since(start); took > time.Second {
						t.Errorf("after %v", took)
					}
				})
			})
		}
	}
}
