package token

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The tests are named after the numbered cases of the project's token reference;
// those about reloading are in reload_*_test.go, those about parsing in token_test.go.
// tokenCasesElsewhere, in find_test.go, lists the rest.

// inOrder has the places in the order of the search.
var inOrder = []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR", "tmp"}

// wantError looks in vain and checks what the error says.
func (w *world) wantError(q Query, texts ...string) error {
	w.t.Helper()
	found, err := w.find(q)
	if err == nil {
		w.t.Fatalf("found a token at %s", found.Place)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			w.t.Errorf("error lacks %q: %v", text, err)
		}
	}
	return err
}

func TestCase01_NothingSet(t *testing.T) {
	w := newWorld(t)
	err := w.wantError(gracedb, "$SCITOKEN, $SCITOKEN_FILE, $_CONDOR_CREDS, $BEARER_TOKEN, $BEARER_TOKEN_FILE, $XDG_RUNTIME_DIR: not set",
		filepath.Join(w.tmp, btName())+": no such file")
	if _, ok := errors.AsType[*NotFoundError](err); !ok {
		t.Errorf("error of type %T", err)
	}
}

func TestCase02_Order(t *testing.T) {
	for i, first := range inOrder[:len(inOrder)-1] {
		second := inOrder[i+1]
		t.Run(first+" before "+second, func(t *testing.T) {
			w := newWorld(t)
			w.put(first, mint(claims{"sub": first}))
			w.put(second, mint(claims{"sub": second}))
			w.wantSub(gracedb, first)
		})
	}
}

func TestCase03_UnusableGoesOn(t *testing.T) {
	for name, text := range map[string]string{
		"audience": mint(claims{"aud": "https://other"}), "scope": mint(claims{"scope": "read:/"}),
		"expired": mint(claims{"exp": in(-time.Minute)}), "garbage": "garbage",
	} {
		for i, first := range inOrder[:len(inOrder)-1] {
			t.Run(name+" in "+first, func(t *testing.T) {
				w := newWorld(t)
				w.put(first, text)
				w.put(inOrder[i+1], mint(claims{"sub": "good"}))
				w.wantSub(gracedb, "good")
			})
		}
	}
}

func TestCase04_EmptyIsUnset(t *testing.T) {
	for _, name := range inOrder[:6] {
		w := newWorld(t)
		w.set(name, "")
		w.wantError(gracedb, "$SCITOKEN, $SCITOKEN_FILE, $_CONDOR_CREDS, $BEARER_TOKEN, $BEARER_TOKEN_FILE, $XDG_RUNTIME_DIR: not set")
		w.put("tmp", mint(claims{"sub": "good"}))
		w.wantSub(gracedb, "good")
	}
}

func TestCase05_EmptyCondorIsNotHere(t *testing.T) {
	w := newWorld(t)
	t.Chdir(filepath.Dir(w.file("here/a.use", mint(nil))))
	w.set("_CONDOR_CREDS", "")
	w.wantError(gracedb, "$_CONDOR_CREDS")
}

func TestCase06_WhiteSpaceVariable(t *testing.T) {
	for _, name := range []string{"SCITOKEN", "BEARER_TOKEN"} {
		w := newWorld(t)
		w.set(name, "  \n")
		w.wantError(gracedb, "$"+name+": empty")
		w.put("tmp", mint(claims{"sub": "good"}))
		w.wantSub(gracedb, "good")
	}
}

func TestCase07_Trimming(t *testing.T) {
	const space = " \t\r\n\v\f"
	for _, place := range inOrder {
		w := newWorld(t)
		raw := mint(nil)
		w.put(place, space+raw+space)
		if found, err := w.find(gracedb); err != nil || found.Token != raw {
			t.Errorf("%s: %v", place, err)
		}
		for _, mark := range []string{"\u00a0", "\ufeff", "\u0085"} {
			w.put(place, mark+raw)
			w.wantError(gracedb, "not a token")
			w.put(place, raw+mark)
			w.wantError(gracedb, "not a token")
		}
	}
}

func TestCase08_MissingFile(t *testing.T) {
	for _, name := range []string{"SCITOKEN_FILE", "BEARER_TOKEN_FILE"} {
		w := newWorld(t)
		missing := filepath.Join(w.dir, "missing")
		w.set(name, missing)
		w.wantError(gracedb, "$"+name+" "+missing+": no such file")
		w.put("tmp", mint(claims{"sub": "good"}))
		w.wantSub(gracedb, "good")
	}
}

