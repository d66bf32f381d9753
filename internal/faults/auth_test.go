package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/testlog"
)

// sessions make brokers want a new authentication every two seconds.
var sessions = kafkatest.Config{MaxSession: 2 * time.Second}

var errNoToken = fmt.Errorf("open /tmp/bt_u1000: %w", errors.New("no such file or directory"))

// The ways in which authentication stops to work, and works again.
var authOutages = []struct {
	name       string
	begin, end func(*rig)
	asks       bool // the broker hears of it
	reorders   bool // what was queued is sent again behind what followed it
	cut        bool // it is noticed at once, not when the session ends
}{
	{"no token", func(r *rig) { r.tokens.take(errNoToken) }, func(r *rig) { r.tokens.take(nil) }, false, false, false},
	{"challenge", func(r *rig) { r.RefuseTokens(kafkatest.Refusal{}) }, func(r *rig) { r.AcceptTokens() }, true, false, false},
	{"code 58", func(r *rig) { r.RefuseTokens(kafkatest.Refusal{Direct: true}) }, func(r *rig) { r.AcceptTokens() }, true, true, false},
	{"no token, connections cut", andCut(func(r *rig) { r.tokens.take(errNoToken) }), func(r *rig) { r.tokens.take(nil) }, false, false, true},
	{"challenge, connections cut", andCut(func(r *rig) { r.RefuseTokens(kafkatest.Refusal{}) }), func(r *rig) { r.AcceptTokens() }, true, false, true},
	{"code 58, connections cut", andCut(func(r *rig) { r.RefuseTokens(kafkatest.Refusal{Direct: true}) }), func(r *rig) { r.AcceptTokens() }, true, true, true},
}

func andCut(begin func(*rig)) func(*rig) {
	return func(r *rig) { begin(r); r.Drop(kafkatest.RST) }
}

func TestFault_T1_NewTokenEverySecond(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		r.tokens.life = 2 * time.Second
		p := r.producer(t, nil)
		stop := r.traffic(t, p, 4, 20*time.Millisecond)
		time.Sleep(time.Minute)
		stop()
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[failed]+n[unknown] > 0 {
			t.Errorf("%v", n)
		}
		renewals := 0
		for _, l := range r.Logins() {
			if l.Refused != "" {
				t.Errorf("%+v", l)
			}
			if l.Again {
				renewals++
			}
		}
		// kgo renews a session a second before its end, and there is a new token each second. Every
		// 20 seconds keepWarm uses all connections, and those that messages do not use renew their
		// sessions then too.
		if renewals < 55 || renewals > 75 {
			t.Errorf("%d renewals in a minute, want one a second, and a few more", renewals)
		}
	})
}

// inFlight is how long before an outage a message may have been sent, and how long
// after the first acknowledgement one may be refused still, by another broker (which
// thinks a refusal over for 100 ms).
const inFlight = 200 * time.Millisecond

// Shorter than the grace, nobody notices.
func TestFault_T2_OutageWithinGrace(t *testing.T) {
	for _, o := range authOutages {
		t.Run(o.name, func(t *testing.T) {
			cfg := sessions
			cfg.Brokers, cfg.Topics = 2, map[string]int{topic: 4}
			virtually(t, cfg, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				stop := r.traffic(t, p, 4, 20*time.Millisecond)
				time.Sleep(5 * time.Second)
				_, before := r.LoginCounts()
				begun := time.Now()
				o.begin(r)
				time.Sleep(4 * time.Second)
				o.end(r)
				_, after := r.LoginCounts()
				took := r.firstAck(t, p)
				within(t, "the first acknowledgement", took, time.Second)
				if o.reorders {
					r.unordered(begun.Add(-inFlight), time.Now().Add(inFlight))
				}
				time.Sleep(5 * time.Second)
				stop()
				closeProducer(t, p)
				r.judge(t)
				for value, s := range r.sends() {
					// A message whose answer the cut has lost is failed by code 58 before
					// the engine can ask again: nobody knows whether it was written.
					cut := o.reorders && s.Outcome == unknown && s.Began.Sub(begun).Abs() <= inFlight
					if s.Outcome != delivered && s.Key != "probe" && !cut {
						t.Errorf("%s: %v", value, s.Err)
						break
					}
				}
				asked := after - before
				t.Logf("first acknowledgement after %v, the brokers were asked %d times in 4 s", took, asked)
				if o.asks != (asked > 0) || asked > 18 {
					t.Errorf("the brokers were asked %d times in 4 s", asked)
				}
			})
		})
	}
}

