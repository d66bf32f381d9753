package token

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Case 48: what a clock that was set back leaves is a token that was taken in the future. Its
// source is asked once more.
func TestReloaderClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r := &reloader{src: func(context.Context) (string, error) {
			asked++
			return "a token of a kind that only its source knows", nil
		}, buffer: 5 * time.Minute}
		ask := func() {
			if _, err := r.token(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		h := *r.held.Load()
		h.taken, h.fresh = h.taken.Add(time.Hour), h.fresh.Add(3*time.Hour)
		r.held.Store(&h)
		for range 100 {
			ask()
		}
		if asked != 2 {
			t.Errorf("the source was asked %d times, want 2", asked)
		}
	})
}
