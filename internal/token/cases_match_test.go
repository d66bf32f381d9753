package token

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// claimsOf parses a token minted with over.
func claimsOf(t *testing.T, over claims) Claims {
	t.Helper()
	c, err := Parse(mint(over))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A class is what the score says of audience and scope.
const (
	both     = 0
	anyone   = 1
	audience = 4
	neither  = 5
)

func wantClass(t *testing.T, name string, q Query, over claims, want int) {
	t.Helper()
	if got := q.score(claimsOf(t, over), time.Now()); got != want {
		t.Errorf("%s: score %d, want %d", name, got, want)
	}
}

func aud(v any) claims   { return claims{"aud": v} }
func scope(v any) claims { return claims{"scope": v} }

func TestCase26to30_Audience(t *testing.T) {
	const url = "https://gracedb.ligo.org"
	for _, tt := range []struct {
		number int
		over   claims
		want   int
	}{
		{26, aud("ANY"), anyone},
		{26, aud([]string{"x", "ANY"}), anyone},
		{26, aud(url), both},
		{26, aud([]string{"x", url}), both},
		{26, aud([]string{"ANY", url}), both},
		{27, aud(url + "/"), neither},
		{27, aud(url + ":443"), neither},
		{27, aud("https://GraceDB.ligo.org"), neither},
		{27, aud("http://gracedb.ligo.org"), neither},
		{27, aud("any"), neither},
		{27, aud(url + "/api/"), neither},
		{28, aud("gracedb.ligo.org"), both},
		{28, aud("evilgracedb.ligo.org"), neither},
		{28, aud("https://evilgracedb.ligo.org"), neither},
		{28, aud("gracedb.ligo.org.evil"), neither},
		{28, aud("ligo.org"), neither},
		{29, aud("https://wlcg.cern.ch/jwt/v1/any"), anyone},
		{30, aud(drop), neither},
		{30, claims{"aud": drop, "ver": drop}, anyone},
		{30, aud(nil), neither},
		{30, aud(5), neither},
		{30, aud([]string{}), neither},
		{30, aud([]any{"a", 5}), neither},
		{30, aud([]any{url, 5}), neither},
		{30, aud([]any{url, nil}), neither},
		{30, aud(map[string]int{"a": 1}), neither},
	} {
		wantClass(t, fmt.Sprintf("case %d, aud %v", tt.number, tt.over["aud"]), gracedb, tt.over, tt.want)
	}
	host := Query{Audience: []string{"gracedb.ligo.org"}, Scopes: gracedb.Scopes}
	wantClass(t, "case 28, URL for a bare host", host, aud(url), both)
	wantClass(t, "case 28, other URL for a bare host", host, aud(url+".evil"), neither)
}

func TestCase31_NoAudienceWanted(t *testing.T) {
	wantClass(t, "nothing wanted", Query{}, aud("https://other"), both)
	wantClass(t, "scope wanted", Query{Scopes: []string{"gracedb.read"}}, aud("https://other"), both)
	wantClass(t, "wanted ANY, got another", Query{Audience: []string{"ANY"}}, aud("https://other"), neither)
}

func TestCase33to38_Scope(t *testing.T) {
	for _, tt := range []struct {
		number int
		want   string
		over   claims
		match  bool
	}{
		{33, "gracedb.read", scope("gracedb.read"), true},
		{33, "gracedb.read", scope("openid gracedb.read read:/x"), true},
		{33, "gracedb.read", scope("gracedb.read:/"), true},
		{33, "gracedb.read", scope("  openid   gracedb.read  "), true},
		{33, "gracedb.read:/a", scope("gracedb.read"), true},
		{34, "gracedb.read", scope("gracedb.readwrite"), false},
		{34, "gracedb.read", scope("GRACEDB.READ"), false},
		{34, "gracedb.read", scope("gracedb.read:/events"), false},
		{34, "gracedb.read", scope("gracedb.read:"), false},
		{34, "gracedb.read", scope("openid\tgracedb.read"), false},
		{35, "gracedb.read", scope("read gracedb.read"), true},
		{35, "gracedb.read", scope("x:rel :/ read:/a/../b gracedb.read"), true},
		{36, "read:/frames", scope("read:/frames"), true},
		{36, "read:/frames/O4", scope("read:/frames"), true},
		{36, "read:/frames/O4", scope("read:/frames/"), true},
		{36, "read:/frames/", scope("read:/frames"), true},
		{36, "read:/framesX", scope("read:/frames"), false},
		{36, "read:/frames/../x", scope("read:/frames"), false},
		{36, "read:/frames/%2e%2e/x", scope("read:/frames"), false},
		{36, "read:/x", scope("read:/frames/../x"), false},
		{37, "gracedb.read kafka.consume", scope("gracedb.read"), false},
		{37, "gracedb.read kafka.consume", scope("kafka.consume gracedb.read"), true},
		{38, "gracedb.read", scope([]string{"openid", "gracedb.read"}), true},
		{38, "gracedb.read", claims{"scope": drop, "scp": []string{"gracedb.read"}}, true},
		{38, "gracedb.read", scope(nil), false},
		{38, "gracedb.read", scope(5), false},
		{38, "gracedb.read", scope([]any{"gracedb.read", 5}), false},
		{38, "gracedb.read", scope(drop), false},
		{38, "gracedb.read", scope(""), false},
	} {
		want := audience
		if tt.match {
			want = both
		}
		tt.over["aud"] = "https://gracedb.ligo.org"
		q := Query{Audience: []string{"https://gracedb.ligo.org"}, Scopes: strings.Fields(tt.want)}
		wantClass(t, fmt.Sprintf("case %d, want %q, have %v %v", tt.number, tt.want, tt.over["scope"], tt.over["scp"]), q, tt.over, want)
	}
}

func TestCase39_AnyIssuer(t *testing.T) {
	for _, iss := range []any{"https://test.cilogon.org/igwn", "https://osdf.igwn.org/cit", drop, 5} {
		wantClass(t, fmt.Sprint(iss), gracedb, claims{"iss": iss}, anyone)
	}
}

func TestCase40_AnyVersion(t *testing.T) {
	for _, over := range []claims{
		{"ver": "scitokens:2.0"}, {"ver": "scitoken:1.0"}, {"ver": drop}, {"ver": 1}, {"wlcg.ver": "1.0", "ver": drop}, {"uid": "x", "foo": []int{1}},
	} {
		wantClass(t, fmt.Sprint(over), gracedb, over, anyone)
	}
}

func TestCase41_LifeLeft(t *testing.T) {
	w := newWorld(t)
	w.put("BEARER_TOKEN", mint(claims{"sub": "short", "aud": "https://gracedb.ligo.org", "exp": in(30 * time.Second)}))
	found := w.wantSub(gracedb, "short")
	if len(found.Warnings) != 1 || !strings.Contains(found.Warnings[0], "expires within a minute") {
		t.Errorf("warnings %q", found.Warnings)
	}
	w.put("tmp", mint(claims{"sub": "stranger", "aud": "https://other"}))
	w.wantSub(gracedb, "short") // a token sure to be refused is no better
	w.put("BEARER_TOKEN_FILE", mint(claims{"sub": "long", "exp": in(2 * time.Hour)}))
	if found := w.wantSub(gracedb, "long"); len(found.Warnings) != 0 {
		t.Errorf("warnings %q", found.Warnings)
	}
}

// What FindToken promises: both, then ANY, then audience only, then any.
func TestRanking(t *testing.T) {
	q := Query{Audience: []string{"https://kafka.test"}, Scopes: []string{"gracedb.read"}}
	worstFirst := []claims{
		{"exp": in(time.Hour), "aud": "https://other"},
		{"exp": in(time.Hour), "aud": "https://kafka.test", "scope": "x"},
		{"exp": in(time.Hour), "aud": "ANY"},
		{"exp": in(time.Hour), "aud": "https://kafka.test"},
	}
	w := newWorld(t)
	for i, over := range worstFirst {
		over["sub"] = fmt.Sprint(i)
		// Each better one comes later in the search.
		w.put(inOrder[i], mint(over))
		found := w.wantSub(q, fmt.Sprint(i))
		if warned := len(found.Warnings) > 0; warned != (i < 2) {
			t.Errorf("%d: warnings %q", i, found.Warnings)
		}
	}
}

func TestCase42_ExpiryExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l look
		raw := mint(claims{"exp": in(time.Second)})
		if l.judge(raw, gracedb); l.err != nil {
			t.Errorf("a second left: %v", l.err)
		}
		time.Sleep(time.Second)
		var late look
		if late.judge(raw, gracedb); late.err == nil {
			t.Error("accepted at the second of its expiry")
		}
	})
}