// Longer than the grace, new messages are refused within 100 ms, and those that
// were accepted wait.
func TestFault_T2_OutagePastGrace(t *testing.T) {
	for _, o := range authOutages {
		t.Run(o.name, func(t *testing.T) {
			virtually(t, sessions, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				stop := r.traffic(t, p, 4, 100*time.Millisecond)
				time.Sleep(5 * time.Second)
				o.begin(r)
				begun := time.Now()
				var refused time.Duration // since when calls say so
				for refused == 0 {
					time.Sleep(20 * time.Millisecond)
					if errors.Is(r.async(t, t.Context(), p, "asks"), gracedb.ErrAuthentication) {
						refused = time.Since(begun)
					}
				}
				// The session lasts 2 s at most, the grace 5 s.
				within(t, "the first refusal", refused, 7*time.Second+100*time.Millisecond)
				took, err := r.try(t, p, "sync", time.Minute)
				within(t, "ProduceSync", took, 100*time.Millisecond)
				wantKinds(t, err, is(gracedb.ErrAuthentication, gracedb.ErrDelivery, gracedb.ErrProducer), is(gracedb.ErrOutcomeUnknown))
				if _, err := p.Ping(t.Context(), ""); !errors.Is(err, gracedb.ErrAuthentication) {
					t.Errorf("Ping: %v", err)
				}
				start := time.Now()
				if err := p.Flush(t.Context()); !errors.Is(err, gracedb.ErrAuthentication) {
					t.Errorf("Flush: %v", err)
				}
				within(t, "Flush", time.Since(start), 100*time.Millisecond)
				time.Sleep(50 * time.Second)
				o.end(r)
				took = r.firstAck(t, p)
				within(t, "the first acknowledgement", took, time.Second)
				t.Logf("refused after %v, acknowledged %v after the end", refused, took)
				if o.reorders {
					r.unordered(begun.Add(-inFlight), time.Now().Add(inFlight))
				}
				time.Sleep(time.Second)
				stop()
				closeProducer(t, p)
				r.judge(t)
				for value, s := range r.sends() {
					if s.Outcome == unknown && s.Key != "probe" || s.Outcome == failed && !errors.Is(s.Err, gracedb.ErrAuthentication) {
						t.Errorf("%s: %v", value, s.Err)
					}
				}
			})
		})
	}
}

// A message that was accepted when its authentication failed is kept however long
// that lasts.
func TestFault_T2_AThousandKept(t *testing.T) {
	for _, o := range authOutages {
		t.Run(o.name, func(t *testing.T) {
			virtually(t, kafkatest.Config{MaxSession: 2 * time.Second, Topics: map[string]int{topic: 3}}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				time.Sleep(1900 * time.Millisecond)
				o.begin(r)
				time.Sleep(200 * time.Millisecond)
				accepted := 0
				if o.reorders {
					r.unordered(time.Now(), time.Now().Add(time.Hour))
				}
				for range 1000 {
					if r.async(t, t.Context(), p, "k") == nil {
						accepted++
					}
				}
				if accepted != 1000 {
					t.Errorf("%d accepted", accepted)
				}
				time.Sleep(time.Minute)
				if n := p.Pending(); n != 1000 {
					t.Errorf("%d pending", n)
				}
				o.end(r)
				start := time.Now()
				if err := p.Flush(t.Context()); err != nil {
					// The grace has passed: Flush says so until a login has succeeded.
					time.Sleep(time.Second)
					if err := p.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
				within(t, "delivery", time.Since(start), time.Second+500*time.Millisecond)
				closeProducer(t, p)
				r.judge(t)
				if n := r.count(); n[delivered] != 1000 {
					t.Errorf("%v", n)
				}
			})
		})
	}
}

