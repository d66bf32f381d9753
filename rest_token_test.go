package gracedb_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb"
)

// A source that does not honour its ctx keeps no call of a Client from doing so.
func TestClientTokenSourceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan string)
		c, err := gracedb.NewClient(gracedb.ClientConfig{
			ServiceURL: "https://gracedb.test/api/",
			Token:      func(context.Context) (string, error) { return <-answer, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err = c.ServiceInfo(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
		close(answer)
	})
}
