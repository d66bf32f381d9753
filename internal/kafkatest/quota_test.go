package kafkatest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A producer beyond its quota has its acknowledgement at once, and the connection is not
// read for as long as it was told; the figures are Kafka's (6 MB at 100 kB/s: 49 s).
func TestProduceQuota(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
		c.SetProduceQuota(100_000)
		large := sent{producer: 7, records: 1, value: make([]byte, 5_900_000)}
		begin := time.Now()
		resp := ask(t, cl, 0, large.request(t, c))
		if d := time.Since(begin); d != 0 || resp.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Errorf("acknowledged after %v: %+v", d, resp)
		}
		told := time.Duration(resp.ThrottleMillis) * time.Millisecond
		if told < 48900*time.Millisecond || told > 49100*time.Millisecond {
			t.Errorf("throttled for %v", told)
		}
		other := client(t, c, as(c, testauth.Claims{}))
		defer other.Close()
		if again := ask(t, other, 0, one(8, 0, 0).request(t, c)); again.ThrottleMillis == 0 {
			t.Error("the quota is of a connection, not of a subject")
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("another connection is throttled for %v", d)
		}
		stranger := client(t, c, as(c, testauth.Claims{Subject: "bob"}))
		defer stranger.Close()
		if resp := ask(t, stranger, 0, one(9, 0, 0).request(t, c)); resp.ThrottleMillis != 0 {
			t.Errorf("another subject is throttled for %d ms", resp.ThrottleMillis)
		}
		// A client that does not wait finds that the broker does.
		impatient(t, c)
		if err := cl.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		ask(t, cl, 0, one(7, 0, 1).request(t, c))
		if d := time.Since(begin); d < told {
			t.Errorf("the next after %v, not %v", d, told)
		}
		c.SetProduceQuota(0)
		if resp := ask(t, cl, 0, one(7, 0, 2).request(t, c)); resp.ThrottleMillis != 0 {
			t.Errorf("throttled for %d ms without a quota", resp.ThrottleMillis)
		}
	})
}

// impatient sends the next request as soon as it is told to wait.
func impatient(t *testing.T, c *Cluster) {
	t.Helper()
	conn, err := tlsDialer(c)(t.Context(), "tcp", c.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	token, err := c.Issuer().Token(testauth.Claims{})
	if err != nil {
		t.Fatal(err)
	}
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Mechanism, handshake.Version = "OAUTHBEARER", 1
	auth := kmsg.NewPtrSASLAuthenticateRequest()
	auth.SASLAuthBytes, auth.Version = []byte("n,,\x01auth=Bearer "+token+"\x01\x01"), 1
	var told, most time.Duration
	for i, req := range []kmsg.Request{handshake, auth, one(11, 0, 0).request(t, c), one(11, 0, 1).request(t, c)} {
		if req.Key() == int16(kmsg.Produce) {
			req.SetVersion(9)
		}
		begin := time.Now()
		resp, err := exchange(conn, req, int32(i))
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != told {
			t.Errorf("request %d is answered after %v, want %v", i, d, told)
		}
		if produced, ok := resp.(*kmsg.ProduceResponse); ok {
			told = time.Duration(produced.ThrottleMillis) * time.Millisecond
			most = max(most, told)
		}
	}
	if most < 40*time.Second {
		t.Error("not throttled")
	}
}