func TestFault_T3_NoTokenPastCtx(t *testing.T) {
	virtually(t, sessions, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		expiry := time.Now().Add(-3 * time.Hour).Truncate(time.Second)
		r.tokens.take(fmt.Errorf("%w: /tmp/bt_u1000: expired at %s", gracedb.ErrToken, expiry.Format(time.RFC3339)))
		time.Sleep(3 * time.Second)
		took, err := r.try(t, p, "k", time.Second)
		within(t, "ProduceSync", took, 1100*time.Millisecond)
		wantKinds(t, err, is(gracedb.ErrToken, gracedb.ErrAuthentication, gracedb.ErrProducer, context.DeadlineExceeded), nil,
			"/tmp/bt_u1000", expiry.Format(time.RFC3339))
		r.tokens.take(nil)
		within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
		closeProducer(t, p)
		r.judge(t)
	})
}

// The broker's reason reaches the caller: past the grace, at once with a negative
// one and in constructors; after the source has been asked once more.
func TestFault_T4_InvalidToken(t *testing.T) { refusal(t, kafkatest.Refusal{}, "invalid_token") }

func TestFault_T5_InsufficientScope(t *testing.T) {
	refusal(t, kafkatest.Refusal{Status: "insufficient_scope", Scope: "kafka.write"}, "insufficient_scope", "kafka.write")
}

func refusal(t *testing.T, how kafkatest.Refusal, names ...string) {
	for _, grace := range []time.Duration{-1, time.Second, 0} {
		t.Run(fmt.Sprint("grace ", grace), func(t *testing.T) {
			virtually(t, sessions, func(t *testing.T, r *rig) {
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.AuthGrace = grace })
				names := append(names, r.Addrs()[0])
				r.RefuseTokens(how)
				time.Sleep(2100 * time.Millisecond) // the session is over
				took, err := r.try(t, p, "k", time.Minute)
				wantKinds(t, err, is(gracedb.ErrAuthentication, gracedb.ErrProducer, kerr.SaslAuthenticationFailed), is(gracedb.ErrToken, gracedb.ErrConnection), names...)
				least := max(grace, 0)
				if grace == 0 {
					least = 5 * time.Second
				}
				if took < least {
					t.Errorf("ProduceSync took %v, want at least %v", took, least)
				}
				within(t, "ProduceSync", took, least+100*time.Millisecond)
				t.Logf("after %v: %v", took, err)
				took, err = r.try(t, p, "k", time.Minute)
				wantKinds(t, err, is(gracedb.ErrAuthentication, gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown), names...)
				within(t, "the next", took, 0)
				start := time.Now()
				_, err = gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: r.cluster("alice"), Topic: "test", AuthGrace: grace})
				wantKinds(t, err, is(gracedb.ErrAuthentication, gracedb.ErrProducer), is(gracedb.ErrToken, gracedb.ErrConnection), names...)
				_, err = gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: r.cluster("bob"), Topics: []string{"test"}})
				wantKinds(t, err, is(gracedb.ErrAuthentication, gracedb.ErrConsumer), is(gracedb.ErrToken, gracedb.ErrConnection), names...)
				within(t, "the constructors", time.Since(start), 100*time.Millisecond)
				r.AcceptTokens()
				within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
				closeProducer(t, p)
				r.judge(t)
			})
		})
	}
}

