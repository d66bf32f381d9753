package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// These tests pin what the Sender leans on in kgo 1.22.3, which promises little of it. Each
// says what breaks here if an upgrade of kgo breaks it.

// kgo asks a request for its bytes when all else is done, and writes them next.
//
// A batch whose AppendTo was not called is judged as certainly not sent (facts.written), and
// gets its sequence there, in the order of the writes.
func TestContractMomentOfWrite(t *testing.T) {
	withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
		c.discover()
		before := len(c.since(0))
		c.must(c.issue(t.Context(), c.request("one")))
		want := []string{"TLS is up", "write of a SASLHandshake", "write of a SASLAuthenticate", "asked for one", "write of one"}
		got := slices.DeleteFunc(c.since(before), func(s string) bool { return s == "write of a ApiVersions" })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}

		// After a throttle (KIP-219).
		c.cluster.Inject(kafkatest.Fault{Do: kafkatest.ThrottleResponse, Keys: []kmsg.Key{kmsg.Produce}, Delay: 4 * time.Second})
		c.must(c.issue(t.Context(), c.request("throttled")))
		began := time.Now()
		var asked time.Duration
		r := c.request("after it")
		r.asked = func() { asked = time.Since(began) }
		c.must(c.issue(t.Context(), r))
		if asked < 3*time.Second {
			t.Errorf("asked for its bytes after %v of a throttle of 4 s", asked)
		}
	})
}

// A request whose context ends before the write is never asked for its bytes.
//
// Close ends all tries by their context, and what was not asked for by then is told as
// certainly not in the log.
func TestContractNothingAfterTheContext(t *testing.T) {
	for _, when := range []string{"before it is issued", "while it dials", "while it authenticates", "behind another that dials", "in a throttle"} {
		t.Run(when, func(t *testing.T) {
			withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
				c.discover()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var other <-chan error
				hang := make(chan struct{})
				switch when {
				case "before it is issued":
					cancel()
				case "while it dials", "behind another that dials":
					c.mu.Lock()
					c.dialed = func(ctx context.Context) error {
						select {
						case <-hang:
							return nil
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					c.mu.Unlock()
					if when == "behind another that dials" {
						other = c.issue(t.Context(), c.request("other"))
					}
				case "while it authenticates":
					c.cluster.Inject(kafkatest.Fault{Do: kafkatest.HoldResponse, Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Delay: 2 * time.Second})
				case "in a throttle":
					c.cluster.Inject(kafkatest.Fault{Do: kafkatest.ThrottleResponse, Keys: []kmsg.Key{kmsg.Produce}, Delay: 4 * time.Second})
					c.must(c.issue(t.Context(), c.request("throttled")))
				}
				synctest.Wait()
				before := len(c.since(0))
				done := c.issue(ctx, c.request("ours"))
				synctest.Wait()
				began := time.Now()
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want %v", err, context.Canceled)
				}
				if late := time.Since(began); late > 0 && when != "while it authenticates" {
					t.Errorf("told %v late", late)
				}
				close(hang)
				time.Sleep(time.Minute)
				if other != nil {
					c.must(other)
				}
				for _, what := range c.since(before) {
					if what == "asked for ours" || what == "write of ours" {
						t.Error(what)
					}
				}
			})
		})
	}
}

// Request does not return while AppendTo runs, nor before it may still run.
//
// AppendTo reads the batch without a lock; when its try is over, the records are their
// owners' again, and the batch is judged by whether it was written.
func TestContractReturnsAfterAppendTo(t *testing.T) {
	withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
		c.discover()
		c.must(c.issue(t.Context(), c.request("first")))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := c.request("ours")
		release := make(chan struct{})
		r.asked = func() { <-release }
		done := c.issue(ctx, r)
		synctest.Wait()
		cancel()
		time.Sleep(time.Minute)
		select {
		case err := <-done:
			t.Errorf("Request has returned (%v) while AppendTo runs", err)
		default:
		}
		close(release)
		<-done
	})
}

