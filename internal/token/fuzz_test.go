package token

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The fuzz targets run their seeds with the ordinary tests. For longer runs:
//
//	go test ./internal/token -run '^$' -fuzz '^FuzzParse$' -fuzztime 5m -parallel 1 -fuzzminimizetime 10x
//
// and the same for FuzzClaims, FuzzEnvironment, FuzzFile and FuzzUse.

// checkParsed holds whatever Parse says of raw against what it promises.
func checkParsed(t *testing.T, raw string) {
	c, err := Parse(raw)
	if err != nil {
		if _, ok := errors.AsType[*ParseError](err); !ok {
			t.Fatalf("error of type %T", err)
		}
		if leak := leaked(err.Error(), raw); leak != "" {
			t.Fatalf("the error shows %q of the token", leak)
		}
		return
	}
	if len(raw) > MaxLen || strings.Count(raw, ".") != 2 || strings.ContainsAny(raw, " \r\n\t\x00\x01=+/\"{") {
		t.Fatalf("accepted %q", raw)
	}
	for _, at := range []time.Time{c.Expires, c.NotBefore} {
		if y := at.UTC().Year(); !at.IsZero() && (y < 1970 || y > 9999) {
			t.Fatalf("time out of range: %v", at)
		}
	}
	if _, err := Parse(raw[:len(raw)-1]); err == nil {
		t.Fatal("accepted with the last character missing")
	}
	for _, q := range []Query{{}, gracedb, {Audience: c.Audience, Scopes: c.Scopes}} {
		if s := q.score(c, time.Now()); s < 0 || s > 15 {
			t.Fatalf("score %d", s)
		}
	}
}

// ownWords are those of the fixed texts of errors that an input may hold too.
const ownWords = "without an access_token StaticToken exp claim: pass it to if meant not a token: its header or payload cannot be read " +
	"JSON object the signature is missing or damaged segments segment character that no token has byte order mark remove the quotes around it"

// leaked returns a piece of secret, of 12 bytes or more, that s shows.
func leaked(s, secret string) string {
	const window = 12
	for i := 0; i+window <= len(secret); i++ {
		if strings.Contains(s, secret[i:i+window]) && !strings.Contains(ownWords, secret[i:i+window]) {
			return secret[i : i+window]
		}
	}
	return ""
}

// seed is the same in every process, as fuzzing needs.
var seed = mint(claims{"iat": 1700000000, "nbf": 1700000000, "exp": int64(4102444800)})

func FuzzParse(f *testing.F) {
	good := seed
	f.Add(good)
	f.Add(mintAlg("ES256", 64, claims{"iat": 1, "nbf": 1, "exp": int64(4102444800)}))
	f.Add(good[:len(good)-5])
	f.Add("Bearer " + good)
	f.Add(good + "\n" + good)
	f.Add(`{"exp":1893466800}`)
	f.Add(`{"access_token":"x"}`)
	f.Add("..")
	f.Add("a.b.c.d.e")
	f.Add("\ufeff" + good)
	f.Add(good + "\x01")
	f.Add(strings.Repeat("a", MaxLen+1))
	f.Fuzz(checkParsed)
}

func FuzzClaims(f *testing.F) {
	const rs256 = `{"alg":"RS256"}`
	for _, payload := range hostilePayloads {
		f.Add(rs256, payload, 256)
	}
	for _, header := range hostileHeaders {
		f.Add(header, `{"exp":4102444800}`, 256)
	}
	f.Add(`{"alg":"ES512"}`, `{"exp":4102444800,"scope":["a","b:/c"],"aud":["x"]}`, 132)
	f.Fuzz(func(t *testing.T, header, payload string, signature int) {
		checkParsed(t, mintRaw(header, payload, min(max(signature, 0), 2048)))
	})
}

func FuzzEnvironment(f *testing.F) {
	good := seed
	f.Add(good, "x", "creds", good, "y", "run", "yes")
	f.Add("  ", "", "", "Bearer "+good, "\x00", "", "")
	f.Add(good+"\n", good, good, good[:100], good, good, "no")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, scitoken, scitokenFile, creds, bearer, bearerFile, xdg, forbid string) {
		for i, value := range []string{forbid, scitoken, scitokenFile, creds, bearer, bearerFile, xdg} {
			if name := variables[i]; value == "" || os.Setenv(name, value) != nil { // NUL is refused
				os.Unsetenv(name)
			}
		}
		defer unset(t)
		// Whatever directory this names is opened, so keep it harmless.
		os.Setenv("_CONDOR_CREDS", filepath.Join(dir, filepath.Clean("/"+os.Getenv("_CONDOR_CREDS"))))
		finder := Finder{Query: gracedb, Tmp: dir}
		looks := finder.places(t.Context())
		for i := range looks {
			l := &looks[i]
			if !l.done && l.path == "" {
				finder.look(t.Context(), l)
			}
			if l.token != "" {
				if _, err := Parse(l.token); err != nil || strings.ContainsAny(l.token, " \n\x01") {
					t.Fatalf("took %q: %v", l.token, err)
				}
			}
		}
		text := notFound(looks, nil).Error()
		if len(text) > 8<<10 {
			t.Fatalf("an error of %d bytes", len(text))
		}
		if strings.ContainsAny(text, "\r\n\x1b") {
			t.Fatalf("an error of more than one line: %q", text)
		}
		for _, secret := range []string{scitoken, scitokenFile, creds, bearer, bearerFile, xdg} {
			for _, l := range looks {
				if l.err != nil && leaked(l.err.Error(), secret) != "" {
					t.Fatalf("%v shows a piece of %q", l.err, secret)
				}
			}
		}
		// Paths are shown, but nothing in them that could be a token.
		if run := longRun.FindString(text); run != "" {
			t.Fatalf("the error shows %q", run)
		}
	})
}

