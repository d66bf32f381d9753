package kafkatest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// opened returns a connection that has logged in.
func opened(t *testing.T, c *Cluster) net.Conn {
	t.Helper()
	conn, err := c.Dial(t.Context(), "tcp", c.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if got := talk(t, conn, c.Issuer(), list{"handshake", "good"}); len(got) != 2 || got[1] == "closed" {
		t.Fatalf("login: %q", got)
	}
	return conn
}

// Answers come in the order of the questions, even if kfake gives the one, late,
// and the connection the other.
func TestPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		conn := opened(t, c)
		c.Inject(Fault{Do: HoldResponse, Delay: time.Second, Keys: []kmsg.Key{kmsg.Metadata}})
		go func() {
			var b []byte
			for id, req := range []kmsg.Request{kmsg.NewPtrMetadataRequest(), kmsg.NewPtrSASLAuthenticateRequest(), kmsg.NewPtrMetadataRequest()} {
				req.SetVersion(1)
				b = append(b, kmsg.NewRequestFormatter().AppendRequest(nil, req, int32(id))...)
			}
			if _, err := conn.Write(b); err != nil {
				t.Error(err)
			}
		}()
		var got []int32
		for range 3 {
			var head [8]byte
			if _, err := io.ReadFull(conn, head[:]); err != nil {
				t.Fatal(err)
			}
			got = append(got, int32(binary.BigEndian.Uint32(head[4:])))
			if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[:]))-4); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]int32{0, 1, 2}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// A throttled connection is not read, whether or not the client keeps to it.
func TestThrottledConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		conn := opened(t, c)
		c.Inject(Fault{Do: ThrottleResponse, Delay: 2 * time.Second})
		begin := time.Now()
		talk(t, conn, c.Issuer(), list{"metadata", "metadata"})
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("took %v, want 2s", d)
		}
	})
}

// After a gap nothing else gets through on the same connection.
func TestGaps(t *testing.T) {
	for _, tt := range []struct {
		do   Action
		seen int // of the two requests, by kfake
	}{{DropRequest, 0}, {DropResponse, 2}} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, Config{Virtual: true, Plaintext: true})
			conn := opened(t, c)
			c.Inject(Fault{Do: tt.do})
			seen := 0
			c.Kfake().ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
				seen++
				return nil, nil, false
			})
			for range 2 {
				if got := talk(t, conn, c.Issuer(), list{"metadata"}); got[0] != "silent late" {
					t.Errorf("%v: %q", tt.do, got)
				}
			}
			conn.Close()
			synctest.Wait()
			if seen != tt.seen {
				t.Errorf("%v: kfake has seen %d requests, want %d", tt.do, seen, tt.seen)
			}
		})
	}
}

func TestNoAcks(t *testing.T) {
	c := start(t, Config{})
	cl := client(t, c, as(c, testauth.Claims{}), kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	for n := range 20 {
		produce(t, cl, fmt.Sprint(n))
	}
	for range 1000 {
		if len(values(t, c, topic)) == 20 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d records in the log, want 20", len(values(t, c, topic)))
}
