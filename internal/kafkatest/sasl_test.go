package kafkatest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

func TestLifetimeIsTheTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, MaxSession: time.Hour})
		cl := client(t, c, &bearer{token: func() (string, error) {
			return c.Issuer().Token(testauth.Claims{Expires: time.Now().Add(7 * time.Minute)})
		}})
		produce(t, cl, "a")
		for _, l := range c.Logins() {
			if l.Lifetime != 7*time.Minute {
				t.Errorf("session of %v, want 7m", l.Lifetime)
			}
		}
		cl.Close()
	})
}

// A client that was told of an endless session goes on after the end of it, and
// loses its connection.
func TestExpiredSessionIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, MaxSession: time.Minute})
		c.TellLifetime(0)
		cl := client(t, c, as(c, testauth.Claims{}), kgo.ConnIdleTimeout(15*time.Minute))
		for range 2 { // the seed, and the broker that it names
			if err := cl.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(59 * time.Second)
		if err := cl.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := c.ConnectionCount()
		time.Sleep(2 * time.Second)
		if err := cl.Ping(t.Context()); err == nil {
			t.Error("the session has expired, and its connection is alive")
		}
		if err := cl.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionCount() - before; got != 1 {
			t.Errorf("%d new connections after the end of the session, want 1", got)
		}
		for _, l := range c.Logins() {
			if l.Again {
				t.Errorf("re-authentication: %+v", l)
			}
		}
		cl.Close()
	})
}

func TestRefusedTokens(t *testing.T) {
	stranger, err := testauth.NewIssuer("https://issuer.test")
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, Config{})
	good, err := c.Issuer().Token(testauth.Claims{})
	if err != nil {
		t.Fatal(err)
	}
	token := func(i *testauth.Issuer, claims testauth.Claims) sasl.Mechanism {
		return &bearer{token: func() (string, error) { return i.Token(claims) }}
	}
	const (
		challenge = `{"status":"invalid_token"}`
		direct    = "due to invalid credentials with SASL mechanism OAUTHBEARER"
	)
	for _, tt := range []struct {
		name      string
		mechanism sasl.Mechanism
		want      string
	}{
		{"signature", token(stranger, testauth.Claims{}), challenge},
		{"audience", token(c.Issuer(), testauth.Claims{Audience: []string{"https://a.test"}}), challenge},
		{"expired", token(c.Issuer(), testauth.Claims{Expires: time.Now().Add(-time.Second)}), challenge},
		{"not a JWT", raw("n,,\x01auth=Bearer abc\x01\x01"), challenge},
		{"newline", raw("n,,\x01auth=Bearer " + good + "\n\x01\x01"), direct},
		{"no separator", raw("n,,auth=Bearer " + good), direct},
		{"another's name", raw("n,a=bob,\x01auth=Bearer " + good + "\x01\x01"), "authorization id (bob)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := client(t, c, tt.mechanism).Ping(t.Context())
			if !errors.Is(err, kerr.SaslAuthenticationFailed) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want SASL_AUTHENTICATION_FAILED with %s", err, tt.want)
			}
			if b, ok := tt.mechanism.(*bearer); ok && len(b.challenges()) == 0 {
				t.Error("error 58 without a challenge")
			}
		})
	}
	if accepted, refused := c.LoginCounts(); accepted != 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused", accepted, refused)
	}
	for _, l := range c.Logins() {
		if strings.Contains(l.Refused, good[:20]) {
			t.Errorf("a token in %+v", l)
		}
	}
}

func TestRefuseGoodTokens(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refusal Refusal
		want    string
	}{
		{"challenge", Refusal{}, `{"status":"invalid_token"}`},
		{
			"scope",
			Refusal{Status: "insufficient_scope", Scope: "kafka.produce", OpenIDConfiguration: "https://issuer.test"},
			`{"status":"insufficient_scope","scope":"kafka.produce","openid-configuration":"https://issuer.test"}`,
		},
		{"direct", Refusal{Direct: true}, "due to invalid credentials with SASL mechanism OAUTHBEARER"},
		{"one", Refusal{Match: func(_ string, c testauth.Claims) bool { return c.Subject == "alice" }}, "invalid_token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, Config{})
			alice := as(c, testauth.Claims{})
			c.RefuseTokens(tt.refusal)
			err := client(t, c, alice).Ping(t.Context())
			if !errors.Is(err, kerr.SaslAuthenticationFailed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if heard := len(alice.challenges()) > 0; heard == tt.refusal.Direct {
				t.Errorf("challenges %q", alice.challenges())
			}
			err = client(t, c, as(c, testauth.Claims{Subject: "bob"})).Ping(t.Context())
			if (err == nil) != (tt.name == "one") {
				t.Errorf("bob: %v", err)
			}
			c.AcceptTokens()
			c.RefuseTokens(Refusal{Count: 1})
			if err := client(t, c, alice).Ping(t.Context()); err == nil {
				t.Error("not refused")
			}
			if err := client(t, c, alice).Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPrincipalChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, MaxSession: 10 * time.Minute})
		var now atomic.Value
		now.Store("alice")
		cl := client(t, c, &bearer{token: func() (string, error) {
			return c.Issuer().Token(testauth.Claims{Subject: now.Load().(string)})
		}}, kgo.ConnIdleTimeout(15*time.Minute))
		for range 2 {
			if err := cl.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		before := len(c.Logins())
		now.Store("bob")
		time.Sleep(11 * time.Minute)
		if err := cl.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := c.Logins()[before:]
		if len(got) < 2 || !got[0].Again || !strings.Contains(got[0].Refused, "Cannot change principals during re-authentication from User.alice: User.bob") ||
			got[1].Again || got[1].Refused != "" || got[1].Subject != "bob" {
			t.Errorf("logins %+v", got)
		}
		cl.Close()
	})
}

