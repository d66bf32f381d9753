package token

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

type claims map[string]any

// mint makes a token. Its signature is noise: nothing here verifies one.
func mint(over claims) string { return mintAlg("RS256", 256, over) }

func mintAlg(alg string, signature int, over claims) string {
	now := time.Now().Unix()
	c := claims{
		"iss": "https://issuer.test", "aud": "ANY", "scope": "gracedb.read", "sub": "albert.einstein@ligo.org",
		"iat": now, "nbf": now - 5, "exp": now + 3600, "jti": "j", "ver": "scitoken:2.0",
	}
	for k, v := range over {
		if v == drop {
			delete(c, k)
			continue
		}
		c[k] = v
	}
	payload, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return mintRaw(`{"alg":"`+alg+`","kid":"k1","typ":"JWT"}`, string(payload), signature)
}

// drop, as a claim, removes it.
const drop = "DROP"

func mintRaw(header, payload string, signature int) string {
	noise := make([]byte, signature)
	rand.NewChaCha8(sha256.Sum256([]byte(payload))).Read(noise)
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc([]byte(payload)) + "." + enc(noise)
}

func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// A world is an environment with no token in it.
type world struct {
	t   *testing.T
	dir string
	tmp string
}

var variables = []string{
	"IGWN_AUTH_UTILS_FIND_SCITOKEN", "SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS",
	"BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR",
}

func unset(t testing.TB) {
	for _, name := range variables {
		t.Setenv(name, "") // restored afterwards
		os.Unsetenv(name)
	}
}

// writeOld writes a file that was last changed some time ago.
func writeOld(t testing.TB, path, content string, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-age)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	unset(t)
	w := &world{t: t, dir: t.TempDir()}
	w.tmp = w.mkdir("tmp")
	return w
}

func (w *world) mkdir(name string) string {
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// file writes a file that has not been touched for a while.
func (w *world) file(name, content string) string {
	path := filepath.Join(w.dir, name)
	os.MkdirAll(filepath.Dir(path), 0o700)
	writeOld(w.t, path, content, time.Hour)
	return path
}

func (w *world) set(name, value string) { w.t.Setenv(name, value) }

// put places text as the token of a place, and returns the file's path.
func (w *world) put(place, text string) string {
	var path string
	switch place {
	case "SCITOKEN", "BEARER_TOKEN":
		w.set(place, text)
	case "SCITOKEN_FILE", "BEARER_TOKEN_FILE":
		path = w.file(place+"/token", text)
		w.set(place, path)
	case "_CONDOR_CREDS":
		path = w.file("creds/tok.use", text)
		w.set(place, filepath.Dir(path))
	case "XDG_RUNTIME_DIR":
		path = w.file("xdg/"+btName(), text)
		w.set(place, filepath.Dir(path))
	case "tmp":
		path = w.file("tmp/"+btName(), text)
	default:
		w.t.Fatalf("no place %q", place)
	}
	return path
}

func btName() string { return "bt_u" + strconv.Itoa(os.Geteuid()) }

func (w *world) find(q Query) (Found, error) {
	f := Finder{Query: q, Tmp: w.tmp}
	return f.Find(w.t.Context())
}

// gracedb is the query that most cases use.
var gracedb = Query{Audience: []string{"https://gracedb.ligo.org"}, Scopes: []string{"gracedb.read"}}

// wantSub finds a token and checks whose it is.
func (w *world) wantSub(q Query, sub string) Found {
	w.t.Helper()
	found, err := w.find(q)
	if err != nil {
		w.t.Fatalf("Find: %v", err)
	}
	if found.Claims.Subject != sub {
		w.t.Fatalf("found the token of %q at %s, want that of %q", found.Claims.Subject, found.Place, sub)
	}
	return found
}
