//go:build unix

package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/realkafka"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

//go:embed requirements.txt
var requirements []byte

//go:embed peer.py
var peerScript string

//go:embed keys.py
var keysScript string

// Python returns the Python of a virtual environment that has the peer in it. The
// first call builds it in the cache directory, which takes some 15 seconds; any
// number of processes may do so at once.
func Python(ctx context.Context) (string, error) {
	cache, err := realkafka.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, fmt.Sprintf("peer-%.4x", sha256.Sum256(requirements)))
	python := filepath.Join(dir, "bin", "python")
	if _, err := os.Stat(python); err == nil {
		return python, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("interop: cache: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "fetch-*")
	if err != nil {
		return "", fmt.Errorf("interop: cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	list := filepath.Join(tmp, "requirements.txt")
	if err := os.WriteFile(list, requirements, 0o600); err != nil {
		return "", fmt.Errorf("interop: cache: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	// The environment is renamed when it is whole. That breaks the scripts in its
	// bin directory, which name their interpreter in full, but not its Python.
	venv := filepath.Join(tmp, "venv")
	for _, args := range [][]string{
		{"python3", "-m", "venv", venv},
		{filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("interop: building the Python peer (apt-get install python3-venv): %w\n%s", err, out)
		}
	}
	if err := os.Rename(venv, dir); err != nil {
		if _, statErr := os.Stat(python); statErr != nil {
			return "", fmt.Errorf("interop: cache: %w", err)
		}
	}
	return python, nil
}

// A Sandbox is a directory in which Python programs find one token, the keys to
// verify it with, and one authority to trust, and nothing of the user's.
type Sandbox struct {
	Dir    string
	CAFile string

	python string
	env    []string
}

// NewSandbox makes dir, which must exist and be empty, a Sandbox without a token.
func NewSandbox(ctx context.Context, dir string, authority *testauth.Authority, issuer *testauth.Issuer) (*Sandbox, error) {
	python, err := Python(ctx)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{Dir: dir, CAFile: filepath.Join(dir, "ca.pem"), python: python}
	if err := os.WriteFile(s.CAFile, authority.PEM(), 0o600); err != nil {
		return nil, fmt.Errorf("interop: sandbox: %w", err)
	}
	s.env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "BEARER_TOKEN") || strings.HasPrefix(name, "SCITOKEN") ||
			strings.HasPrefix(name, "X509_") || strings.HasPrefix(name, "KAFKA_") || strings.HasPrefix(name, "PYTHON") ||
			name == "_CONDOR_CREDS" || strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
	s.env = append(s.env, "HOME="+dir, "TMPDIR="+dir, "XDG_RUNTIME_DIR="+dir, "XDG_CACHE_HOME="+dir,
		"BEARER_TOKEN_FILE="+s.tokenFile(), "REQUESTS_CA_BUNDLE="+s.CAFile, "LC_ALL=C.UTF-8")
	keys, err := issuer.Keys()
	if err != nil {
		return nil, err
	}
	var list []map[string]string
	for _, k := range keys {
		list = append(list, map[string]string{"issuer": issuer.URL(), "id": k.ID, "pem": string(k.PEM)})
	}
	in, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("interop: keys: %w", err)
	}
	cmd := s.Command(ctx, "-c", keysScript)
	cmd.Stdin = bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("interop: filling the key cache: %w\n%s", err, out)
	}
	return s, nil
}

func (s *Sandbox) tokenFile() string { return filepath.Join(s.Dir, "token") }

// SetToken replaces the token that programs find.
func (s *Sandbox) SetToken(token string) error {
	next := s.tokenFile() + ".next"
	if err := os.WriteFile(next, []byte(token+"\n"), 0o600); err != nil {
		return fmt.Errorf("interop: token: %w", err)
	}
	return os.Rename(next, s.tokenFile())
}

// Command returns a run of Python in the Sandbox that ends with ctx. Setenv-style
// additions go to the end of its Env.
func (s *Sandbox) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.python, args...)
	cmd.Dir = s.Dir
	cmd.Env = slices.Clone(s.env)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// StartPeer starts a process that does what it is told with ligo-gracedb: its commands are
// the methods in peer.py. Close it.
func (s *Sandbox) StartPeer(ctx context.Context) (*Process, error) {
	return Start(s.Command(ctx, "-u", "-c", peerScript))
}
