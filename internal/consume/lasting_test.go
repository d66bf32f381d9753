package consume

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Each trouble is told when it begins, and once a minute, whatever the others do; it is over
// when it is said to be, or is not met any more.
func TestLasting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lasting
		started := time.Now()
		told := make(map[string][]time.Duration)
		for range 125 {
			for _, about := range []string{"group: a", "group: b", "batch"} {
				if l.met(about, errors.New(about), 5*time.Second) {
					told[about] = append(told[about], time.Since(started))
				}
			}
			time.Sleep(time.Second)
		}
		for about, at := range told {
			if len(at) != 3 || at[0] != 0 || at[1] != time.Minute || at[2] != 2*time.Minute {
				t.Errorf("%s was told after %v", about, at)
			}
		}
		if err := l.now(); err == nil || !strings.Contains(err.Error(), "batch; group: a; group: b") {
			t.Errorf("now: %v", err)
		}
		if !l.over("group: ") || l.over("group: ") {
			t.Error("the group's troubles are not over")
		}
		if err := l.now(); err == nil || strings.Contains(err.Error(), "group") {
			t.Errorf("now: %v", err)
		}
		time.Sleep(5 * time.Second)
		if err := l.now(); err != nil {
			t.Errorf("still: %v", err)
		}
	})
}
