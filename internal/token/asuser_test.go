//go:build unix

package token

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

const nobody = 65534

// asNobody runs the calling test again in a process of its own for a user who is
// not root, since nothing is unreadable to root. It reports whether it did.
func asNobody(t *testing.T, mode os.FileMode, cred *syscall.Credential, env ...string) bool {
	t.Helper()
	if os.Getenv("TOKEN_TEST_CHILD") != "" || os.Getuid() != 0 {
		return false
	}
	dir, err := os.MkdirTemp("", "token-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The directory that go test builds in is closed to others.
	binary := filepath.Join(dir, "test")
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, data, 0o755); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Chown(binary, nobody, nobody), os.Chmod(binary, mode),
		os.Mkdir(home, 0o777), os.Chmod(home, 0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run", "^"+regexp.QuoteMeta(t.Name())+"$", "-test.v")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), append(env, "TOKEN_TEST_CHILD=1", "TMPDIR="+home)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as another user: %v\n%s", err, out)
	}
	t.Logf("as another user:\n%s", out)
	return true
}

func credentials() *syscall.Credential { return &syscall.Credential{Uid: nobody, Gid: nobody} }