// Requests are written in the order in which they are issued, if each is issued when the one
// before it was asked for its bytes.
//
// That is how the batches of a partition follow each other (partition.wrote): brokers refuse
// one that comes before its turn.
func TestContractOrder(t *testing.T) {
	withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
		c.discover()
		const n = 100
		var want []string
		all := make([]<-chan error, n)
		var issue func(i int)
		issue = func(i int) {
			r := c.request(fmt.Sprint("batch ", i))
			r.asked = func() {
				if i+1 < n {
					issue(i + 1)
				}
			}
			all[i] = c.issue(t.Context(), r)
		}
		before := len(c.since(0))
		issue(0)
		time.Sleep(time.Second)
		for i, done := range all {
			c.must(done)
			want = append(want, fmt.Sprint("write of batch ", i))
		}
		got := slices.DeleteFunc(c.since(before), func(s string) bool { return len(s) < 14 || s[:14] != "write of batch" })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// Broker.Request makes no try of its own after it has written anything. After it has written
// nothing it makes one, of the same bytes.
//
// A second try would be written without the Sender's knowledge: behind batches that it has
// issued since, or after the topic was made anew.
func TestContractOneTry(t *testing.T) {
	count := func(c *contract, before int) (asked, written int) {
		for _, what := range c.since(before) {
			switch what {
			case "asked for ours":
				asked++
			case "write of ours":
				written++
			}
		}
		return asked, written
	}
	for _, do := range []kafkatest.Action{kafkatest.CutRequest, kafkatest.CutResponse, kafkatest.HalfResponse, kafkatest.DropResponse, kafkatest.StrayResponse} {
		withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
			c.discover()
			c.must(c.issue(t.Context(), c.request("first")))
			before := len(c.since(0))
			c.cluster.Inject(kafkatest.Fault{Do: do, Keys: []kmsg.Key{kmsg.Produce}})
			err := <-c.issue(t.Context(), c.request("ours"))
			if dial, ok := errors.AsType[*net.OpError](err); err == nil || ok && dial.Op == "dial" {
				t.Errorf("action %v: %v, and it was written", do, err)
			}
			time.Sleep(time.Minute)
			if asked, written := count(c, before); asked != 1 || written != 1 {
				t.Errorf("action %v: asked for %d times, written %d times", do, asked, written)
			}
		})
	}
	// Without another connection, the error is of the dial: Config.NoConnection, after which
	// the batch counts as not written.
	withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
		c.discover()
		c.must(c.issue(t.Context(), c.request("first")))
		before := len(c.since(0))
		c.mu.Lock()
		c.spoil = func(key int16) error {
			if key == 0 {
				return net.ErrClosed
			}
			return nil
		}
		c.dialed = func(context.Context) error {
			return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
		c.mu.Unlock()
		err := <-c.issue(t.Context(), c.request("ours"))
		if dial, ok := errors.AsType[*net.OpError](err); !ok || dial.Op != "dial" {
			t.Errorf("%v, want the dial's", err)
		}
		if asked, written := count(c, before); asked != 1 || written != 0 {
			t.Errorf("no connection: asked for %d times, written %d times", asked, written)
		}
	})
	for broken := 1; broken <= 2; broken++ {
		withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
			c.discover()
			c.must(c.issue(t.Context(), c.request("first")))
			before := len(c.since(0))
			left := broken
			c.mu.Lock()
			c.spoil = func(key int16) error {
				if key != 0 || left == 0 {
					return nil
				}
				left--
				return net.ErrClosed
			}
			c.mu.Unlock()
			err := <-c.issue(t.Context(), c.request("ours"))
			time.Sleep(time.Minute)
			asked, written := count(c, before)
			if (err == nil) != (broken == 1) || asked != 2 || written != 2-broken {
				t.Errorf("%d connections broken: %v; asked for %d times, written %d times", broken, err, asked, written)
			}
		})
	}
}

// An answer is waited for as long as RequestTimeoutOverhead and Timeout say together, and
// the wait costs the connection.
//
// So a swallowed batch is noticed by its size, whatever the client's own timeouts are, and
// without a context that ends (produceRequest.Timeout).
func TestContractReadTimeout(t *testing.T) {
	withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
		c.discover()
		c.must(c.issue(t.Context(), c.request("first")))
		c.cluster.Inject(kafkatest.Fault{Do: kafkatest.DropResponse, Keys: []kmsg.Key{kmsg.Produce}})
		r := c.request("ours")
		r.timeout = 7000
		began := time.Now()
		err := <-c.issue(t.Context(), r)
		if took := time.Since(began).Round(100 * time.Millisecond); err == nil || took != 12*time.Second {
			t.Errorf("%v after %v, want 5 s + 7 s", err, took)
		}
		before := len(c.since(0))
		c.must(c.issue(t.Context(), c.request("next")))
		if !slices.Contains(c.since(before), "TLS is up") {
			t.Error("the next request went over the same connection")
		}
	}, kgo.ProduceRequestTimeout(time.Hour))
}

// kgo leaves the acks of a request type of its user's as they are, whatever the client is set to.
//
// With fewer acks, an acknowledged batch could be lost with its leader.
func TestContractAcks(t *testing.T) {
	withContract(t, kafkatest.Config{}, func(t *testing.T, c *contract) {
		c.discover()
		r := c.request("ours")
		c.must(c.issue(t.Context(), r))
		if r.Acks != -1 || r.TimeoutMillis != 3000 {
			t.Errorf("acks %d, timeout %d ms", r.Acks, r.TimeoutMillis)
		}
	}, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
}

// The answer to a Metadata request of ours tells kgo of brokers, and of their addresses.
//
// The Sender asks who leads a partition, and then asks kgo for that broker by its id.
func TestContractMetadataFeedsBrokers(t *testing.T) {
	withContract(t, kafkatest.Config{Brokers: 3}, func(t *testing.T, c *contract) {
		if n := len(c.client.DiscoveredBrokers()); n > 0 {
			t.Errorf("kgo knows %d brokers beforehand", n)
		}
		c.discover()
		if n := len(c.client.DiscoveredBrokers()); n != 3 {
			t.Errorf("kgo knows %d brokers, want 3", n)
		}
		ping := func(id int) error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := c.client.Broker(id).Request(ctx, kmsg.NewPtrMetadataRequest())
			return err
		}
		for id := range 3 {
			if err := ping(id); err != nil {
				t.Errorf("broker %d: %v", id, err)
			}
		}
		// kgo's own loop, which asks every 5 minutes, has no part in this.
		if err := c.cluster.Move(2); err != nil {
			t.Fatal(err)
		}
		if err := ping(2); err == nil {
			t.Error("broker 2 has moved, and kgo has found it without a Metadata request")
		}
		c.discover()
		if err := ping(2); err != nil {
			t.Errorf("broker 2, at another address: %v", err)
		}
	})
}