func FuzzFile(f *testing.F) {
	good := seed
	f.Add([]byte(good + "\n"))
	f.Add([]byte("\r\n\v\f" + good + "\r\n"))
	f.Add([]byte(good[:len(good)-10]))
	f.Add([]byte(good + "\n" + good))
	f.Add([]byte{0xff, 0xfe, 0})
	f.Add([]byte(`{"access_token":"` + good + `","expires_in":10}`))
	path := filepath.Join(f.TempDir(), "token")
	f.Fuzz(func(t *testing.T, data []byte) {
		writeOld(t, path, string(data), time.Hour)
		finder := Finder{Query: gracedb}
		l := newFileLook("BEARER_TOKEN_FILE", path, rules{})
		finder.look(t.Context(), &l)
		if !l.done || (l.token == "") == (l.err == nil) {
			t.Fatalf("done %v, error %v", l.done, l.err)
		}
		if l.err != nil {
			if leak := leaked(l.err.Error(), string(data)); leak != "" {
				t.Fatalf("the error shows %q", leak)
			}
			return
		}
		checkParsed(t, l.token)
	})
}

func FuzzUse(f *testing.F) {
	good := seed
	for _, s := range []string{
		`{"access_token":"` + good + `","expires_in":10}`, `{"access_token":" ` + good + `\n"}`, `{"access_token":1}`,
		`{"access_token":null}`, `{"Access_Token":"` + good + `"}`, `{}`, `{`, `{"access_token":"x"} trailing`, "{\"access_token\":\"\xff\"}",
		good, " \n{}", strings.Repeat(`{"a":`, 12000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l look
		l.judge(unwrap(s), gracedb)
		if l.err == nil {
			checkParsed(t, l.token)
		} else if leak := leaked(l.err.Error(), s); leak != "" {
			t.Fatalf("the error shows %q", leak)
		}
	})
}

var hostilePayloads = []string{
	`{}`, `[]`, `null`, `"x"`, `5`, ``, `{"exp":4102444800}{"exp":1}`, `{"exp":4102444800} x`,
	`{"exp":null}`, `{"exp":true}`, `{"exp":"4102444800"}`, `{"exp":"2100-01-01T00:00:00Z"}`, `{"exp":-1}`, `{"exp":-0.5}`,
	`{"exp":1e30}`, `{"exp":1e400}`, `{"exp":12345678901234567890}`, `{"exp":4.1024448e9}`, `{"exp":4102444800.9}`,
	`{"exp":253402300799}`, `{"exp":253402300800}`, `{"exp":[4102444800]}`, `{"exp":{}}`, `{"exp":0}`,
	`{"exp":1,"Exp":4102444800}`, `{"EXP":4102444800}`, `{"exp":1,"exp":4102444800}`,
	`{"nbf":"x"}`, `{"iat":null}`, `{"aud":null}`, `{"aud":5}`, `{"aud":["a",5]}`, `{"aud":["a",null]}`, `{"aud":{}}`,
	`{"scope":["a","b"]}`, `{"scope":5}`, `{"scope":null,"scp":["a"]}`, `{"scp":["a"]}`, `{"sub":5,"iss":[]}`,
	"{\"sub\":\"\xff\xfe\"}", "\xef\xbb\xbf{}", `{"sub":"\ud800"}`, `{"a":1,}`,
}

var hostileHeaders = []string{
	``, `{}`, `null`, `[]`, `x`, `{"alg":"none"}`, `{"alg":"None"}`, `{"alg":null}`, `{"alg":5}`, `{"alg":["RS256"]}`, `{"alg":""}`,
	`{"alg":"RS256","b64":false}`, `{"alg":"RS256","crit":["b64"]}`, `{"alg":"RS256","jwk":{"kty":"RSA"}}`,
	`{"alg":"RS256","jwk":null}`, `{"alg":"RS256","x5c":["!"]}`, `{"alg":"RS256","jku":"http://127.0.0.1/"}`, `{"alg":"RS256"`,
	`{"alg":"RS256","alg":"none"}`, `{"alg":"RS256"}{}`, `{"alg":"RS256","a":1e999}`,
}
