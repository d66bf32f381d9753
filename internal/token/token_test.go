package token

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got, err := Parse(mintRaw(`{"alg":"ES256"}`, `{"iss":"https://i","sub":"s","aud":["a","b"],"scope":" x  y:/z ","exp":4102444800.9,"nbf":10,"iat":20}`, 64))
	if err != nil {
		t.Fatal(err)
	}
	want := Claims{
		Issuer: "https://i", Subject: "s", Audience: []string{"a", "b"}, Scope: " x  y:/z ", Scopes: []string{"x", "y:/z"},
		Expires: time.Unix(4102444800, 0), NotBefore: time.Unix(20, 0), anyAudience: false,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Claims{})); diff != "" {
		t.Error(diff)
	}
}

// What the payload of a token may hold, and what becomes of it.
func TestParseClaims(t *testing.T) {
	const far = "2100-01-01T00:00:00Z"
	for _, tt := range []struct{ name, payload, expires, err string }{
		{"number", `{"exp":4102444800}`, far, ""},
		{"float", `{"exp":4102444800.9}`, far, ""},
		{"exponent", `{"exp":4.1024448e9}`, far, ""},
		{"absent", `{}`, "", ""},
		{"zero", `{"exp":0}`, "1970-01-01T00:00:00Z", ""},
		{"last second of 9999", `{"exp":253402300799}`, "9999-12-31T23:59:59Z", ""},
		{"beyond 9999", `{"exp":253402300800}`, "", "exp claim is not a time"},
		{"null", `{"exp":null}`, "", "exp claim is not a time"},
		{"bool", `{"exp":true}`, "", "exp claim is not a time"},
		{"text", `{"exp":"4102444800"}`, "", "exp claim is not a time"},
		{"RFC 3339", `{"exp":"2100-01-01T00:00:00Z"}`, "", "exp claim is not a time"},
		{"negative", `{"exp":-1}`, "", "exp claim is not a time"},
		{"1e30", `{"exp":1e30}`, "", "exp claim is not a time"},
		{"1e400", `{"exp":1e400}`, "", "exp claim is not a time"},
		{"20 digits", `{"exp":12345678901234567890}`, "", "exp claim is not a time"},
		{"list", `{"exp":[1]}`, "", "exp claim is not a time"},
		{"milliseconds", `{"exp":4102444800000}`, "", "exp claim is in milliseconds, and must be in seconds: whoever issues the token has to mend it"},
		{"milliseconds, fraction", `{"nbf":1780000000000.5,"exp":4102444800}`, "", "nbf claim is in milliseconds, and must be in seconds: whoever issues the token has to mend it"},
		{"microseconds", `{"exp":4102444800000000}`, "", "exp claim is not a time"},
		{"other case too", `{"exp":4102444800,"Exp":1}`, far, ""},
		{"other case only", `{"EXP":4102444800}`, "", ""},
		{"duplicate", `{"exp":1,"exp":4102444800}`, far, ""},
		{"nbf text", `{"nbf":"x"}`, "", "nbf claim is not a time"},
		{"iat null", `{"iat":null}`, "", "iat claim is not a time"},
		{"array", `[]`, "", "not a token: its payload is not a JSON object"},
		{"null payload", `null`, "", "not a token: its payload is not a JSON object"},
		{"trailing data", `{"exp":4102444800}{}`, "", "not a token: its payload is not a JSON object"},
		{"invalid UTF-8", "{\"sub\":\"\xff\"}", "", "not a token: its payload is not a JSON object"},
		{"deep", strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2000), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse(mintRaw(`{"alg":"RS256"}`, tt.payload, 256))
			if got := errText(err); got != tt.err {
				t.Fatalf("error %q, want %q", got, tt.err)
			}
			var got string
			if !c.Expires.IsZero() {
				got = c.Expires.UTC().Format(time.RFC3339)
			}
			if got != tt.expires {
				t.Errorf("expires %q, want %q", got, tt.expires)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestParseHeader(t *testing.T) {
	for _, header := range hostileHeaders {
		_, err := Parse(mintRaw(header, `{"exp":4102444800}`, 256))
		// What only concerns verification is none of our business.
		accept := strings.Contains(header, `"crit"`) || strings.Contains(header, `"jku"`) ||
			strings.Contains(header, `"x5c"`) || strings.HasSuffix(header, "}{}")
		if (err == nil) != accept {
			t.Errorf("%s: error %v", header, err)
		}
	}
}

// The key is exact in its case, and of duplicates the last counts.
func TestCase45_ExpiryTwice(t *testing.T) {
	for payload, want := range map[string]int64{
		`{"exp":4102444800,"Exp":1}`:   4102444800,
		`{"EXP":4102444800}`:           0,
		`{"exp":1,"exp":4102444800}`:   4102444800,
		`{"exp":4102444800,"exp":1e9}`: 1e9,
	} {
		claims, err := Parse(mintRaw(`{"alg":"RS256"}`, payload, 256))
		if err != nil {
			t.Errorf("%s: %v", payload, err)
			continue
		}
		if got := claims.Expires; want == 0 && !got.IsZero() || want != 0 && got.Unix() != want {
			t.Errorf("%s: expires at %v, want %d", payload, got, want)
		}
	}
}

func TestCase67_Segments(t *testing.T) {
	good := mint(nil)
	s := strings.Split(good, ".")
	for name, raw := range map[string]string{
		"none": "", "one": s[0], "two": s[0] + "." + s[1], "four": good + "." + s[2], "five": good + "." + s[2] + "." + s[2],
		"empty header": "." + s[1] + "." + s[2], "empty payload": s[0] + ".." + s[2], "empty signature": s[0] + "." + s[1] + ".",
		"alg none": mintRaw(`{"alg":"none"}`, `{"exp":4102444800}`, 64), "alg none, unsigned": mintRaw(`{"alg":"none"}`, `{"exp":4102444800}`, 0),
		"no alg": mintRaw(`{}`, `{"exp":4102444800}`, 256), "two dots": "..",
	} {
		wantParseError(t, name, raw)
	}
}

func wantParseError(t *testing.T, name, raw string) {
	t.Helper()
	_, err := Parse(raw)
	if _, ok := errors.AsType[*ParseError](err); !ok {
		t.Errorf("%s: error %v of type %T, want a *ParseError", name, err, err)
	}
}

func TestCase68_Alphabet(t *testing.T) {
	good := mint(nil)
	std := mintRaw(`{"alg":"RS256"}`, `{"exp":4102444800,"sub":"????>>>>"}`, 256)
	middle := len(good) / 2
	for name, raw := range map[string]string{
		"padding": good + "==", "standard alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(std),
		"inner newline": good[:middle] + "\n" + good[middle:], "inner CRLF": good[:middle] + "\r\n" + good[middle:],
		"\\x01": good + "\x01", "NUL": good + "\x00", "byte order mark": "\ufeff" + good, "é": good[:middle] + "é" + good[middle:],
		"leading space": " " + good, "no-break space": good + "\u00a0", "tab": good + "\t",
	} {
		wantParseError(t, name, raw)
	}
	if !strings.ContainsAny(std, "-_") {
		t.Fatal("the standard-alphabet case tests nothing")
	}
}

func TestCase69_Malformed(t *testing.T) {
	for name, raw := range map[string]string{
		"header not JSON":  mintRaw(`x`, `{}`, 256),
		"payload array":    mintRaw(`{"alg":"RS256"}`, `[]`, 256),
		"trailing data":    mintRaw(`{"alg":"RS256"}`, `{} {}`, 256),
		"20k nesting":      mintRaw(`{"alg":"RS256"}`, strings.Repeat(`[`, 20000), 256),
		"11k nesting":      mintRaw(`{"alg":"RS256"}`, `{"a":`+strings.Repeat(`[`, 11000)+strings.Repeat(`]`, 1)+`}`, 256),
		"invalid UTF-8":    mintRaw(`{"alg":"RS256"}`, "{\"a\":\"\xff\"}", 256),
		"JSON, not a JWT":  `{"exp":4102444800}`,
		"b64 turned off":   mintRaw(`{"alg":"RS256","b64":false}`, `{}`, 256),
		"payload not JSON": mintRaw(`{"alg":"RS256"}`, `x`, 256),
	} {
		wantParseError(t, name, raw)
	}
}

// Every prefix of a token is refused, whatever signs it. Of longer RSA keys the
// three lengths of shorter ones pass: that is what reading twice is for.
func TestCase70_Truncated(t *testing.T) {
	for _, tt := range []struct {
		alg    string
		length int
	}{{"RS256", 256}, {"ES256", 64}, {"ES384", 96}, {"ES512", 132}, {"EdDSA", 64}, {"PS256", 256}, {"HS256", 32}} {
		raw := mintAlg(tt.alg, tt.length, nil)
		if _, err := Parse(raw); err != nil {
			t.Fatalf("%s: %v", tt.alg, err)
		}
		for i := range len(raw) {
			if _, err := Parse(raw[:i]); err == nil {
				t.Errorf("%s: accepted when cut after %d of %d bytes", tt.alg, i, len(raw))
			}
		}
		if _, err := Parse(raw + "A"); err == nil {
			t.Errorf("%s: accepted with a byte too many", tt.alg)
		}
	}
}

func TestCase71_TokenCap(t *testing.T) {
	build := func(n int) string {
		pad := base64.RawURLEncoding.DecodedLen(n) - 900
		for {
			raw := mint(claims{"pad": strings.Repeat("x", pad)})
			if len(raw) >= n {
				return raw
			}
			pad++
		}
	}
	if raw := build(MaxLen - 3); len(raw) > MaxLen {
		t.Fatalf("built %d bytes", len(raw))
	} else if _, err := Parse(raw); err != nil {
		t.Errorf("%d bytes: %v", len(raw), err)
	}
	raw := build(MaxLen + 1)
	if _, err := Parse(raw); err == nil || !strings.Contains(err.Error(), "16 KiB") {
		t.Errorf("%d bytes: error %v", len(raw), err)
	}
}

func TestCase72_HelpfulReasons(t *testing.T) {
	good := mint(nil)
	for raw, want := range map[string]string{
		good + "\n" + good:         "more than one line",
		"Bearer " + good:           `remove "Bearer "`,
		"bearer " + good:           `remove "Bearer "`,
		`"` + good + `"`:           "quotes",
		`'` + good + `'`:           "quotes",
		"export X=" + good:         "shell assignment",
		"BEARER_TOKEN=" + good:     "shell assignment",
		"\ufeff" + good:            "byte order mark",
		`{"token":"` + good + `"}`: "JSON",
		"garbage":                  "three segments",
		"s.short":                  "three segments",

		"hvs." + strings.Repeat("A-_", 30):         "a Vault token",
		"hvb." + strings.Repeat("Ab1", 50) + ".ns": "a Vault token", // of a namespace
		"s." + strings.Repeat("Ab1", 8):            "a Vault token",
		good[:len(good)-20]:                        "cut short",
	} {
		_, err := Parse(raw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.12q…: error %v, want %q in it", raw, err, want)
		}
		if err != nil && leaked(err.Error(), good) != "" {
			t.Errorf("%.12q…: the error shows the token: %v", raw, err)
		}
	}
}
