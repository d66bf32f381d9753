package diagnose

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
	"github.com/gracedb-go/gracedb/internal/token"
)

// shortLife is how long a token should last: less than that, and whatever renews it is late.
const shortLife = 5 * time.Minute

const getToken = "get one with: " + token.GetCommand

// checkToken asks src for a token, or looks for one if src is nil, and returns it; "" if there is
// none. For whom names who is shown it.
func checkToken(caller context.Context, r *report, src token.Source, wanted token.Query, whom string) string {
	ctx, cancel := context.WithTimeout(caller, sasl.AskTimeout)
	defer cancel()
	if src == nil {
		src = token.FindSource(&token.Finder{Query: wanted})
	}
	began := time.Now()
	asker := token.Asker{Source: src, Log: slog.New(slog.DiscardHandler)}
	t, err := asker.Ask(ctx, "")
	took := time.Since(began)
	if err != nil {
		advice := getToken
		if strings.Contains(err.Error(), token.GetCommand) {
			advice = "do what it says, and let what renews the token run before it ends"
		}
		r.fail("token", whom, took, err, advice)
		return ""
	}
	errs.NoteToken(t.Raw)
	now := time.Now()
	place, problems := token.WhereFound(t.Raw)
	if place == "" {
		place = "the configured source"
	}
	detail := "of " + place + ": " + token.Describe(t.Raw, whom, now).Says
	problems = append([]string(nil), problems...)
	told := strings.Contains(strings.Join(problems, ";"), "may be refused") // by whoever found it
	if faults := wanted.Faults(t.Claims, now); len(faults) > 0 && t.Claims.Subject != "" && !told {
		problems = append(problems, strings.Join(faults, "; "))
	}
	left := t.Claims.Expires.Sub(now)
	if !t.Claims.Expires.IsZero() && left < shortLife {
		problems = append(problems, "it ends in "+token.Span(left))
	}
	if len(problems) == 0 {
		r.ok("token", whom, took, "%s", detail)
		return t.Raw
	}
	r.warn("token", whom, took, strings.Join(problems, "; ")+"; it is the one "+detail, tokenAdvice(strings.Join(problems, "; ")))
	return t.Raw
}

// tokenAdvice says what to do about what is wrong with a token.
func tokenAdvice(problems string) string {
	var do []string
	for _, a := range []struct{ sign, advice string }{
		{"open to other users", "chmod 600 the file"},
		{"audience", "get a token for this audience, or for ANY"},
		{"scope", "get a token with this scope"},
		{"not valid yet", "set this machine's clock"},
		{"it ends in", "renew it in time: " + token.GetCommand},
	} {
		if strings.Contains(problems, a.sign) {
			do = append(do, a.advice)
		}
	}
	return strings.Join(do, "; ")
}

// only is a source of one token.
func only(raw string) token.Source {
	return func(context.Context) (string, error) {
		if raw == "" {
			return "", errs.New([]error{errs.Token}, "no usable token")
		}
		return raw, nil
	}
}
