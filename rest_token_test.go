package gracedb

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracedb-go/gracedb/internal/testauth"
	"github.com/gracedb-go/gracedb/internal/token"
)

// A token that has not changed is not parsed anew for each request.
func TestTokenIsParsedOnce(t *testing.T) {
	issuer, err := testauth.NewIssuer("https://issuer.test")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := issuer.Token(testauth.Claims{})
	if err != nil {
		t.Fatal(err)
	}
	source := token.Asker{Source: token.Source(StaticToken(raw))}
	ask := func() {
		if got, err := source.Ask(t.Context(), ""); err != nil || got.Raw != raw || got.Claims.Subject != "alice" {
			t.Fatal(got, err)
		}
	}
	ask()
	parsing := testing.AllocsPerRun(10, func() { _, _ = token.Check(raw) })
	if n := testing.AllocsPerRun(10, ask); n > 8 || parsing < 2*n {
		t.Errorf("%v allocations for a token at hand; parsing takes %v", n, parsing)
	}
}

// A source that does not honour its ctx keeps no call of a Client from doing so.
func TestClientTokenSourceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan string)
		c, err := NewClient(ClientConfig{
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
