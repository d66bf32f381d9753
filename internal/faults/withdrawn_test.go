package faults

import (
	"context"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	judge "github.com/gracedb-go/gracedb/internal/history"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// A message whose ctx ends while its topic is not known yet takes none of those behind
// it out of their order, whether the engine has them or they wait in line.
func TestWithdrawnBeforeTheTopicIsKnown(t *testing.T) {
	for _, key := range []string{"key", ""} {
		t.Run("first's key="+key, func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				r.Freeze()
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Lazy = true })
				produce := func(ctx context.Context, m gracedb.Message) {
					t.Helper()
					m.Value = append(m.Value, judge.Noise(100_000)...)
					if err := p.Produce(ctx, m, func(got gracedb.Message, err error) { r.end(t, m, got, err) }); err != nil {
						t.Fatal(err)
					}
				}
				first, giveUp := context.WithCancel(t.Context())
				m := r.begin("first")
				m.Key = []byte(key)
				produce(first, m)
				for range 30 {
					produce(t.Context(), r.begin("key"))
				}
				time.Sleep(time.Second)
				giveUp()
				time.Sleep(time.Second)
				r.Thaw()
				closeProducer(t, p)
				r.judge(t)
				if n := r.count(); n[delivered] < 30 || n[unknown] > 0 {
					t.Errorf("%v", n)
				}
			})
		})
	}
}
