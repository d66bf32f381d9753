//go:build unix

package token

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A vector is a line of tokens.jsonl: what two clients of the Python peer found.
type vector struct {
	Name, Broker, Scope string
	Audience            *string
	HTTPAudience        string `json:"http_audience"`
	Places              []placement
	Kafka, HTTP         struct {
		OK, Unparsable bool
		Sub            string
	}
}

// A placement is what lies in one place.
type placement struct {
	Place, Wrap, Special string
	Claims               claims
	Literal              *string // the variable's value
	LiteralFile          *string `json:"literal_file"`
	Two, Tamper          bool
}

// A difference is a vector where this package decides otherwise than a client of
// the peer, on purpose. want is the subject of the token found or, after "error:",
// what the error says.
type difference struct{ want, why string }

const (
	notForKafka    = "the peer's Kafka client does not look there: a second discovery, with other places"
	neverGarbage   = "the peer's Kafka client hands on whatever the first place holds; a broken token is never sent"
	nextPlace      = "what is unusable in one place does not hide the next"
	anyAudienceBut = "the receiver decides: a token that does not match is used, with a warning, if there is no better"
	shortLife      = "a token with under a minute left is still used: better than none"
	noVerify       = "only the receiver verifies signatures: finding a token never asks the network"
	notATime       = "exp must be a number of seconds before the year 10000: others cannot be watched"
	mustEnd        = "a token found in a file must say when it expires, or it would be used for ever"
	noCrash        = "a raw Python error in the peer"
)

var kafkaDiffers = map[string]difference{
	"only SCITOKEN":                                          {"scitoken", notForKafka},
	"only _CONDOR_CREDS":                                     {"_condor_creds", notForKafka},
	"condor over bearer file":                                {"condor", notForKafka},
	"BEARER_TOKEN whitespace, good default file":             {"default", nextPlace},
	"BEARER_TOKEN garbage, good default file":                {"default", nextPlace},
	"XDG_RUNTIME_DIR points nowhere, good default file":      {"default", nextPlace},
	"XDG set but file missing, default file good":            {"default", nextPlace},
	"expired BEARER_TOKEN hides good file":                   {"bearer_token_file", nextPlace},
	"wrong audience in BEARER_TOKEN_FILE hides good default": {"default", "the peer's Kafka client never looks at the audience; a token that matches is preferred"},
	"file: exp missing":                                      {"error: no exp claim", mustEnd},
	"file: exp string":                                       {"error: exp claim is not a time", notATime},
	"file: exp text":                                         {"error: exp claim is not a time", notATime},
	"file: exp huge":                                         {"error: exp claim is not a time", notATime},
	"file: BOM":                                              {"error: byte order mark", neverGarbage},
	"file: quoted":                                           {"error: quotes", neverGarbage},
	"file: Bearer prefix":                                    {"error: Bearer", neverGarbage},
	"file: two lines, second garbage":                        {"error: more than one line", neverGarbage},
	"file: NUL at end":                                       {"error: not a token", neverGarbage},
	"file: split over two lines":                             {"error: more than one line", neverGarbage},
	"file: two tokens on two lines":                          {"error: more than one line", neverGarbage},
	"file: whitespace only":                                  {"error: empty", neverGarbage},
	"file: garbage":                                          {"error: not a token", neverGarbage},
	"file: two dots empty":                                   {"error: not a token", neverGarbage},
	"file: json":                                             {"error: not a token", neverGarbage},
	"file: 65 kB of a":                                       {"error: 16 KiB", neverGarbage},
	"file: unreadable (permission denied), good default":     {"default", nextPlace},
}

var httpDiffers = map[string]difference{
	"SCITOKEN_FILE empty, good default file":                 {"default", noCrash},
	"SCITOKEN_FILE whitespace, good default file":            {"default", noCrash},
	"BEARER_TOKEN whitespace, good default file":             {"default", nextPlace},
	"BEARER_TOKEN garbage, good default file":                {"default", nextPlace},
	"XDG_RUNTIME_DIR points nowhere, good default file":      {"default", nextPlace},
	"XDG set but file missing, default file good":            {"default", nextPlace},
	"expired BEARER_TOKEN hides good file":                   {"bearer_token_file", nextPlace},
	"wrong audience in BEARER_TOKEN_FILE hides good default": {"default", nextPlace},
	"file: unreadable (permission denied), good default":     {"default", nextPlace},
	"file: expires in 59 s":                                  {"bearer_token_file", shortLife},
	"file: aud https url":                                    {"bearer_token_file", anyAudienceBut},
	"file: aud host:port":                                    {"bearer_token_file", anyAudienceBut},
	"file: aud list with host":                               {"bearer_token_file", anyAudienceBut},
	"file: aud list other":                                   {"bearer_token_file", anyAudienceBut},
	"file: aud other":                                        {"bearer_token_file", anyAudienceBut},
	"file: aud missing":                                      {"bearer_token_file", anyAudienceBut},
	"file: aud empty list":                                   {"bearer_token_file", anyAudienceBut},
	"file: aud number":                                       {"bearer_token_file", anyAudienceBut},
	"broker list: audience":                                  {"bearer_token_file", anyAudienceBut},
	"file: scope missing":                                    {"bearer_token_file", anyAudienceBut},
	"file: scope empty":                                      {"bearer_token_file", anyAudienceBut},
	"file: scope with path":                                  {"bearer_token_file", anyAudienceBut},
	"file: exp missing":                                      {"error: no exp claim", mustEnd},
	"file: exp string":                                       {"error: exp claim is not a time", notATime},
	"file: exp huge":                                         {"error: exp claim is not a time", notATime},
	"file: iat future":                                       {"bearer_token_file", "the clocks may differ: used, with a warning, if there is no other"},
	"file: iss other":                                        {"bearer_token_file", noVerify},
	"file: iss http":                                         {"bearer_token_file", noVerify},
	"file: tampered signature":                               {"bearer_token_file", noVerify},
}

