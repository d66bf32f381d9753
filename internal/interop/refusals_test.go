//go:build unix

package interop

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// Kafka takes and refuses what the embedded broker does, and what the error names as
// the cause is one.
func TestRefusalsAreExplained(t *testing.T) {
	ctx, s := need(t)
	good := realkafka.Audiences[0]
	extra := func(name string, v any) testauth.Claims {
		return testauth.Claims{Audience: []string{good}, Extra: map[string]any{name: v}}
	}
	soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name   string
		claims testauth.Claims
		says   string // "" if the token is accepted
	}{
		{"another audience", testauth.Claims{Audience: []string{"https://elsewhere.test"}}, "the broker may want another audience"},
		{"a listed audience without its scheme", testauth.Claims{Audience: []string{strings.TrimPrefix(good, "https://")}}, "the broker may want another audience"},
		{"any in WLCG's words", testauth.Claims{Audience: []string{"https://wlcg.cern.ch/jwt/v1/any"}}, "may not list ANY"},
		{"one of several audiences", testauth.Claims{Audience: []string{"https://elsewhere.test", good}}, ""},
		{"no audience", extra("aud", nil), "it has no aud"},
		{"issuer with a slash more", extra("iss", s.kafka.Issuer.URL()+"/"), "may not know its issuer"},
		{"no iat", extra("iat", nil), "it has no iat;"},
		{"iat ahead", testauth.Claims{Audience: []string{good}, IssuedAt: time.Now().Add(10 * time.Minute), NotBefore: past}, ""},
		{"iat behind exp", testauth.Claims{Audience: []string{good}, IssuedAt: soon.Add(time.Hour), NotBefore: past, Expires: soon}, "its iat is later than its exp;"},
		{"no exp", extra("exp", nil), "it has no exp;"},
		{"exp of text", extra("exp", "4102444800"), "its exp is not a number of seconds;"},
		{"exp with a fraction", extra("exp", float64(soon.Unix())+0.5), ""},
		{"nbf ahead", testauth.Claims{Audience: []string{good}, NotBefore: soon, Expires: soon.Add(time.Hour)}, "it is not valid yet (nbf is"},
		{"no sub", extra("sub", nil), "it has no sub"},
		{"blank sub", extra("sub", " "), "it has no sub"},
		{"no scope", extra("scope", nil), ""},
		{"empty scope", extra("scope", ""), "its scope is empty;"},
		{"scope twice", extra("scope", []string{"a", "a"}), "its scope lists one twice;"},
		{"scopes with two spaces", extra("scope", "a  b"), ""},
		{"300 kB", extra("note", strings.Repeat("x", 225_000)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			tok := s.token(t, tt.claims)
			cluster := s.cluster(t, testauth.Claims{})
			cluster.Token = gracedb.StaticToken(tok)
			p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: "test"})
			if err == nil {
				must(t, p.Close())
			}
			if _, embedded := s.kafka.Issuer.Verify(tok, realkafka.Audiences...); (embedded == nil) != (tt.says == "") {
				t.Errorf("the embedded broker says %v", embedded)
			}
			if tt.says == "" {
				must(t, err)
				return
			}
			checkKinds(t, "NewProducer", err, "ErrKafka ErrProducer ErrAuthentication", "invalid_token", tt.says, "the reason is in the broker's log")
		})
	}
}

// In the last seconds of a token that nobody renews, calls say so.
func TestTokenEndsWithoutAnother(t *testing.T) {
	ctx, s := need(t)
	expires := time.Now().Add(6 * time.Second).Truncate(time.Second)
	p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: s.cluster(t, testauth.Claims{Expires: expires}), Topic: "test", AuthGrace: -1})
	must(t, err)
	defer func() { _ = p.Close() }()
	ends := 0
	for time.Until(expires) > -500*time.Millisecond {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := p.Check(ctx)
		cancel()
		switch {
		case err == nil:
		case !errors.Is(err, gracedb.ErrToken):
			t.Errorf("%v before the end: %v", time.Until(expires), err)
		case strings.Contains(err.Error(), "and there is no newer one"):
			ends++
		}
		time.Sleep(30 * time.Millisecond)
	}
	if ends == 0 {
		t.Error("no call says that the token ends")
	}
}
