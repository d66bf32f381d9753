package kafkatest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// The SASL exchange, request by request, with what Apache Kafka 4.3.1 answered to
// the same when it was asked: connections.max.reauth.ms 2000, no clock skew. A
// step is what is sent; an answer is the error code and what came with it.
var exchanges = []struct {
	name        string
	steps, want list
}{
	{"login", list{"versions", "handshake", "good", "metadata", "versions"}, list{"0", begun, "0 2s", "ok", "0"}},
	{"no versions", list{"handshake", "good", "metadata"}, list{begun, "0 2s", "ok"}},
	{"versions twice", list{"versions", "versions"}, list{"0", "closed"}},
	{"metadata first", list{"metadata"}, list{"closed"}},
	{"metadata after versions", list{"versions", "metadata"}, list{"0", "closed"}},
	{"no handshake", list{"good"}, list{"closed"}},
	{"other mechanism", list{"handshake PLAIN", "handshake"}, list{"33 [OAUTHBEARER] late", "closed"}},
	{"handshake twice", list{"handshake", "handshake"}, list{begun, "34 [] late"}},
	{"versions after handshake", list{"handshake", "versions"}, list{begun, "34 late"}},
	{"metadata after handshake", list{"handshake", "metadata"}, list{begun, "ok late"}},
	{"bad token", list{"handshake", "bad", "\x01", "metadata"}, list{begun, invalid, failed, "closed"}},
	{"bad, then good", list{"handshake", "bad", "good", "metadata"}, list{begun, invalid, "0 2s", "ok"}},
	{"bad twice", list{"handshake", "bad", "bad", "\x01"}, list{begun, invalid, invalid, failed}},
	{"bad, then metadata", list{"handshake", "bad", "metadata"}, list{begun, invalid, "ok late"}},
	{"expired token", list{"handshake", "late", "\x01"}, list{begun, invalid, failed}},
	{"other audience", list{"handshake", "audience", "\x01"}, list{begun, invalid, failed}},
	{"malformed", list{"handshake", "n,,nonsense", "metadata"}, list{begun, malformed, "closed"}},
	{"empty", list{"handshake", "", "metadata"}, list{begun, malformed, "closed"}},
	{"control A first", list{"handshake", "\x01", "metadata"}, list{begun, malformed, "closed"}},
	{"not a JWT", list{"handshake", "n,,\x01auth=Bearer abc\x01\x01", "\x01"}, list{begun, invalid, failed}},
	{"scheme in lower case", list{"handshake", "n,,\x01auth=bearer GOOD\x01\x01"}, list{begun, "0 2s"}},
	{"two spaces", list{"handshake", "n,,\x01auth=Bearer  GOOD\x01\x01"}, list{begun, "0 2s"}},
	{"newline", list{"handshake", "n,,\x01auth=Bearer GOOD\n\x01\x01"}, list{begun, malformed}},
	{"other scheme", list{"handshake", "n,,\x01auth=Basic GOOD\x01\x01"}, list{begun, "closed"}},
	{"own name", list{"handshake", "n,a=alice,\x01auth=Bearer GOOD\x01\x01"}, list{begun, "0 2s"}},
	{"another's name", list{"handshake", "n,a=bob,\x01auth=Bearer GOOD\x01\x01"}, list{begun, "58 Authentication failed: Client requested an authorization id (bob) that is different from the token's principal name (alice) late"}},
	{"extension", list{"handshake", "n,,\x01auth=Bearer GOOD\x01traceId=1\x01\x01"}, list{begun, "0 2s"}},
	{"again without handshake", list{"handshake", "good", "good", "metadata"}, list{begun, "0 2s", "34 SaslAuthenticate request received after successful authentication", "ok"}},
	{"again", list{"handshake", "good", "handshake", "good", "metadata"}, list{begun, "0 2s", begun, "0 2s", "ok"}},
	{"again and again", list{"handshake", "good", "handshake", "good", "handshake", "metadata"}, list{begun, "0 2s", begun, "0 2s", "34 []", "ok"}},
	{"again after a second", list{"handshake", "good", "handshake", "good", "wait 1.2s", "handshake", "good"}, list{begun, "0 2s", begun, "0 2s", "", begun, "0 2s"}},
	{"again as another", list{"handshake", "good", "handshake", "bob", "metadata"}, list{begun, "0 2s", begun, "58 Cannot change principals during re-authentication from User.alice: User.bob late", "closed"}},
	{"again with a bad token", list{"handshake", "good", "handshake", "bad", "\x01"}, list{begun, "0 2s", begun, invalid, failed}},
	{"again with metadata between", list{"handshake", "good", "handshake", "metadata"}, list{begun, "0 2s", begun, "ok late"}},
	{"again, other mechanism", list{"handshake", "good", "handshake PLAIN"}, list{begun, "0 2s", "closed"}},
	{"expired, then metadata", list{"handshake", "good", "wait 2.2s", "metadata"}, list{begun, "0 2s", "", "closed"}},
	{"expired, then versions", list{"handshake", "good", "wait 2.2s", "versions"}, list{begun, "0 2s", "", "closed"}},
	{"expired, then login", list{"handshake", "good", "wait 2.2s", "handshake", "good", "metadata"}, list{begun, "0 2s", "", begun, "0 2s", "ok"}},
	{"expired, then no handshake", list{"handshake", "good", "wait 2.2s", "good"}, list{begun, "0 2s", "", "closed"}},
	{"short token", list{"handshake", "short", "metadata", "wait 1.1s", "metadata"}, list{begun, "0 1s", "ok", "", "closed"}},
	{"large first frame", list{"handshake", "large"}, list{begun, "closed"}},
}

