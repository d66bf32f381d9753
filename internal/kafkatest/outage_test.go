package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestDrop(t *testing.T) {
	check := func(t *testing.T, c *Cluster, how Cut) {
		conn, err := c.Dial(t.Context(), "tcp", c.Addrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for len(c.Connections()) == 0 {
			time.Sleep(time.Millisecond)
		}
		c.Drop(how)
		_, err = conn.Read(make([]byte, 1))
		if reset := errors.Is(err, syscall.ECONNRESET); err == nil || reset != (how == RST) {
			t.Errorf("%v: %v", how, err)
		}
		if n := len(c.Connections()); n != 0 {
			t.Errorf("%d connections after Drop", n)
		}
	}
	for _, how := range []Cut{FIN, RST} {
		check(t, start(t, Config{}), how)
		synctest.Test(t, func(t *testing.T) { check(t, start(t, Config{Virtual: true}), how) })
	}
}

func TestRefuse(t *testing.T) {
	check := func(t *testing.T, c *Cluster) {
		dial := func(addr string) error {
			conn, err := c.Dial(t.Context(), "tcp", addr)
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
		addrs := c.Addrs()
		c.Refuse(0)
		if err := dial(addrs[0]); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want a refused connection", err)
		}
		if err := dial(addrs[1]); err != nil {
			t.Error(err)
		}
		if err := c.Accept(); err != nil {
			t.Fatal(err)
		}
		if err := dial(addrs[0]); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(addrs, c.Addrs()); diff != "" {
			t.Error(diff)
		}
	}
	check(t, start(t, Config{Brokers: 2}))
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Brokers: 2, Virtual: true})
		check(t, c)
		var nx *net.DNSError
		if _, err := c.Dial(t.Context(), "tcp", "kafka.example:9092"); !errors.As(err, &nx) || !nx.IsNotFound {
			t.Errorf("error %v, want an unknown host", err)
		}
	})
}

func TestMute(t *testing.T) {
	for _, tt := range []struct {
		mute Mute
		want []string // in the log while it is mute
	}{
		{MuteRequests, []string{"first"}},
		{MuteResponses, []string{"first", "second"}},
		{MuteRequests | MuteResponses, []string{"first"}},
	} {
		bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
			c.Mute(tt.mute)
			done := make(chan error, 1)
			cl.Produce(t.Context(), kgo.StringRecord("second"), func(_ *kgo.Record, err error) { done <- err })
			time.Sleep(time.Minute)
			if diff := cmp.Diff(tt.want, values(t, c, topic)); diff != "" {
				t.Error(diff)
			}
			select {
			case err := <-done:
				t.Errorf("settled while mute: %v", err)
			default:
			}
			c.Mute(0)
			begin := time.Now()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if d := time.Since(begin); d > 15*time.Second {
				t.Errorf("took %v", d)
			}
			if diff := cmp.Diff([]string{"first", "second"}, values(t, c, topic)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFreeze(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		before := c.ConnectionCount()
		c.Freeze()
		begin := time.Now()
		go func() {
			time.Sleep(4 * time.Second)
			c.Thaw()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tlsDialer(c)(ctx, "tcp", c.Addrs()[0]); err == nil {
			t.Error("a TLS handshake with a frozen broker")
		}
		produce(t, cl, "second")
		if d := time.Since(begin); d != 4*time.Second {
			t.Errorf("took %v, want 4s", d)
		}
		if n := c.ConnectionCount() - before; n != 1 {
			t.Errorf("%d new connections, want only the one that failed", n)
		}
	})
}

func TestKill(t *testing.T) {
	cfg := Config{Brokers: 3, Topics: map[string]int{topic: 3}}
	bubble(t, cfg, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		n := 0
		for range 3 {
			for id := range int32(3) {
				if err := c.Kill(id); err != nil {
					t.Fatal(err)
				}
				if p := c.Kfake().LeaderFor(topic, 0); p == id {
					t.Errorf("node %d still leads", id)
				}
				for range 5 {
					produce(t, cl, fmt.Sprint(n))
					n++
				}
				if err := c.Restart(id); err != nil {
					t.Fatal(err)
				}
			}
		}
		for id := range int32(3) {
			if err := c.Kill(id); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := cl.Ping(ctx); err == nil {
			t.Error("an answer from nobody")
		}
		if got := len(values(t, c, topic)); got != n+1 {
			t.Errorf("%d records in the log, want %d", got, n+1)
		}
		for _, id := range []int32{2, 0, 1} {
			if err := c.Restart(id); err != nil {
				t.Fatal(err)
			}
		}
		produce(t, cl, "last")
		if err := c.MoveLeader(topic, 0, 1); err != nil || c.Kfake().LeaderFor(topic, 0) != 1 {
			t.Errorf("moved to %d: %v", c.Kfake().LeaderFor(topic, 0), err)
		}
		if err := c.Kill(7); err == nil {
			t.Error("killed a node that is not there")
		}
	})
}

func TestAdvertiseAndMove(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		c.Advertise(0, "kafka.internal:9092")
		other := client(t, c, as(c, testauth.Claims{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := other.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr(); err == nil {
			t.Error("produced to a broker that cannot be reached")
		}
		c.Advertise(0, "")
		produce(t, other, "second")
		old := c.Addrs()[0]
		if err := c.Move(0); err != nil {
			t.Fatal(err)
		}
		if c.Addrs()[0] == old {
			t.Errorf("still at %s", old)
		}
		if _, err := c.Dial(t.Context(), "tcp", old); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the old address: %v", err)
		}
		produce(t, client(t, c, as(c, testauth.Claims{})), "third")
		other.Close()
	})
}