func allow(topic string, op kmsg.ACLOperation) kfake.ACL {
	return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
}

func TestACLs(t *testing.T) {
	c := start(t, Config{
		Topics: map[string]int{"gracedb-test.test": 1, "gracedb-test.secret": 1},
		Subjects: map[string][]kfake.ACL{
			"alice": {allow("gracedb-test.test", kmsg.ACLOperationWrite), allow("gracedb-test.test", kmsg.ACLOperationRead)},
			"bob":   nil,
		},
	})
	try := func(subject, topic string) error {
		cl := client(t, c, as(c, testauth.Claims{Subject: subject}), kgo.UnknownTopicRetries(0))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(subject)}).FirstErr()
	}
	for _, tt := range []struct {
		subject, topic string
		want           error
	}{
		{"alice", "gracedb-test.test", nil},
		{"alice", "gracedb-test.secret", kerr.TopicAuthorizationFailed},
		{"alice", "gracedb-test.none", kerr.TopicAuthorizationFailed},
		{"bob", "gracedb-test.test", kerr.TopicAuthorizationFailed},
		{"who is that", "gracedb-test.test", kerr.TopicAuthorizationFailed},
		{internal, "gracedb-test.test", kerr.TopicAuthorizationFailed},
	} {
		if err := try(tt.subject, tt.topic); !errors.Is(err, tt.want) {
			t.Errorf("%s to %s: %v, want %v", tt.subject, tt.topic, err, tt.want)
		}
	}
	if err := c.SetACLs("bob", allow("gracedb-test.test", kmsg.ACLOperationWrite)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetACLs("alice"); err != nil {
		t.Fatal(err)
	}
	if err := try("bob", "gracedb-test.test"); err != nil {
		t.Error(err)
	}
	if err := try("alice", "gracedb-test.test"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"alice", "bob"}, values(t, c, "gracedb-test.test")); diff != "" {
		t.Error(diff)
	}
}

// Rights are told as Kafka tells them, which keeps those on what it answers an error for; a
// heartbeat of no member takes the right READ, whether there is such a group or not.
func TestRightsAreTold(t *testing.T) {
	group := func(op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeGroup, Name: "g", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	c := start(t, Config{
		Topics: map[string]int{"gracedb-test.test": 1, "gracedb-test.secret": 1},
		Subjects: map[string][]kfake.ACL{
			"alice": {allow("gracedb-test.test", kmsg.ACLOperationRead), group(kmsg.ACLOperationDescribe)},
			"bob":   {group(kmsg.ACLOperationRead)},
		},
	})
	cl := client(t, c, as(c, testauth.Claims{Subject: "alice"}))
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.IncludeTopicAuthorizedOperations = true
	for _, topic := range []string{"gracedb-test.test", "gracedb-test.secret"} {
		of := kmsg.NewMetadataRequestTopic()
		of.Topic = &topic
		metadata.Topics = append(metadata.Topics, of)
	}
	topics, err := metadata.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics.Topics {
		want := int32(1<<kmsg.ACLOperationRead | 1<<kmsg.ACLOperationDescribe)
		if topic.ErrorCode != 0 {
			want = notTold
		}
		if topic.AuthorizedOperations != want {
			t.Errorf("%s: %b, want %b", *topic.Topic, topic.AuthorizedOperations, want)
		}
	}
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups, describe.IncludeAuthorizedOperations = []string{"g"}, true
	groups, err := describe.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	if g := groups.Groups[0]; g.ErrorCode != kerr.GroupIDNotFound.Code || g.AuthorizedOperations != notTold {
		t.Errorf("group: code %d, %b", g.ErrorCode, g.AuthorizedOperations)
	}
	for subject, want := range map[string]error{"alice": kerr.GroupAuthorizationFailed, "bob": kerr.UnknownMemberID} {
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.MemberID, beat.Generation = "g", "nobody", -1
		resp, err := beat.RequestWith(t.Context(), client(t, c, as(c, testauth.Claims{Subject: subject})))
		if err != nil || kerr.ErrorForCode(resp.ErrorCode) != want { //nolint:errorlint // the code itself
			t.Errorf("heartbeat of %s: %v, want %v", subject, resp, want)
		}
	}
}

func TestWithoutSASL(t *testing.T) {
	c := start(t, Config{})
	if err := client(t, c, nil).Ping(t.Context()); err == nil {
		t.Error("a client without SASL was let in")
	}
}

func TestClockSkew(t *testing.T) {
	c := start(t, Config{ClockSkew: time.Minute})
	late := as(c, testauth.Claims{IssuedAt: time.Now().Add(-time.Hour), Expires: time.Now().Add(-30 * time.Second)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := client(t, c, late).Ping(ctx); err == nil {
		t.Error("a session that was over before it began")
	}
	for _, l := range c.Logins() {
		if l.Refused != "" || l.Lifetime != 0 {
			t.Errorf("login %+v", l)
		}
	}
	if accepted, _ := c.LoginCounts(); accepted == 0 {
		t.Error("no login")
	}
}

func TestTellLifetime(t *testing.T) {
	for _, ms := range []int64{1<<63 - 1, -1, 1, 0} {
		bubble(t, Config{}, func(t *testing.T, c *Cluster, cl *kgo.Client) {
			c.TellLifetime(ms)
			c.Drop(RST)
			produce(t, cl, "second")
			produce(t, cl, "third")
			again := slices.ContainsFunc(c.Logins(), func(l Login) bool { return l.Again })
			if again != (ms == 1) {
				t.Errorf("lifetime %d: re-authentication: %v", ms, again)
			}
		})
	}
}