type list []string

// What is answered often; "late" is after connection.failed.authentication.delay.ms.
const (
	begun     = "0 [OAUTHBEARER]"
	invalid   = `0 {"status":"invalid_token"}`
	failed    = `58 {"status":"invalid_token"} late`
	malformed = "58 " + invalidCredentials + " late"
)

// talk goes through the steps of an exchange on one connection.
func talk(t *testing.T, conn net.Conn, i *testauth.Issuer, steps list) list {
	t.Helper()
	token := func(claims testauth.Claims) string {
		s, err := i.Token(claims)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := token(testauth.Claims{})
	var out list
	for n, step := range steps {
		var req kmsg.Request
		switch verb, rest, _ := strings.Cut(step, " "); verb {
		case "wait":
			d, err := time.ParseDuration(rest)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(d)
			out = append(out, "")
			continue
		case "versions":
			req = kmsg.NewPtrApiVersionsRequest()
			req.SetVersion(0)
		case "metadata":
			req = kmsg.NewPtrMetadataRequest()
			req.SetVersion(4)
		case "handshake":
			h := kmsg.NewPtrSASLHandshakeRequest()
			if h.Mechanism = rest; rest == "" {
				h.Mechanism = "OAUTHBEARER"
			}
			h.SetVersion(1)
			req = h
		default:
			a := kmsg.NewPtrSASLAuthenticateRequest()
			message := "n,,\x01auth=Bearer GOOD\x01\x01"
			switch step {
			case "good":
			case "bad":
				message = strings.Replace(message, "GOOD", good[:len(good)-8]+"AAAAAAAA", 1)
			case "late":
				message = strings.Replace(message, "GOOD", token(testauth.Claims{IssuedAt: time.Now().Add(-time.Hour), Expires: time.Now().Add(-time.Minute)}), 1)
			case "audience":
				message = strings.Replace(message, "GOOD", token(testauth.Claims{Audience: []string{"https://a.test"}}), 1)
			case "bob":
				message = strings.Replace(message, "GOOD", token(testauth.Claims{Subject: "bob"}), 1)
			case "short":
				time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
				message = strings.Replace(message, "GOOD", token(testauth.Claims{Expires: time.Now().Add(time.Second)}), 1)
			case "large":
				message = strings.Replace(message, "GOOD", strings.Repeat("a", 600<<10), 1)
			default:
				message = step
			}
			a.SASLAuthBytes = []byte(strings.Replace(message, "GOOD", good, 1))
			a.SetVersion(1)
			req = a
		}
		begin := time.Now()
		answer, err := roundTrip(conn, req, int32(n))
		if time.Since(begin) >= failureDelay && answer != "closed" {
			answer += " late"
		}
		if out = append(out, answer); err != nil {
			break
		}
	}
	return out
}

func roundTrip(conn net.Conn, req kmsg.Request, corr int32) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "closed", err // a pipe says so here already
	}
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("x")).AppendRequest(nil, req, corr)); err != nil {
		return "closed", err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		if isTimeout(err) {
			return "silent", err
		}
		return "closed", err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, body); err != nil {
		return "cut", err
	}
	if got := int32(binary.BigEndian.Uint32(body)); got != corr {
		return "", errors.New("another's answer")
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body[4:]); err != nil {
		return "", err
	}
	switch r := resp.(type) {
	case *kmsg.SASLHandshakeResponse:
		return fmt.Sprint(r.ErrorCode, " ", r.SupportedMechanisms), nil
	case *kmsg.SASLAuthenticateResponse:
		life := r.SessionLifetimeMillis
		answer := fmt.Sprintf("%d %s", r.ErrorCode, r.SASLAuthBytes)
		if r.ErrorMessage != nil {
			answer += *r.ErrorMessage
		}
		switch {
		case life > 1900:
			answer += "2s"
		case life > 0:
			answer += "1s"
		}
		return answer, nil
	case *kmsg.ApiVersionsResponse:
		return fmt.Sprint(r.ErrorCode), nil
	}
	return "ok", nil
}

func TestExchange(t *testing.T) {
	for _, tt := range exchanges {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, Config{Virtual: true, Plaintext: true, MaxSession: 2 * time.Second})
				conn, err := c.Dial(t.Context(), "tcp", c.Addrs()[0])
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, talk(t, conn, c.Issuer(), tt.steps)); diff != "" {
					t.Errorf("%q: %s", tt.steps, diff)
				}
				_ = conn.Close()
			})
		})
	}
}
