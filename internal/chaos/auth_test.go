//go:build unix

package chaos

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/faultproxy"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testlog"
)

// grace is how long a Producer waits out a refusal.
const grace = 5 * time.Second

// A running producer's token is no longer accepted.
func TestFault_T4_TokenRefusedOnKafka(t *testing.T) {
	r := newRig(t, "t4", 1)
	p := r.producer(t, nil)
	r.send(t, p, "k")
	r.tokens.say(testauth.Claims{Audience: []string{"https://elsewhere.test"}})
	logins := r.proxy.Requests(kmsg.SASLAuthenticate)
	r.proxy.CutAll()
	took, err := r.try(t, p, probe, time.Minute)
	within(t, "the refusal, past the grace,", max(0, took-grace), 100*time.Millisecond)
	wantKinds(t, err, []error{gracedb.ErrAuthentication, gracedb.ErrProducer}, "invalid_token")
	took, err = r.try(t, p, probe, time.Minute)
	within(t, "the next refusal", took, 100*time.Millisecond)
	wantKinds(t, err, []error{gracedb.ErrAuthentication, gracedb.ErrDelivery}, "invalid_token")
	if n := r.proxy.Requests(kmsg.SASLAuthenticate) - logins; n > 4*6 {
		t.Errorf("%d logins in 5 s", n)
	}

	r.tokens.say(testauth.Claims{})
	healed := time.Now()
	r.firstAck(t, p)
	within(t, "the first acknowledgement", time.Since(healed), time.Second)
	r.close(t, p)
}

// The source has nothing better than a token that has expired: the broker ends the
// session, and is not asked for another with it.
func TestFault_T7_TokenExpiresOnKafka(t *testing.T) {
	r := newRig(t, "t7", 1)
	expires := time.Now().Add(5 * time.Second).Truncate(time.Second)
	short, err := r.kafka.Issuer.Token(testauth.Claims{Expires: expires})
	must(t, err)
	p := r.producer(t, func(c *gracedb.ProducerConfig) {
		c.Cluster.Token, c.FlushTimeout = gracedb.StaticToken(short), time.Second
	})
	var logins int
	var took time.Duration
	for err == nil && time.Since(expires) < time.Minute {
		logins = r.proxy.Requests(kmsg.SASLAuthenticate)
		took, err = r.try(t, p, "k", time.Minute)
		wait(50 * time.Millisecond)
	}
	wantKinds(t, err, []error{gracedb.ErrToken, gracedb.ErrAuthentication}, "expired")
	within(t, "the refusal, past the grace,", max(0, took-grace), 100*time.Millisecond)
	logins = r.proxy.Requests(kmsg.SASLAuthenticate) - logins
	t.Logf("%d logins in %v", logins, round(took))
	if logins > 4*int(1+took.Seconds()) {
		t.Errorf("%d logins in %v", logins, took)
	}
	_ = p.Close() // what waits for a better token is given up
	r.judge(t)
}

// Tokens of somebody else: Apache Kafka ends the session, and the next begins as
// that.
func TestFault_T9_AnotherPrincipalOnKafka(t *testing.T) {
	r := newRig(t, "t9", 1)
	var log testlog.Log
	p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Logger = log.Logger() })
	stop := r.traffic(t, p, 2)
	r.tokens.say(testauth.Claims{Subject: "carol"})
	for start := time.Now(); time.Since(start) < sessionLife+2*time.Second; {
		r.send(t, p, "k")
		wait(200 * time.Millisecond)
	}
	stop()
	r.close(t, p)
	if n := log.Count("another sub"); n != 1 {
		t.Errorf("warned %d times", n)
	}
}

// Keys change, and tokens of the old one are good for nothing from one moment to
// the next.
func TestFault_T21_KeysRotatedOnKafka(t *testing.T) {
	r := newRig(t, "t21", 3)
	p := r.producer(t, nil)
	stop := r.traffic(t, p, 4)
	var worst time.Duration
	for range 2 {
		must(t, r.kafka.Issuer.Rotate(true))
		for start := time.Now(); time.Since(start) < sessionLife; wait(200 * time.Millisecond) {
			worst = max(worst, r.send(t, p, "k"))
		}
		r.proxy.CutAll()
	}
	stop()
	// A broker learns a key when it first sees a token of it, or within 2 s.
	t.Logf("worst message %v", round(worst))
	if worst > grace {
		t.Errorf("a message took %v, longer than the grace", worst)
	}
	r.close(t, p)
}

// A key that the broker has never seen; wrong audiences and issuers are tested in
// internal/interop.
func TestFault_T22_UnknownKeyOnKafka(t *testing.T) {
	r := newRig(t, "t22", 1)
	stranger, err := testauth.NewIssuer(r.kafka.Issuer.URL())
	must(t, err)
	r.refused(t, func(context.Context) (string, error) { return stranger.Token(testauth.Claims{}) }, "invalid_token")
}

// A token that is not valid yet by the broker's clock.
func TestFault_C3_ClockAMinuteOffOnKafka(t *testing.T) {
	r := newRig(t, "c3", 1)
	r.refused(t, func(context.Context) (string, error) {
		ahead := time.Now().Add(time.Minute)
		return r.kafka.Issuer.Token(testauth.Claims{IssuedAt: ahead, NotBefore: ahead})
	}, "invalid_token", "clock")
}

// A token that is good when it is sent, and has expired when the broker looks at it, as
// it has by a clock that is ahead.
func TestFault_C3_ClockBehindOnKafka(t *testing.T) {
	r := newRig(t, "c3behind", 1)
	const life = 1500 * time.Millisecond // at most: tokens expire at whole seconds
	cluster := r.cluster()
	cluster.Token = func(context.Context) (string, error) {
		return r.kafka.Issuer.Token(testauth.Claims{Expires: time.Now().Add(life).Truncate(time.Second)})
	}
	held := r.proxy.Inject(faultproxy.Fault{
		Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Count: 1000, Do: faultproxy.Hold, For: life,
	})
	_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: r.topic})
	wantKinds(t, err, []error{gracedb.ErrAuthentication, gracedb.ErrProducer}, "invalid_token", "clock")
	_, err = gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{r.topic}})
	wantKinds(t, err, []error{gracedb.ErrAuthentication, gracedb.ErrConsumer}, "invalid_token", "clock")
	held.Remove() // the clock is set
	cluster.Token = r.tokens.source
	p := r.producer(t, func(cfg *gracedb.ProducerConfig) { cfg.Cluster = cluster })
	r.send(t, p, "k")
	r.close(t, p)
}

// refused checks what constructors say of a token that brokers refuse.
func (r *rig) refused(t *testing.T, source gracedb.TokenSource, names ...string) {
	t.Helper()
	cluster := r.cluster()
	cluster.Token = source
	start := time.Now()
	_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: r.topic})
	wantKinds(t, err, []error{gracedb.ErrAuthentication, gracedb.ErrProducer}, names...)
	_, err = gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{r.topic}})
	wantKinds(t, err, []error{gracedb.ErrAuthentication, gracedb.ErrConsumer}, names...)
	within(t, "two constructors", time.Since(start), time.Second)
}