// A token that has just been renewed in its place is found before anybody hears of
// the refusal of the old one: the source is asked once more. If it has no other, that
// is told, and from then on the source is asked four times a second, the broker once.
func TestFault_T4_OldTokenRefusedNewOneAtHand(t *testing.T) {
	t.Run("new one", func(t *testing.T) {
		oldRefused(t, true, func(t *testing.T, r *rig, p *gracedb.Producer, asked func() int) {
			r.send(t, p, "k")
			// For the login that is refused, once more, and for the next login.
			if n := asked(); n != 3 {
				t.Errorf("the source was asked %d times, want 3", n)
			}
			if _, refused := r.LoginCounts(); refused != 1 {
				t.Errorf("%d logins refused, want 1", refused)
			}
		})
	})
	t.Run("no other", func(t *testing.T) {
		oldRefused(t, false, func(t *testing.T, r *rig, p *gracedb.Producer, asked func() int) {
			_, err := r.try(t, p, "k", time.Minute)
			wantKinds(t, err, is(gracedb.ErrAuthentication), is(gracedb.ErrToken, gracedb.ErrConnection), "invalid_token")
			told := asked()
			if told != 2 {
				t.Errorf("the source was asked %d times before the error, want 2", told)
			}
			time.Sleep(10 * time.Second)
			if n := asked() - told; n < 30 || n > 40 {
				t.Errorf("the source was asked %d times in 10 s, want 4 a second", n)
			}
			// A token is held back when it has been refused twice.
			if _, refused := r.LoginCounts(); refused < 8 || refused > 12 {
				t.Errorf("%d logins refused, want 2 and 1 a second", refused)
			}
			r.AcceptTokens()
			within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
		})
	})
}

// oldRefused runs f with a producer without grace whose session is over and whose
// token is refused from now on, and tells how often its source was asked since. If
// renewed is set, the source has a new token from the second question on.
func oldRefused(t *testing.T, renewed bool, f func(t *testing.T, r *rig, p *gracedb.Producer, asked func() int)) {
	virtually(t, sessions, func(t *testing.T, r *rig) {
		old, err := r.Issuer().Token(testauth.Claims{Subject: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		var questions, known atomic.Int64 // known: how many are answered with the old one
		known.Store(math.MaxInt64)
		p := r.producer(t, func(c *gracedb.ProducerConfig) {
			c.AuthGrace = -1
			c.Cluster.Token = func(context.Context) (string, error) {
				// Who is asked when a refusal is known already is not asked once more,
				// and without this both would be at the same instant.
				time.Sleep(time.Millisecond)
				if questions.Add(1) <= known.Load() {
					return old, nil
				}
				return r.Issuer().Token(testauth.Claims{Subject: "alice"})
			}
		})
		time.Sleep(2100 * time.Millisecond)
		before := questions.Load()
		if renewed {
			known.Store(before + 1)
		}
		r.RefuseTokens(kafkatest.Refusal{Match: func(tok string, _ testauth.Claims) bool { return tok == old }})
		f(t, r, p, func() int { return int(questions.Load() - before) })
		closeProducer(t, p)
		r.judge(t)
	})
}

// A lifetime of a session that no broker should tell.
func TestFault_C5_StrangeLifetimes(t *testing.T) {
	for _, ms := range []int64{math.MaxInt64, math.MinInt64, -1, 0, 1, 999} {
		t.Run(fmt.Sprint(ms), func(t *testing.T) {
			virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
				p := r.producer(t, nil)
				r.TellLifetime(ms)
				r.Drop(kafkatest.RST)
				r.send(t, p, "k")
				time.Sleep(time.Second)
				before, _ := r.LoginCounts()
				time.Sleep(19 * time.Second)
				after, _ := r.LoginCounts()
				if after-before > 4 {
					t.Errorf("%d logins in 20 idle seconds", after-before)
				}
				for range 20 {
					r.send(t, p, "k")
				}
				r.RefuseTokens(kafkatest.Refusal{})
				r.Drop(kafkatest.RST)
				time.Sleep(10 * time.Second)
				_, refused := r.LoginCounts()
				if refused > 42 {
					t.Errorf("%d logins refused in 10 s", refused)
				}
				r.AcceptTokens()
				within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
				closeProducer(t, p)
				r.judge(t)
			})
		})
	}
}

