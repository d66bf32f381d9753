package gracedb_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/gracedb-go/gracedb/internal/testlog"
)

// No test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lockedBuffer may be written to from several goroutines.
type lockedBuffer = testlog.Log

func wantIs(t testing.TB, err error, is ...error) {
	t.Helper()
	for _, kind := range is {
		if !errors.Is(err, kind) {
			t.Errorf("not %q: %v", kind, err)
		}
	}
}