func TestVectors(t *testing.T) {
	file, err := os.Open(vectorsFile())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n, names := 0, map[string]bool{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		n++
		names[v.Name] = true
		t.Run(v.Name, v.run)
	}
	if n != 81 {
		t.Errorf("replayed %d vectors, want 81", n)
	}
	for _, table := range []map[string]difference{kafkaDiffers, httpDiffers} {
		for name := range table {
			if !names[name] {
				t.Errorf("no vector %q", name)
			}
		}
	}
}

const vectorsVariable = "TOKEN_TEST_VECTORS"

func vectorsFile() string {
	return cmp.Or(os.Getenv(vectorsVariable), "../../testdata/vectors/tokens.jsonl")
}

func (v vector) run(t *testing.T) {
	// Nothing is unreadable to root.
	if strings.Contains(v.Name, "unreadable") && os.Getuid() == 0 {
		copied, err := os.CreateTemp("", "vectors")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(copied.Name())
		data, err := os.ReadFile(vectorsFile())
		if _, err2 := copied.Write(data); errors.Join(err, err2, copied.Chmod(0o644), copied.Close()) != nil {
			t.Fatal(err, err2)
		}
		asNobody(t, 0o755, credentials(), vectorsVariable+"="+copied.Name())
		return
	}
	w := newWorld(t)
	for _, p := range v.Places {
		w.lay(p)
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(strings.Split(v.Broker, ",")[0], "SASL_SSL://"))
	if err != nil {
		t.Fatal(err)
	}
	audience := "https://" + host
	if v.Audience != nil {
		audience = *v.Audience
	}
	kafka, http := v.Kafka.Sub, v.HTTP.Sub
	switch {
	case !v.Kafka.OK:
		kafka = "error: "
	case v.Kafka.Unparsable:
		kafka = "what is no token"
	}
	if !v.HTTP.OK {
		http = "error: "
	}
	w.compare("Kafka", Query{[]string{audience}, []string{v.Scope}}, kafka, kafkaDiffers, v.Name)
	w.compare("HTTP", Query{[]string{v.HTTPAudience}, []string{"gracedb.read"}}, http, httpDiffers, v.Name)
}

// compare looks for a token and compares with what the peer found, or with what
// is to differ.
func (w *world) compare(client string, q Query, peer string, differs map[string]difference, name string) {
	w.t.Helper()
	found, err := w.find(q)
	got := found.Claims.Subject
	if err != nil {
		got = "error: " + err.Error()
	}
	d, listed := differs[name]
	want := peer
	if listed {
		want = d.want
	}
	switch {
	case !sameOutcome(got, want):
		w.t.Errorf("%s client: got %q, want %q", client, got, want)
	case listed && sameOutcome(got, peer):
		w.t.Errorf("%s client: no longer differs from the peer: remove it from the table", client)
	case listed && d.why == "":
		w.t.Errorf("%s client: no reason for the difference", client)
	}
}

// sameOutcome compares subjects, and of errors what want says.
func sameOutcome(got, want string) bool {
	text, isError := strings.CutPrefix(want, "error:")
	if !isError {
		return got == want
	}
	return strings.HasPrefix(got, "error:") && strings.Contains(got, strings.TrimSpace(text))
}

// lay puts something into a place, as the vectors' README says.
func (w *world) lay(p placement) {
	place := p.Place
	if place == "default" {
		place = "tmp"
	}
	if p.Literal != nil {
		switch *p.Literal {
		case "@missing":
			w.set(place, filepath.Join(w.dir, "missing"))
		case "@emptydir":
			w.set(place, w.mkdir("emptydir"))
		default:
			w.set(place, *p.Literal)
		}
		return
	}
	now := time.Now().Unix()
	over := claims{}
	for name, v := range p.Claims {
		over[name] = v
		if rest, ok := strings.CutPrefix(fmt.Sprint(v), "now"); ok {
			n, err := strconv.ParseInt(strings.TrimRight(rest, "sf"), 10, 64)
			if err != nil {
				w.t.Fatal(err)
			}
			over[name] = now + n
			switch rest[len(rest)-1] {
			case 's':
				over[name] = fmt.Sprint(now + n)
			case 'f':
				over[name] = float64(now+n) + 0.5
			}
		}
	}
	raw := mint(over)
	if p.Tamper {
		raw = raw[:len(raw)-10] + strings.Repeat("A", 10)
	}
	text := strings.ReplaceAll(p.Wrap, "{}", raw)
	switch {
	case p.Wrap == "":
		text = raw
	case p.Wrap == "SPLIT":
		text = raw[:100] + "\n" + raw[100:] + "\n"
	case p.Two:
		over["sub"] = "second"
		text = raw + "\n" + mint(over) + "\n"
	}
	if p.LiteralFile != nil {
		text = *p.LiteralFile
		if text == "@long" {
			text = strings.Repeat("a", 65536)
		}
		if digits, ok := strings.CutPrefix(text, "@bytes:"); ok {
			data, err := hex.DecodeString(strings.TrimSpace(digits))
			if err != nil {
				w.t.Fatal(err)
			}
			text = string(data)
		}
	}
	path := w.put(place, text)
	var err error
	switch p.Special {
	case "dir":
		err = errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
	case "unreadable":
		err = os.Chmod(path, 0)
	case "symlink":
		err = errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
	case "0666":
		err = os.Chmod(path, 0o666)
	case "":
	default:
		err = fmt.Errorf("special %q is not known", p.Special)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
