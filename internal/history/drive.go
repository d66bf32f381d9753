package history

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Judge is Check for a test: it says the first ten promises that are broken, and how many
// sends ended in each way.
func (h *History) Judge(t testing.TB, records []*kgo.Record) {
	t.Helper()
	broken := h.Check(records)
	for i, b := range broken {
		if i == 10 {
			t.Errorf("and %d more", len(broken)-i)
			break
		}
		t.Error(b)
	}
	t.Logf("%v", h.Count())
}

// Traffic calls send at a rate until stop is called, with an own key for each of n senders.
func Traffic(t testing.TB, senders int, every time.Duration, send func(key string)) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-end:
					return
				case <-tick.C:
				}
				send(fmt.Sprint("sender", i))
			}
		})
	}
	stop = sync.OnceFunc(func() { close(end); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// WantKinds checks the kinds of an error that a caller was told, and what it names. It has
// one line, and shows no token.
func WantKinds(t testing.TB, err error, is, isNot []error, names ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, k := range is {
		if !errors.Is(err, k) {
			t.Errorf("not %q: %v", k, err)
		}
	}
	for _, k := range isNot {
		if errors.Is(err, k) {
			t.Errorf("wrongly %q: %v", k, err)
		}
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %q", err, name)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "eyJ") {
		t.Errorf("%q", err)
	}
}