// A token that brokers accept although it has expired, by their clock's tolerance,
// is not shown to them: they would end the session at the first request.
func TestFault_T7_ExpiredWithinSkew(t *testing.T) {
	virtually(t, kafkatest.Config{ClockSkew: 30 * time.Second}, func(t *testing.T, r *rig) {
		var expires time.Time
		p := r.producer(t, func(c *gracedb.ProducerConfig) {
			expires = time.Now().Add(2 * time.Minute).Truncate(time.Second)
			c.Cluster.Token = func(context.Context) (string, error) {
				return r.Issuer().Token(testauth.Claims{Subject: "alice", IssuedAt: expires.Add(-time.Hour), Expires: expires})
			}
		})
		time.Sleep(time.Until(expires) + time.Second)
		accepted, refused := r.LoginCounts()
		took, err := r.try(t, p, "k", 20*time.Second)
		wantKinds(t, err, is(gracedb.ErrToken), is(gracedb.ErrConnection), "expired")
		within(t, "ProduceSync", took, 5*time.Second+100*time.Millisecond)
		a, b := r.LoginCounts()
		if logins := a + b - accepted - refused; logins > 0 {
			t.Errorf("%d logins with an expired token", logins)
		}
		_ = p.Close()
		r.judge(t)
	})
}

// A token of another principal ends in a new connection and one warning. What was
// opened as the one before is not used any more past its session.
func TestFault_T9_AnotherPrincipal(t *testing.T) {
	virtually(t, sessions, func(t *testing.T, r *rig) {
		var log testlog.Log
		var subject atomic.Value
		subject.Store("alice")
		p := r.producer(t, func(c *gracedb.ProducerConfig) {
			c.Cluster.Logger = log.Logger()
			c.Cluster.Token = func(context.Context) (string, error) {
				return r.Issuer().Token(testauth.Claims{Subject: subject.Load().(string)})
			}
		})
		r.send(t, p, "k")
		subject.Store("carol")
		requests := func(subject string) (all, produces int) {
			for _, c := range r.Connections() {
				if c.Subject != subject {
					continue
				}
				produces += c.Requests[kmsg.Produce]
				for _, n := range c.Requests {
					all += n
				}
			}
			return all, produces
		}
		time.Sleep(sessions.MaxSession)
		before, _ := requests("alice") // some stay open, idle
		for range 10 {
			r.send(t, p, "k")
			time.Sleep(time.Second)
		}
		if after, _ := requests("alice"); after > before {
			t.Errorf("%d requests more as the principal before", after-before)
		}
		if _, produces := requests("carol"); produces < 10 {
			t.Errorf("%d messages as the new principal, want 10", produces)
		}
		closeProducer(t, p)
		r.judge(t)
		if n := log.Count("another sub"); n != 1 {
			t.Errorf("warned %d times", n)
		}
	})
}

