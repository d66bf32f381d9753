package kafkatest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// Everything that can be switched is switched while a client works: nothing hangs
// for good, and what was acknowledged is in the log once.
func TestEverythingAtOnce(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			cfg := Config{Brokers: 3, MaxSession: time.Minute, Topics: map[string]int{topic: 3}}
			bubble(t, cfg, func(t *testing.T, c *Cluster, cl *kgo.Client) {
				var mu sync.Mutex
				acked := map[string]bool{}
				var wg sync.WaitGroup
				stop := time.Now().Add(20 * time.Minute)
				wg.Go(func() {
					for n := 0; time.Now().Before(stop); n++ {
						value := fmt.Sprint(n)
						cl.Produce(t.Context(), kgo.StringRecord(value), func(_ *kgo.Record, err error) {
							if err == nil {
								mu.Lock()
								defer mu.Unlock()
								acked[value] = true
							}
						})
						time.Sleep(250 * time.Millisecond)
					}
				})
				switchAll(t, c, rand.New(rand.NewPCG(seed, 0)), stop)
				wg.Wait()
				if err := cl.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				seen := map[string]int{}
				for _, v := range values(t, c, topic) {
					seen[v]++
				}
				for value := range acked {
					if seen[value] != 1 {
						t.Errorf("%s was acknowledged and is %d times in the log", value, seen[value])
					}
				}
				if len(acked) < 1000 {
					t.Errorf("%d acknowledgements", len(acked))
				}
			})
		})
	}
}

func switchAll(t *testing.T, c *Cluster, r *rand.Rand, stop time.Time) {
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	for time.Now().Before(stop) {
		node, d := r.Int32N(3), time.Duration(r.IntN(5000))*time.Millisecond
		lift := func() {}
		switch r.IntN(12) {
		case 0:
			c.Drop(Cut(r.IntN(2)))
		case 1:
			c.Refuse(node)
			c.Drop(RST, node)
			lift = func() { must(c.Accept()) }
		case 2:
			c.Mute(Mute(1+r.IntN(3)), node)
			lift = func() { c.Mute(0) }
		case 3:
			c.Freeze(node)
			lift = func() { c.Thaw() }
		case 4:
			must(c.Kill(node))
			lift = func() { must(c.Restart(node)) }
		case 5:
			c.RefuseTokens(Refusal{Direct: r.IntN(2) == 0, Count: 3})
			lift = c.AcceptTokens
		case 6:
			c.TellLifetime(int64(r.IntN(3)) - 1)
			lift = c.TellTrueLifetime
		case 7:
			must(c.MoveLeader(topic, r.Int32N(3), node))
		case 8:
			must(c.Issuer().Rotate(true))
		case 9:
			c.Connections()
			c.Requests()
			c.Logins()
		default:
			i := c.Inject(Fault{
				Do: Action(1 + r.IntN(int(StrayResponse))), Keys: []kmsg.Key{kmsg.Produce, kmsg.Metadata}[:1+r.IntN(2)],
				Count: 1 + r.IntN(5), Delay: d, Length: -1, Rewrite: func(kmsg.Request, kmsg.Response) {},
			})
			lift = i.Remove
		}
		time.Sleep(d)
		lift()
		time.Sleep(d)
	}
	must(c.Issuer().Rotate(false))
	if _, err := c.Issuer().Token(testauth.Claims{}); err != nil {
		t.Error(err)
	}
}
