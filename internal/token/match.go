package token

import (
	"slices"
	"strings"
	"time"
)

// A Query says which tokens to prefer. What is empty prefers nothing.
type Query struct {
	Audience []string // any one of these, then "ANY"
	Scopes   []string // all of these
}

const (
	// minLife is the life a token should have left to be worth starting with.
	minLife = 60 * time.Second
	// leeway is how far clocks may differ before a token counts as not valid yet.
	leeway = 60 * time.Second
)

// score says how well c does for q at the time now; less is better:
//
//	0  audience and scopes match
//	1  audience ANY, scopes match
//	2  as 0 or 1, under a minute left: still better than one sure to be refused
//	4  audience only
//	5  neither
//	6  as 4 or 5, under a minute left
//	8  and more: not valid yet
func (q Query) score(c Claims, now time.Time) int {
	explicit := q.names(c)
	score := 5
	switch scopes := allowsAll(c.Scopes, q.Scopes); {
	case scopes && explicit:
		score = 0
	case scopes && c.anyAudience:
		score = 1
	case explicit || c.anyAudience:
		score = 4
	}
	if !c.Expires.IsZero() && c.Expires.Sub(now) < minLife {
		score += 2
	}
	if c.NotBefore.Sub(now) > leeway {
		score += 8
	}
	return score
}

// names reports whether c is for one of the audiences by name.
func (q Query) names(c Claims) bool {
	return len(q.Audience) == 0 || slices.ContainsFunc(q.Audience, func(want string) bool {
		return slices.ContainsFunc(c.Audience, func(have string) bool { return sameAudience(want, have) })
	})
}

// Faults returns why a receiver that wants what q asks for refuses c at the time now.
func (q Query) Faults(c Claims, now time.Time) (faults []string) {
	if ahead := c.NotBefore.Sub(now); ahead > leeway {
		faults = append(faults, "it is not valid yet (for another "+Span(ahead)+" by this machine's clock)")
	}
	if !allowsAll(c.Scopes, q.Scopes) {
		faults = append(faults, "it lacks the scope "+strings.Join(q.Scopes, " "))
	}
	if !q.names(c) && !c.anyAudience {
		faults = append(faults, "its audience is not "+q.Audience[0])
	}
	return faults
}

// matches reports whether a score stands for a token that q asks for.
func matches(score int) bool { return score%8 < 4 }

// sameAudience compares exactly, except that a bare host stands for its https URL.
func sameAudience(a, b string) bool {
	return a == b || a == "https://"+b || b == "https://"+a
}

func allowsAll(have, want []string) bool {
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h string) bool { return allows(h, w) }) {
			return false
		}
	}
	return true
}

// allows reports whether the scope have includes the scope want: the same
// operation, on the same path or one below it. What is malformed allows nothing,
// and spoils nothing beside it.
func allows(have, want string) bool {
	haveOp, havePath, ok := splitScope(have)
	wantOp, wantPath, ok2 := splitScope(want)
	if !ok || !ok2 || haveOp != wantOp {
		return false
	}
	return havePath == "/" || wantPath == havePath || strings.HasPrefix(wantPath, havePath+"/")
}

// splitScope splits "operation:/path"; no path is "/".
func splitScope(s string) (op, path string, ok bool) {
	op, path, hasPath := strings.Cut(s, ":")
	if !hasPath {
		return op, "/", op != ""
	}
	if op == "" || !strings.HasPrefix(path, "/") || strings.Contains(path, "%") {
		return "", "", false
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." {
			return "", "", false
		}
	}
	if path != "/" {
		path = strings.TrimRight(path, "/")
	}
	return op, path, path != ""
}
