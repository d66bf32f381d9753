package kafkatest

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A verdict is a Login before kfake has confirmed it.
type verdict struct {
	Login
	expires time.Time
}

// A no is what a refused client gets to hear: one or the other, or nothing at all.
type no struct{ challenge, direct string }

// The client's first message, RFC 7628 with the characters that Kafka takes.
var (
	firstMessage = regexp.MustCompile("^n,(?:a=((?:[\x01-\x2b\x2d-\x3c\x3e-\x7f]|=2C|=3D)+))?,\x01((?:[A-Za-z]+=[\x21-\x7e \t\r\n]+\x01)*)\x01$")
	bearerToken  = regexp.MustCompile(`^(\w+) +([-_.a-zA-Z0-9]+)$`)
)

const invalidCredentials = "Authentication failed during authentication due to invalid credentials with SASL mechanism OAUTHBEARER"

// judge reads the client's first message and looks at the token in it. before is
// who the connection belongs to already, or empty.
func (c *Cluster) judge(message []byte, before string) (verdict, *no) {
	var v verdict
	authzid, scheme, token := readFirst(message)
	switch {
	case token == "":
		v.Refused = "malformed first message"
		return v, &no{direct: invalidCredentials}
	case !strings.EqualFold(scheme, "bearer"):
		v.Refused = "scheme " + scheme
		return v, &no{} // a mistake of Kafka's own on the way to its answer
	}
	claims, err := c.verify(token)
	if err != nil {
		v.Refused = err.Error()
		return v, &no{challenge: Refusal{}.json()}
	}
	v.Subject, v.expires = claims.Subject, claims.Expires
	if r := c.logins.refuses(token, claims); r != nil {
		v.Refused = r.json()
		if r.Direct {
			return v, &no{direct: invalidCredentials}
		}
		return v, &no{challenge: v.Refused}
	}
	switch {
	case authzid != "" && authzid != v.Subject:
		v.Refused = fmt.Sprintf("Authentication failed: Client requested an authorization id (%s) that is different from the token's principal name (%s)", authzid, v.Subject)
	case before != "" && before != v.Subject:
		v.Refused = fmt.Sprintf("Cannot change principals during re-authentication from User.%s: User.%s", before, v.Subject)
	default:
		return v, nil
	}
	return v, &no{direct: v.Refused}
}

// readFirst returns what a first message holds, and no token if it is malformed.
func readFirst(message []byte) (authzid, scheme, token string) {
	m := firstMessage.FindSubmatch(message)
	if m == nil {
		return "", "", ""
	}
	for pair := range strings.SplitSeq(string(m[2]), "\x01") {
		if key, value, _ := strings.Cut(pair, "="); key == "auth" {
			if t := bearerToken.FindStringSubmatch(value); t != nil {
				return string(m[1]), t[1], t[2]
			}
		}
	}
	return "", "", ""
}

func (c *Cluster) verify(token string) (testauth.Claims, error) {
	return c.cfg.Issuer.VerifyAt(time.Now(), c.cfg.ClockSkew, token, c.cfg.Audiences...)
}

// refuses returns the refusal that a good token meets, or nil.
func (l *logins) refuses(token string, claims testauth.Claims) *Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.refusal
	if r == nil || r.Match != nil && !r.Match(token, claims) {
		return nil
	}
	if r.Count == 1 {
		l.refusal = nil
	} else if r.Count > 1 {
		r.Count--
	}
	now := *r
	return &now
}

func (r Refusal) json() string {
	status := r.Status
	if status == "" {
		status = "invalid_token"
	}
	b := fmt.Appendf(nil, `{"status":%q`, status)
	if r.Scope != "" {
		b = fmt.Appendf(b, `,"scope":%q`, r.Scope)
	}
	if r.OpenIDConfiguration != "" {
		b = fmt.Appendf(b, `,"openid-configuration":%q`, r.OpenIDConfiguration)
	}
	return string(append(b, '}'))
}