func TestCase09_Directory(t *testing.T) {
	for _, name := range []string{"SCITOKEN_FILE", "BEARER_TOKEN_FILE"} {
		w := newWorld(t)
		w.set(name, w.dir)
		w.wantError(gracedb, "$"+name+" "+w.dir+": it is a directory")
		w.put("tmp", mint(claims{"sub": "good"}))
		w.wantSub(gracedb, "good")
	}
}

func TestCase11_EmptyFile(t *testing.T) {
	for _, name := range inOrder {
		if name == "SCITOKEN" || name == "BEARER_TOKEN" {
			continue
		}
		w := newWorld(t)
		for _, text := range []string{"", "\n", " \t\n"} {
			w.put(name, text)
			w.wantError(gracedb, name[len(name)-3:], ": empty")
		}
		if name != "tmp" {
			w.put("tmp", mint(claims{"sub": "good"}))
			w.wantSub(gracedb, "good")
		}
	}
}

func TestCase12_RuntimeDirWithoutFile(t *testing.T) {
	w := newWorld(t)
	w.set("XDG_RUNTIME_DIR", w.mkdir("xdg"))
	w.put("tmp", mint(claims{"sub": "good"}))
	w.wantSub(gracedb, "good")
}

func TestCase13_RuntimeDirRelativeOrMissing(t *testing.T) {
	w := newWorld(t)
	t.Chdir(filepath.Dir(filepath.Dir(w.file("run/xdg/"+btName(), mint(nil)))))
	w.set("XDG_RUNTIME_DIR", "xdg")
	w.wantError(gracedb, "not an absolute path")
	w.set("XDG_RUNTIME_DIR", filepath.Join(w.dir, "missing"))
	w.wantError(gracedb, "missing/"+btName()+": no such file")
}

func TestCase15_ExpiredVariableGoodFile(t *testing.T) {
	w := newWorld(t)
	w.put("BEARER_TOKEN", mint(claims{"exp": in(-time.Minute)}))
	w.put("BEARER_TOKEN_FILE", mint(claims{"sub": "good"}))
	w.wantSub(gracedb, "good")
}

func TestCase16_NotAToken(t *testing.T) {
	raw := mint(nil)
	for _, text := range []string{raw[:20] + " " + raw[20:], "Bearer " + raw, `"` + raw + `"`} {
		w := newWorld(t)
		w.set("BEARER_TOKEN", text)
		w.wantError(gracedb, "$BEARER_TOKEN: not a token")
	}
}

func TestCase17_CondorMissingOrFile(t *testing.T) {
	w := newWorld(t)
	w.set("_CONDOR_CREDS", filepath.Join(w.dir, "missing"))
	w.wantError(gracedb, "missing: no such file")
	w.set("_CONDOR_CREDS", w.file("plain", mint(nil)))
	w.wantError(gracedb, "plain: it is not a directory")
	w.put("BEARER_TOKEN", mint(claims{"sub": "good"}))
	w.wantSub(gracedb, "good")
}

func TestCase18_SeveralCondorTokens(t *testing.T) {
	w := newWorld(t)
	w.set("_CONDOR_CREDS", w.mkdir("creds"))
	w.file("creds/igwn_c.use", mint(claims{"sub": "c"}))
	w.file("creds/igwn_a.use", mint(claims{"sub": "a", "aud": "https://other"}))
	w.file("creds/igwn_b.use", mint(claims{"sub": "b"}))
	w.file("creds/igwn_d.use", mint(claims{"sub": "d", "scope": "read:/frames", "aud": "https://datafind"}))
	w.wantSub(gracedb, "b")
	w.wantSub(Query{Audience: []string{"https://datafind"}, Scopes: []string{"read:/frames/O4"}}, "d")
}

func TestCase19_CondorFormats(t *testing.T) {
	for name, text := range map[string]string{
		"raw":  mint(nil) + "\n",
		"JSON": `{"access_token": "` + mint(nil) + `", "expires_in": 1200}` + "\n",
	} {
		for _, place := range []string{"_CONDOR_CREDS", "BEARER_TOKEN_FILE"} {
			w := newWorld(t)
			w.put(place, text)
			if _, err := w.find(gracedb); err != nil {
				t.Errorf("%s in %s: %v", name, place, err)
			}
		}
	}
}