// Wrong audience, issuer, key and clock: the broker's status is shown.
func TestFault_T22_WrongClaims(t *testing.T) {
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		other, err := testauth.NewIssuer("https://elsewhere.test")
		if err != nil {
			t.Fatal(err)
		}
		forged, err := testauth.NewIssuer(r.Issuer().URL())
		if err != nil {
			t.Fatal(err)
		}
		for name, token := range map[string]func() (string, error){
			"audience": func() (string, error) {
				return r.Issuer().Token(testauth.Claims{Audience: []string{"https://elsewhere"}})
			},
			"issuer": func() (string, error) { return other.Token(testauth.Claims{}) },
			"key":    func() (string, error) { return forged.Token(testauth.Claims{}) },
			"nbf": func() (string, error) {
				return r.Issuer().Token(testauth.Claims{NotBefore: time.Now().Add(time.Hour)})
			},
			"iat": func() (string, error) {
				return r.Issuer().Token(testauth.Claims{IssuedAt: time.Now().Add(time.Minute)})
			},
		} {
			cluster := r.cluster("alice")
			cluster.Token = func(context.Context) (string, error) { return token() }
			start := time.Now()
			_, err := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			wantKinds(t, err, is(gracedb.ErrAuthentication), is(gracedb.ErrToken, gracedb.ErrConnection), "invalid_token", "clock", r.Addrs()[0])
			within(t, "NewProducer with a wrong "+name, time.Since(start), time.Second)
		}
	})
}

// The client's clock is a minute off the broker's. One that is behind shows a token
// that to the broker has expired, one that is ahead issued it in the broker's future:
// the broker says no more than invalid_token, and the error to look at the clock.
func TestFault_C3_ClockOff(t *testing.T) {
	const off = time.Minute
	for name, tt := range map[string]struct {
		life   time.Duration
		refuse func(testauth.Claims) bool // what the broker's clock makes of a token
	}{
		"client behind": {40 * time.Second, func(c testauth.Claims) bool { return !time.Now().Add(off).Before(c.Expires) }},
		"client ahead":  {3 * time.Hour, func(c testauth.Claims) bool { return time.Now().Add(-off).Before(c.IssuedAt) }},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, sessions, func(t *testing.T, r *rig) {
				r.tokens.life = tt.life
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.AuthGrace = -1 })
				refused := 0
				r.RefuseTokens(kafkatest.Refusal{Match: func(_ string, c testauth.Claims) bool {
					if tt.refuse(c) {
						refused++
						return true
					}
					return false
				}})
				time.Sleep(sessions.MaxSession)
				_, err := r.try(t, p, "k", time.Minute)
				wantKinds(t, err, is(gracedb.ErrAuthentication), is(gracedb.ErrToken, gracedb.ErrConnection), "invalid_token", "clock", r.Addrs()[0])
				t.Log(err)
				_, err = gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: r.cluster("bob"), Topics: []string{"test"}})
				wantKinds(t, err, is(gracedb.ErrAuthentication), is(gracedb.ErrToken, gracedb.ErrConnection), "invalid_token", "clock", r.Addrs()[0])
				if refused == 0 {
					t.Error("the fault did not happen")
				}
				r.AcceptTokens() // the clock has been set
				within(t, "the first acknowledgement", r.firstAck(t, p), time.Second)
				closeProducer(t, p)
				r.judge(t)
			})
		})
	}
}

