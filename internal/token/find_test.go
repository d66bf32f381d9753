package token_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// tokenOf makes a token that ends at exp (a time.Time, or nil for none). More
// claims follow as name, value. Its signature is noise: nothing here verifies one.
func tokenOf(exp any, more ...any) string {
	claims := map[string]any{
		"iss": "https://issuer.test", "sub": "albert.einstein@ligo.org", "aud": "ANY", "scope": "gracedb.read",
		"ver": "scitoken:2.0", "jti": strconv.FormatUint(rand.Uint64(), 36),
	}
	if at, ok := exp.(time.Time); ok {
		claims["exp"] = at.Unix()
	}
	for i := 0; i < len(more); i += 2 {
		claims[more[i].(string)] = more[i+1]
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	noise := make([]byte, 256)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256","kid":"k1"}`)) + "." + enc(payload) + "." + enc(noise)
}

// tokenIn makes a token with life left.
func tokenIn(life time.Duration, more ...any) string { return tokenOf(time.Now().Add(life), more...) }

// noTokens makes an environment without a token, and returns a source that looks
// there, and the directory that stands for /tmp.
func noTokens(t testing.TB, q gracedb.TokenQuery) (src gracedb.TokenSource, tmp string) {
	for _, name := range []string{
		"IGWN_AUTH_UTILS_FIND_SCITOKEN", "SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR",
	} {
		t.Setenv(name, "") // restored afterwards
		os.Unsetenv(name)
	}
	tmp = t.TempDir()
	return gracedb.TokenSource(token.FindSource(&token.Finder{Query: token.Query(q), Tmp: tmp})), tmp
}

func writeToken(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}

// tokenCasesElsewhere lists the numbered cases of the project's token reference
// that are not tested by their letter in this directory.
var tokenCasesElsewhere = map[int]string{
	8:  "Strict mode: no such option; every place is always looked at (FindToken)",
	10: "An explicit path that cannot be read is an error: there is no such parameter; what SCITOKEN_FILE and BEARER_TOKEN_FILE name is skipped with its reason, like the rest",
	15: "StrictWLCG: no such option, as for 8",
	16: "Strict mode: no such option, as for 8",
	24: "The variable is honoured in its forbidding sense; that a failure is an error needs no variable here",
	31: "An empty Audience is no error: a TokenQuery prefers, it does not require, and preferring nothing is the zero value (TestCase31_NoAudienceWanted)",
	32: "TokenQuery takes audiences, not URLs: the audiences of a broker or a service are made where those are known",
	39: "There is no issuer in a TokenQuery: every issuer passes",
	44: "An explicit token without exp: StaticToken; re-read each minute: ReloadToken (TestCase44_NoExpiryEachMinute)",
	49: "ReloadToken knows no files, so none of it sees a file change before the buffer begins; FindToken alone sees every change (TestCase49_RotatedInTime)",
	50: "At most every 5 seconds, as ReloadToken says, instead of 10",
	54: "Case 54 is FindToken's: it keeps nothing, so it looks again whenever it found nothing",
	64: "No identities of files are compared, since every call reads: a change cannot be missed (TestCase64_SameSizeAndTime)",
	77: "RequirePrivate: no such option; a file open to others is used, with a warning",
	79: "http:// service URLs: the REST client",
	80: "Redirects: the REST client",
	81: "SASL over plaintext: the Kafka client's configuration",
	82: "A request's own Authorization header: the REST client sends no requests of others",
	83: "Tokens with \\x01 or CRLF: refused by FindToken (case 68); what a user's own source returns is checked where it is sent",
}

// Every numbered case has its test, or its reason above.
func TestEveryTokenCaseIsCovered(t *testing.T) {
	named := regexp.MustCompile(`func TestCase(\d+)(?:to(\d+))?_`)
	covered := make(map[int]bool)
	for number := range tokenCasesElsewhere {
		covered[number] = true
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(source), -1) {
			first, _ := strconv.Atoi(m[1])
			last, err := strconv.Atoi(m[2])
			if err != nil {
				last = first
			}
			for n := first; n <= last; n++ {
				covered[n] = true
			}
		}
	}
	for n := 1; n <= 84; n++ {
		if !covered[n] {
			t.Errorf("case %d has no test", n)
		}
	}
}