func TestCase20_CondorOtherFiles(t *testing.T) {
	w := newWorld(t)
	w.set("_CONDOR_CREDS", w.mkdir("creds"))
	for _, name := range []string{"x.top", "x.meta", "x.mark", ".x.use", "use", "x.use.1"} {
		w.file("creds/"+name, mint(nil))
	}
	w.wantError(gracedb, "creds: no *.use file in it")
	w.mkdir("creds/x.use")
	w.wantError(gracedb, "x.use: it is a directory")
	w.file("creds/y.use", mint(claims{"sub": "good"}))
	w.wantSub(gracedb, "good")
}

func TestCase21_BadJSON(t *testing.T) {
	for _, text := range []string{`{}`, `{"token":"x"}`, `{"access_token":5}`, `{"access_token":""}`, `{"access_token":`, `{"Access_Token":"` + mint(nil) + `"}`} {
		w := newWorld(t)
		w.put("_CONDOR_CREDS", text)
		w.wantError(gracedb, "JSON without an access_token")
	}
}

func TestCase22_OtherNames(t *testing.T) {
	w := newWorld(t)
	w.file("tmp/"+btName()+"-fife-CMS", mint(nil))
	w.wantError(gracedb, "no such file")
}

func TestCase23_TMPDIR(t *testing.T) {
	w := newWorld(t)
	w.file("elsewhere/"+btName(), mint(nil))
	w.set("TMPDIR", filepath.Join(w.dir, "elsewhere"))
	var f Finder
	looks := f.places(t.Context())
	if got := looks[len(looks)-1].path; got != "/tmp/"+btName() {
		t.Errorf("the last place is %s", got)
	}
}

func TestCase24_FindingForbidden(t *testing.T) {
	for _, value := range []string{"no", "0", "false", "", "garbage"} {
		w := newWorld(t)
		w.put("BEARER_TOKEN", mint(nil))
		w.set("IGWN_AUTH_UTILS_FIND_SCITOKEN", value)
		w.wantError(gracedb, "$IGWN_AUTH_UTILS_FIND_SCITOKEN")
	}
	for _, value := range []string{"1", "y", "YES", "true"} {
		w := newWorld(t)
		w.set("IGWN_AUTH_UTILS_FIND_SCITOKEN", value)
		w.wantError(gracedb, "not set")
		w.put("BEARER_TOKEN", mint(claims{"sub": "good"}))
		w.wantSub(gracedb, "good")
	}
}

func TestCase25_EnvironmentChanges(t *testing.T) {
	w := newWorld(t)
	f := Finder{Query: gracedb, Tmp: w.tmp}
	w.put("BEARER_TOKEN", mint(claims{"sub": "one"}))
	if found, err := f.Find(t.Context()); err != nil || found.Claims.Subject != "one" {
		t.Fatal(found.Claims.Subject, err)
	}
	os.Unsetenv("BEARER_TOKEN")
	w.put("SCITOKEN_FILE", mint(claims{"sub": "two"}))
	if found, err := f.Find(t.Context()); err != nil || found.Claims.Subject != "two" {
		t.Fatal(found.Claims.Subject, err)
	}
}

// A token where a path belongs is a slip that must not put it into an error.
func TestTokenAsPath(t *testing.T) {
	raw := mint(nil)
	for _, name := range []string{"SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"} {
		for _, value := range []string{raw, raw + "\n", "/tmp/" + raw, "Bearer " + raw} {
			w := newWorld(t)
			w.set(name, value)
			err := w.wantError(gracedb, "$"+name+": it holds a token where a path should be")
			if leak := leaked(err.Error(), raw); leak != "" {
				t.Errorf("%s: the error shows %q", name, leak)
			}
		}
	}
}

func TestPathsAreShownClean(t *testing.T) {
	w := newWorld(t)
	w.set("BEARER_TOKEN_FILE", "/x\x1b[31m\n"+strings.Repeat("y/", 5000))
	if err := w.wantError(gracedb, "$BEARER_TOKEN_FILE …y/y"); len(err.Error()) > 800 || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("error %q", err)
	}

	// A damaged token in a path is no token, but nothing to show either.
	raw := mint(nil)
	signature := raw[strings.LastIndexByte(raw, '.')+1:]
	for _, value := range []string{signature, "/tmp/" + signature, "/" + raw[1:], strings.ReplaceAll(raw, ".", "!")} {
		w.set("BEARER_TOKEN_FILE", value)
		if err := w.wantError(gracedb); leaked(err.Error(), raw) != "" {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}
