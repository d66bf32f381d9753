package token_test

import (
	"testing"

	"github.com/gracedb-go/gracedb"
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
	source := token.Asker{Source: token.Source(gracedb.StaticToken(raw))}
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
