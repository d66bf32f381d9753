// Command tokens measures what it costs to look a token up, against the Python
// package that this library replaces, and writes the token section of
// BENCHMARKS.md.
//
//	cd internal/bench && go run ./tokens [-python VENV/bin/python]
//
// Without -python it makes a virtual environment of its own and installs the peer,
// about 75 MB. Ours and theirs run in turn, a few look-ups at a time, so that what
// else the machine does meets both; compare ratios, not times.
package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
)

const (
	peer    = "ligo-gracedb[kafka]==2.16.1"
	issuer  = "https://issuer.test"
	keyID   = "k1"
	want    = 8 // times as fast as the peer
	section = "tokens"
)

//go:embed peer.py
var peerProgram []byte

func main() {
	python := flag.String("python", "", "`path` of a Python that has "+peer+"; if empty, one is made")
	out := flag.String("out", "../../BENCHMARKS.md", "`file` whose token section is written; if empty, none")
	rounds := flag.Int("rounds", 40, "how often to change between ours and theirs")
	batch := flag.Int("batch", 50, "look-ups in a row")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *python, *out, *rounds, *batch); err != nil {
		fmt.Fprintln(os.Stderr, "tokens:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, python, out string, rounds, batch int) error {
	dir, err := os.MkdirTemp("", "tokens")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if python == "" {
		if python, err = makePeer(ctx, dir); err != nil {
			return err
		}
	}
	if err := prepare(dir); err != nil {
		return err
	}
	theirs, err := startPeer(ctx, python, dir)
	if err != nil {
		return err
	}
	find := gracedb.FindToken(gracedb.TokenQuery{Audience: []string{"https://kafka.test"}, Scopes: []string{"gracedb.read"}})
	var ours, kafka, rest []time.Duration
	for round := range rounds + 1 {
		a, err := measure(ctx, find, batch)
		if err != nil {
			return err
		}
		b, err := theirs(batch)
		if err != nil {
			return err
		}
		if round > 0 { // the first warms caches
			ours, kafka, rest = append(ours, a...), append(kafka, b.Kafka...), append(rest, b.REST...)
		}
	}
	text := report(ctx, ours, kafka, rest)
	fmt.Print(text)
	if out != "" {
		if err := writeSection(out, section, text); err != nil {
			return err
		}
	}
	if ratio := ratio(kafka, ours); ratio < want {
		return fmt.Errorf("%.1f times as fast as the peer, want %d", ratio, want)
	}
	return nil
}

// makePeer installs the peer below dir and returns its Python.
func makePeer(ctx context.Context, dir string) (string, error) {
	venv := filepath.Join(dir, "venv")
	for _, args := range [][]string{
		{"python3", "-m", "venv", venv},
		{filepath.Join(venv, "bin", "pip"), "install", "--quiet", peer},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	return filepath.Join(venv, "bin", "python"), nil
}

// prepare writes a signed token, its public key and the peer's program into dir,
// and leaves the token as the only one that either side can find.
func prepare(dir string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": issuer, "aud": "kafka.test", "scope": "gracedb.read", "sub": "alice", "ver": "scitoken:2.0", "jti": "j",
		"iat": now, "nbf": now - 5, "exp": now + 7200,
	})
	if err != nil {
		return err
	}
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"alg":"RS256","kid":"`+keyID+`","typ":"JWT"}`)) + "." + enc(claims)
	hash := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash[:])
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"token":   []byte(signed + "." + enc(signature) + "\n"),
		"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"peer.py": peerProgram,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN", "IGWN_AUTH_UTILS_FIND_SCITOKEN"} {
		_ = os.Unsetenv(name)
	}
	tokenFile := filepath.Join(dir, "token")
	long := time.Now().Add(-time.Minute) // a file written just now is read twice
	return errors.Join(
		os.Chtimes(tokenFile, long, long),
		os.Setenv("BEARER_TOKEN_FILE", tokenFile),
		os.Setenv("XDG_RUNTIME_DIR", dir),
		os.Setenv("XDG_CACHE_HOME", dir),
	)
}

// times are what the peer measured.
type times struct{ Kafka, REST []time.Duration }

// startPeer starts the peer's program and returns what makes it measure.
func startPeer(ctx context.Context, python, dir string) (func(n int) (times, error), error) {
	cmd := exec.CommandContext(ctx, python, filepath.Join(dir, "peer.py"), issuer, keyID, filepath.Join(dir, "key.pem"), filepath.Join(dir, "token"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := json.NewDecoder(bufio.NewReader(answers))
	return func(n int) (t times, err error) {
		if _, err := fmt.Fprintln(in, n); err != nil {
			return t, fmt.Errorf("the peer has ended: %w", err)
		}
		if err := lines.Decode(&t); err != nil {
			return t, fmt.Errorf("the peer's answer: %w", err)
		}
		return t, nil
	}, nil
}

func measure(ctx context.Context, find gracedb.TokenSource, n int) ([]time.Duration, error) {
	all := make([]time.Duration, n)
	for i := range all {
		start := time.Now()
		if _, err := find(ctx); err != nil {
			return nil, err
		}
		all[i] = time.Since(start)
	}
	return all, nil
}

func percentile(all []time.Duration, p int) time.Duration {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)*p/100]
}

func ratio(theirs, ours []time.Duration) float64 {
	return float64(percentile(theirs, 50)) / float64(percentile(ours, 50))
}

func report(ctx context.Context, ours, kafka, rest []time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s/%s, %d CPUs; peer: %s, its key cache filled. %d look-ups each, in turn, of one\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), peer, len(ours))
	fmt.Fprintf(&b, "token in BEARER_TOKEN_FILE. Again: `cd internal/bench && go run ./tokens`.\n\n")
	fmt.Fprintf(&b, "| look-up | p50 | p90 | peer / ours (p50) |\n|---|---|---|---|\n")
	row := func(name string, all []time.Duration, ratio string) {
		fmt.Fprintf(&b, "| %s | %.1f µs | %.1f µs | %s |\n", name,
			float64(percentile(all, 50))/1e3, float64(percentile(all, 90))/1e3, ratio)
	}
	row("`FindToken`", ours, "")
	row("peer, for Kafka (`get_scitoken_for_kafka`)", kafka, fmt.Sprintf("**%.1f**", ratio(kafka, ours)))
	row("peer, for HTTP (`find_token`)", rest, fmt.Sprintf("**%.1f**", ratio(rest, ours)))

	reload := gracedb.ReloadToken(gracedb.FindToken(gracedb.TokenQuery{}), 5*time.Minute)
	fast := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := reload(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	fmt.Fprintf(&b, "\n`ReloadToken` while its token is fresh: %d ns and %d allocations a call.\n", fast.NsPerOp(), fast.AllocsPerOp())
	return b.String()
}

// writeSection replaces what stands between the markers called name in the file,
// or appends it with markers.
func writeSection(file, name, text string) error {
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->\n"
	old, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		old = []byte("# Benchmarks\n")
	case err != nil:
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	switch {
	case found && !closed:
		return fmt.Errorf("%s: %q without %q", file, begin, end)
	case !found:
		before += "\n## Tokens\n\n"
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}