func TestFindTokenError(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{})
	t.Setenv("SCITOKEN", tokenIn(-3*time.Hour))
	file := filepath.Join(t.TempDir(), "file")
	writeToken(t, file, tokenIn(-26*time.Hour-10*time.Minute))
	t.Setenv("BEARER_TOKEN_FILE", file)
	_, err := find(t.Context())
	for _, kind := range []error{errs.Token, errs.Authentication, fs.ErrNotExist} {
		if !errors.Is(err, kind) {
			t.Errorf("errors.Is(err, %v) is false", kind)
		}
	}
	if errors.Is(err, errs.Kafka) {
		t.Error("not every look-up is for Kafka")
	}
	expired := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format("2006-01-02T15:04") }
	for _, want := range []string{
		"gracedb: no usable token (get one with: htgettoken -a vault.ligo.org -i igwn); looked at $SCITOKEN: its token expired 3h ago (" + expired(3*time.Hour),
		"$SCITOKEN_FILE, $_CONDOR_CREDS, $BEARER_TOKEN: not set; ",
		"$BEARER_TOKEN_FILE " + file + ": its token expired 26h10m ago (" + expired(26*time.Hour+10*time.Minute),
		"$XDG_RUNTIME_DIR: not set; " + tmp + "/bt_u" + strconv.Itoa(os.Geteuid()) + ": no such file or directory",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

func TestFindTokenEndedContext(t *testing.T) {
	find, _ := noTokens(t, gracedb.TokenQuery{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := find(ctx); !errors.Is(err, errs.Token) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A logger is a slog.Logger and what was written to it.
func newTestLogger() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), &b
}

func TestFindTokenWarnsOnce(t *testing.T) {
	find, _ := noTokens(t, gracedb.TokenQuery{Audience: []string{"https://kafka.test"}, Scopes: []string{"kafka.consume"}})
	file := filepath.Join(t.TempDir(), "file")
	log, out := newTestLogger()
	ctx := token.WithHints(t.Context(), "", log)
	// Four tokens in turn, with one thing wrong: it is said once, not four times.
	for range 4 {
		writeToken(t, file, tokenIn(time.Hour, "aud", "https://other"))
		t.Setenv("BEARER_TOKEN_FILE", file)
		if _, err := find(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "level=WARN") || !strings.Contains(out.String(), "may be refused") {
		t.Errorf("logged %d lines:\n%s", n, out)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	writeToken(t, file, tokenIn(30*time.Second, "aud", "https://other"))
	for range 3 {
		if _, err := find(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"may be refused", "expires within a minute", "open to other users"} {
		if n := strings.Count(out.String(), text); n != 1 && os.PathSeparator == '/' {
			t.Errorf("%q logged %d times:\n%s", text, n, out)
		}
	}
	if _, err := find(t.Context()); err != nil { // without a logger, too
		t.Error(err)
	}
}

// FindToken keeps its own copy of the query.
func TestFindTokenCopiesQuery(t *testing.T) {
	_, _ = noTokens(t, gracedb.TokenQuery{})
	q := gracedb.TokenQuery{Audience: []string{"https://a"}}
	find := gracedb.FindToken(q)
	q.Audience[0] = "https://b"
	a := tokenIn(time.Hour, "aud", "https://a")
	t.Setenv("SCITOKEN", tokenIn(time.Hour, "aud", "https://b"))
	t.Setenv("BEARER_TOKEN", a)
	if got, err := find(t.Context()); err != nil || got != a {
		t.Errorf("the query was changed from outside: %v", err)
	}
}

func TestStaticToken(t *testing.T) {
	for _, text := range []string{"", "opaque", tokenIn(-time.Hour)} {
		if got, err := gracedb.StaticToken(text)(t.Context()); got != text || err != nil {
			t.Errorf("got another text, or %v", err)
		}
	}
}

func TestCase64_SameSizeAndTime(t *testing.T) {
	find, _ := noTokens(t, gracedb.TokenQuery{})
	file := filepath.Join(t.TempDir(), "file")
	t.Setenv("BEARER_TOKEN_FILE", file)
	at, exp := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for i := range 3 {
		raw := tokenOf(exp, "jti", strconv.Itoa(i))
		writeToken(t, file, raw)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
		if got, err := find(t.Context()); err != nil || got != raw {
			t.Fatalf("round %d: not the token in the file: %v", i, err)
		}
	}
}

// Case 78, fault row S4, as far as tokens go without Kafka and HTTP: a canary goes
// through every error and every log line, in all the ways that Go prints values.
func TestCase78_Canary(t *testing.T) { synctest.Test(t, testCanary) } // its pauses are virtual

func testCanary(t *testing.T) {
	find, tmp := noTokens(t, gracedb.TokenQuery{Audience: []string{"https://kafka.test"}})
	file := filepath.Join(t.TempDir(), "file")
	log, logged := newTestLogger()
	canary := tokenIn(time.Hour)
	var said []string
	say := func(src gracedb.TokenSource, refused string) {
		_, err := src(token.WithHints(t.Context(), refused, log))
		said = append(said, forms(err)...)
		for e := err; e != nil; e = errors.Unwrap(e) {
			said = append(said, forms(e)...)
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				said = append(said, forms(e)...)
			}
		}
		log.Error("failed", "error", err)
	}
	// Every damage, in every place.
	half := canary[:len(canary)-7]
	for _, text := range []string{
		canary, half, "Bearer " + canary, canary + "\n" + canary, `{"access_token":"` + half + `"}`, `{"x":"` + canary + `"}`, canary + "\x01",
		"export T=" + canary, "\ufeff" + canary, strings.Repeat(canary, 100), tokenIn(time.Hour) + canary,
	} {
		for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"} {
			t.Setenv(name, strings.ReplaceAll(text, "\x00", ""))
			say(find, "")
			os.Unsetenv(name)
		}
		writeToken(t, file, text)
		t.Setenv("BEARER_TOKEN_FILE", file)
		say(find, "")
		say(gracedb.ReloadToken(find, time.Hour), canary)
		os.Unsetenv("BEARER_TOKEN_FILE")
	}
	// Sources of the user's own that misbehave, with and without a token to fall back on.
	for _, src := range []gracedb.TokenSource{
		func(context.Context) (string, error) { return "", fmt.Errorf("bad token %s", canary) },
		func(context.Context) (string, error) { return "", fmt.Errorf("Authorization: Bearer %s", canary) },
		func(context.Context) (string, error) { panic("token " + canary) },
		func(context.Context) (string, error) { return half, nil },
	} {
		first := true
		r := gracedb.ReloadToken(func(ctx context.Context) (string, error) {
			if first {
				first = false
				return canary, nil
			}
			return src(ctx)
		}, 2*time.Hour)
		say(r, "")
		_, err := r(token.WithHints(t.Context(), canary, log))
		said = append(said, fmt.Sprint(err)) // what the user's own error prints is the user's
		said = append(said, fmt.Sprintf("%v %+v %#v", r, r, r), fmt.Sprintf("%+v %#v", gracedb.Cluster{Token: r}, gracedb.Cluster{Token: gracedb.StaticToken(canary)}))
	}
	said = append(said, logged.String(), tmp)
	pieces := map[string]bool{}
	signature := canary[strings.LastIndexByte(canary, '.')+1:]
	for i := 0; i+12 <= len(signature); i++ {
		pieces[signature[i:i+12]] = true
	}
	for _, s := range said {
		for i := 0; i+12 <= len(s); i++ {
			if pieces[s[i:i+12]] {
				t.Fatalf("a piece of the token shows in: %.300s", s)
			}
		}
	}
	if len(said) < 100 || logged.Len() == 0 {
		t.Errorf("only %d texts and %d bytes of log were looked at", len(said), logged.Len())
	}
}

// forms prints v in the ways that Go prints values.
func forms(v any) []string {
	asJSON, _ := json.Marshal(v)
	var text, js bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Error("x", "v", v)
	slog.New(slog.NewJSONHandler(&js, nil)).Error("x", "v", v)
	return []string{fmt.Sprintf("%v %+v %#v %q %s %x", v, v, v, v, v, ""), string(asJSON), text.String(), js.String()}
}
