package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb/internal/clock"
	"github.com/gracedb-go/gracedb/internal/tlsroots"
)

// Behind more silent addresses than are tried at a time, a good one is connected to when it
// is its turn, at the first try.
func TestDialTimeoutBeginsAtTheTurn(t *testing.T) {
	for _, silent := range []int{maxStrangers, 2*maxStrangers + 1, 6 * maxStrangers} {
		t.Run(fmt.Sprint(silent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { dialBehind(t, silent) })
		})
	}
}

func dialBehind(t *testing.T, silent int) {
	const good, slow = "127.0.0.1:9", 4 * time.Second // nearly dialTimeout
	d := &dialer{
		plaintext: true, trust: &tlsroots.Authorities{}, redials: redials{failed: make(map[string]time.Time)}, openings: newOpenings(nil),
		tcp: func(ctx context.Context, _, address string) (net.Conn, error) {
			if address != good {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			if err := clock.Sleep(ctx, slow); err != nil {
				return nil, err
			}
			ours, theirs := net.Pipe()
			t.Cleanup(func() { _ = theirs.Close() })
			return ours, nil
		},
	}
	ended := make(chan error, silent)
	for i := range silent {
		go func() {
			_, err := d.dial(t.Context(), "tcp", fmt.Sprintf("127.0.1.%d:9", i))
			ended <- err
		}()
	}
	synctest.Wait()
	start := time.Now()
	conn, err := d.dial(t.Context(), "tcp", good)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if took, want := time.Since(start), time.Duration(silent/maxStrangers)*dialTimeout+slow; took != want {
		t.Errorf("after %v, want %v", took, want)
	}
	for range silent {
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a silent one: %v", err)
		}
	}
}
