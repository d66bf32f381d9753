package token

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What Kafka refuses for the token's own sake is named, and nothing else as certain.
func TestDescribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for _, tt := range []struct {
			name   string
			claims claims
			causes string // joined
			maybe  string // in it
		}{
			{"good", claims{"aud": "https://kafka.test"}, "", "another form of its name as audience (https://kafka.test or kafka.test)"},
			{"ANY", claims{"aud": "ANY"}, "", "may not list ANY in sasl.oauthbearer.expected.audience, and want https://kafka.test"},
			{"WLCG's any", claims{"aud": "https://wlcg.cern.ch/jwt/v1/any"}, "", "may not list ANY"},
			{"another audience", claims{"aud": "https://other"}, "", "may want another audience, such as https://kafka.test"},
			{"no audience", claims{"aud": drop}, "", "it has no aud"},
			{"any of several", claims{"aud": []string{"https://other", "kafka.test"}}, "", "another form"},
			{"no iat", claims{"iat": drop}, "it has no iat", ""},
			{"iat of text", claims{"iat": "now"}, "its iat is not a number of seconds", ""},
			{"no exp", claims{"exp": drop}, "it has no exp", ""},
			{"exp of text", claims{"exp": "4102444800"}, "its exp is not a number of seconds", ""},
			{"exp null", claims{"exp": nil}, "its exp is not a number of seconds", ""},
			{"exp with a fraction", claims{"exp": float64(in(time.Hour)) + 0.5}, "", ""},
			{"expired", claims{"iat": in(-time.Hour), "exp": in(-10 * time.Second)}, "it has expired (on its way, if this machine's clock is right)", ""},
			{"iat behind exp", claims{"iat": in(2 * time.Hour), "exp": in(time.Hour)}, "its iat is later than its exp", ""},
			{"iat ahead", claims{"iat": in(10 * time.Minute), "exp": in(time.Hour)}, "", ""},
			{"nbf ahead", claims{"nbf": in(time.Hour), "exp": in(2 * time.Hour)}, "it is not valid yet (nbf is 1h ahead of this machine's clock)", ""},
			{"no sub", claims{"sub": drop}, "it has no sub, which Kafka needs unless it is told of another claim", ""},
			{"blank sub", claims{"sub": " "}, "it has no sub, which Kafka needs unless it is told of another claim", ""},
			{"no scope", claims{"scope": drop}, "", ""},
			{"empty scope", claims{"scope": ""}, "its scope is empty", ""},
			{"scope listed twice", claims{"scope": []string{"a", "b", "a"}}, "its scope lists one twice", ""},
			{"scopes with two spaces", claims{"scope": "a  b"}, "", ""},
			{"two faults", claims{"iat": drop, "scope": ""}, "it has no iat; its scope is empty", ""},
		} {
			over := claims{"iat": now.Unix()}
			maps.Copy(over, tt.claims)
			d := Describe(mint(over), "kafka.test", now)
			if got := strings.Join(d.Causes, "; "); got != tt.causes {
				t.Errorf("%s: causes %q, want %q", tt.name, got, tt.causes)
			}
			if got := strings.Join(d.Maybe, "; "); !strings.Contains(got, tt.maybe) || !strings.Contains(got, "issuer or its key") {
				t.Errorf("%s: maybe %q, want %q", tt.name, got, tt.maybe)
			}
		}
	})
}

func TestDescribeSays(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	d := Describe(mint(claims{"sub": "alice", "aud": []string{"ANY", "b"}, "iss": "https://i.test", "iat": at.Add(-time.Hour).Unix(), "exp": at.Add(2 * time.Hour).Unix()}), "h", at)
	if want := "sub alice, aud ANY b, iss https://i.test, scope gracedb.read, kid "; !strings.HasPrefix(d.Says, want) ||
		!strings.HasSuffix(d.Says, ", iat 2026-11-30T11:00:00Z (1h ago), exp 2026-11-30T14:00:00Z (in 2h)") {
		t.Errorf("%q, want %q…", d.Says, want)
	}
	long := strings.Repeat("é", 5000)
	if d := Describe(mint(claims{"sub": long, "iss": long, "aud": []string{long, long}}), "h", at); len(d.Says) > 600 {
		t.Errorf("%d bytes", len(d.Says))
	}
	for _, raw := range []string{"", "opaque", "a.b", "a.b.c", "e30.bnVsbA.x", "bnVsbA.e30.x", strings.Repeat(".", 100_000)} {
		if d := Describe(raw, "h", at); len(d.Causes) != 1 || d.Says == "" {
			t.Errorf("%.20q: %+v", raw, d)
		}
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add(mint(nil))
	f.Add("e30.e30.x")
	f.Fuzz(func(t *testing.T, raw string) {
		if d := Describe(raw, "h", time.Unix(1e9, 0)); len(d.Says) > 1000 {
			t.Errorf("%d bytes", len(d.Says))
		}
	})
}