func TestCase43_BadExpiry(t *testing.T) {
	for _, exp := range []any{nil, true, "4102444800", "tomorrow", -5, 1e30, 1e18} {
		w := newWorld(t)
		w.put("BEARER_TOKEN", mint(claims{"exp": exp}))
		w.wantError(gracedb, "$BEARER_TOKEN: exp claim is not a time")
	}
}

func TestCase44_NoExpiry(t *testing.T) {
	w := newWorld(t)
	w.put("BEARER_TOKEN_FILE", mint(claims{"exp": drop}))
	w.wantError(gracedb, "its token has no exp claim")
}

// Case 45 is in TestParseClaims.

func TestCase46_NotYetValid(t *testing.T) {
	for _, name := range []string{"nbf", "iat"} {
		w := newWorld(t)
		w.put("BEARER_TOKEN", mint(claims{"sub": "soon", name: in(30 * time.Second)}))
		w.put("tmp", mint(claims{"sub": "now"}))
		if found := w.wantSub(gracedb, "soon"); len(found.Warnings) != 0 {
			t.Errorf("warnings %q", found.Warnings)
		}
		w.put("BEARER_TOKEN", mint(claims{"sub": "later", name: in(10 * time.Minute)}))
		w.wantSub(gracedb, "now")
		os.Remove(filepath.Join(w.tmp, btName()))
		if found := w.wantSub(gracedb, "later"); len(found.Warnings) != 1 || !strings.Contains(found.Warnings[0], "not valid yet") {
			t.Errorf("warnings %q", found.Warnings)
		}
	}
}

func TestExpiredText(t *testing.T) {
	w := newWorld(t)
	w.put("BEARER_TOKEN", mint(claims{"exp": in(-3 * time.Hour)}))
	w.put("BEARER_TOKEN_FILE", mint(claims{"exp": in(-90 * time.Minute)}))
	err := w.wantError(gracedb, "$BEARER_TOKEN: its token expired 3h ago (", "a variable cannot be renewed", "token: its token expired 1h30m ago (")
	if _, ok := errors.AsType[*ExpiredError](err); !ok {
		t.Error("no *ExpiredError inside")
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 500 * time.Millisecond: "0s", 40 * time.Second: "40s", 61 * time.Second: "1m", time.Hour: "1h", 3*time.Hour + time.Second: "3h",
		125 * time.Minute: "2h5m", 30*time.Hour + 40*time.Minute: "30h40m", 100 * time.Hour: "4 days", 70 * time.Minute: "1h10m", 10 * time.Minute: "10m",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}