// The broker's keys are rotated while tokens of the old ones are in use.
func TestFault_T21_KeyRotation(t *testing.T) {
	virtually(t, sessions, func(t *testing.T, r *rig) {
		p := r.producer(t, nil)
		stop := r.traffic(t, p, 2, 50*time.Millisecond)
		for i := range 6 {
			time.Sleep(3 * time.Second)
			if err := r.Issuer().Rotate(i%2 == 1); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		stop()
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[failed]+n[unknown] > 0 {
			t.Errorf("%v", n)
		}
	})
}

// A consumer says once that it is not let in, past 5 seconds and not before, and
// resumes by itself.
func TestFault_T24_ConsumerLosesAuth(t *testing.T) { consumerOutage(t, "") }

// In a group, 5 seconds do not cost the session, which lasts 10 since the last
// heartbeat.
func TestFault_T25_GroupLosesAuth(t *testing.T) { consumerOutage(t, "g") }

// membership returns the only member of a group, and the group's generation.
func (r *rig) membership(t testing.TB, group string) (member string, generation int32) {
	t.Helper()
	g := r.Kfake().GroupInfo(group)
	if g == nil || len(g.Members) != 1 {
		t.Errorf("the group is %+v, want one member", g)
		return "", 0
	}
	return g.Members[0].MemberID, g.Epoch
}

func consumerOutage(t *testing.T, group string) {
	const grace = 5 * time.Second
	type saying struct {
		err error
		at  time.Time
	}
	for _, o := range authOutages {
		for _, length := range []time.Duration{4 * time.Second, 5 * time.Second, 10 * time.Second, 50 * time.Second} {
			t.Run(fmt.Sprint(o.name, " ", length), func(t *testing.T) {
				virtually(t, sessions, func(t *testing.T, r *rig) {
					con := r.consumer(t, func(c *gracedb.ConsumerConfig) { c.GroupID = group })
					got := make(chan gracedb.Message, 10000)
					told := make(chan saying, 100)
					ctx, stop := context.WithCancel(t.Context())
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						for ctx.Err() == nil {
							m, err := con.Poll(ctx)
							switch {
							case err == nil:
								got <- m
							case ctx.Err() == nil:
								told <- saying{err, time.Now()}
							}
						}
					}()
					write := func(n int) {
						for i := range n {
							r.raw(t, topic, 0, fmt.Sprint(time.Now().UnixNano(), " ", i))
							time.Sleep(100 * time.Millisecond)
						}
					}
					write(20) // 2 s
					var member string
					var generation int32
					if group != "" {
						member, generation = r.membership(t, group)
					}
					begun := time.Now()
					o.begin(r)
					write(int(length / (100 * time.Millisecond)))
					o.end(r)
					healed := time.Now()
					before := len(got)
					for len(got) == before {
						write(1)
						if time.Since(healed) > 20*time.Second {
							t.Fatal("does not resume")
						}
					}
					t.Logf("resumed after %v", time.Since(healed))
					within(t, "resuming", time.Since(healed), time.Second)
					time.Sleep(2 * time.Second)
					if group != "" && length <= 5*time.Second {
						// Code 58 is no temporary error to the engine: a heartbeat that meets
						// it ends in joining again, as the same member, in the next generation.
						var most int32
						if o.reorders {
							most = 1
						}
						again, next := r.membership(t, group)
						if again != member || next < generation || next > generation+most {
							t.Errorf("was %s in generation %d, is %s in %d", member, generation, again, next)
						}
					}
					stop()
					<-ended
					// Within the grace nothing is said, and past it once. In between it
					// depends on when the outage is noticed.
					noticed := sessions.MaxSession
					if o.cut {
						noticed = 200 * time.Millisecond // code 58 takes 100 ms
					}
					least, most := 0, 1
					switch {
					case length < grace:
						most = 0
					case length > grace+noticed:
						least = 1
					}
					if n := len(told); n < least || n > most {
						t.Errorf("told %d times, want %d to %d", n, least, most)
					}
					close(told)
					for said := range told {
						wantKinds(t, said.err, is(gracedb.ErrAuthentication, gracedb.ErrConsumer), is(gracedb.ErrProducer))
						after := said.at.Sub(begun)
						if after < grace {
							t.Errorf("told after %v, want at least %v", after, grace)
						}
						within(t, "telling", after, grace+noticed+100*time.Millisecond)
					}
					close(got)
					var next int64
					doubled := 0
					for m := range got {
						switch {
						case m.Offset > next:
							t.Fatalf("missed %d to %d", next, m.Offset-1)
						case m.Offset < next:
							doubled++
						default:
							next++
						}
					}
					if end := int64(len(r.records(t))); next != end {
						t.Errorf("received %d of %d", next, end)
					}
					// What is done here does not come again although a longer outage may
					// have ended the group's session and its position was not stored; the
					// message in hand does.
					if doubled > 1 || doubled > 0 && (group == "" || length <= 5*time.Second) {
						t.Errorf("%d doubled", doubled)
					}
					t.Logf("%d received, %d doubled", next, doubled)
				})
			})
		}
	}
}
