package testauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jws"
)

// compactToken is what Kafka's own parser lets through, three segments of base64url.
var compactToken = regexp.MustCompile(`^[-_A-Za-z0-9]+\.[-_A-Za-z0-9]+\.[-_A-Za-z0-9]+$`)

// Verify checks a token as Apache Kafka does with no clock skew, and, if audiences are
// given, with them as sasl.oauthbearer.expected.audience.
func (i *Issuer) Verify(token string, audiences ...string) (Claims, error) {
	return i.VerifyAt(time.Now(), 0, token, audiences...)
}

// VerifyAt is Verify by a clock that shows now and may be wrong by skew. The numbers in
// its errors are those in the log of Kafka 4.3.1, whose rules these are: audiences and
// issuers are compared as texts, exp and iat are required and have to be numbers, iat is
// held against exp only, and a scope must not be empty, nor listed twice.
func (i *Issuer) VerifyAt(now time.Time, skew time.Duration, token string, audiences ...string) (Claims, error) {
	payload, err := i.open(token)
	if err != nil {
		return Claims{}, err
	}
	var m map[string]any
	if err := json.Unmarshal(payload, &m); err != nil {
		return Claims{}, fmt.Errorf("testauth: token: claims: %w", err)
	}
	c := Claims{Audience: list(m["aud"]), Scope: strings.Join(list(m["scope"]), " ")}
	c.Subject, _ = m["sub"].(string)
	c.Subject = strings.TrimSpace(c.Subject)
	for name, at := range map[string]*time.Time{"exp": &c.Expires, "iat": &c.IssuedAt, "nbf": &c.NotBefore} {
		switch v := m[name].(type) {
		case nil:
		case float64:
			*at = time.Unix(int64(v), 0)
		default:
			return Claims{}, fmt.Errorf("testauth: token: [18] %s is no number", name)
		}
	}
	if err := c.check(now, skew, i.url, m, audiences); err != nil {
		return Claims{}, fmt.Errorf("testauth: token: %w", err)
	}
	c.Extra = m
	for _, name := range []string{"iss", "sub", "aud", "scope", "exp", "iat", "nbf", "jti"} {
		delete(c.Extra, name)
	}
	return c, nil
}

func (c Claims) check(now time.Time, skew time.Duration, issuer string, m map[string]any, audiences []string) error {
	_, hasScope := m["scope"]
	scopes := list(m["scope"])
	switch {
	case m["iss"] != issuer:
		return fmt.Errorf("[12] iss is %q, want %q", m["iss"], issuer)
	case c.Expires.IsZero():
		return errors.New("[2] no exp")
	case c.IssuedAt.IsZero():
		return errors.New("[3] no iat")
	case !now.Add(-skew).Before(c.Expires):
		return fmt.Errorf("[1] expired %v ago", now.Sub(c.Expires))
	case now.Add(skew).Before(c.NotBefore):
		return fmt.Errorf("[6] not valid for another %v", c.NotBefore.Sub(now))
	case c.IssuedAt.After(c.Expires):
		return errors.New("[17] iat is later than exp")
	case len(audiences) > 0 && m["aud"] == nil:
		return errors.New("[7] no aud")
	case len(audiences) > 0 && !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(audiences, a) }):
		return fmt.Errorf("[8] aud is %q, want one of %q", c.Audience, audiences)
	case c.Subject == "":
		return errors.New("no sub")
	case hasScope && slices.ContainsFunc(scopes, func(s string) bool { return strings.TrimSpace(s) == "" }):
		return errors.New("an empty scope")
	}
	slices.Sort(scopes)
	if len(slices.Compact(slices.Clone(scopes))) < len(scopes) {
		return errors.New("a scope is listed twice")
	}
	return nil
}

// list returns the text or the texts that v is.
func list(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v {
			s, _ := e.(string)
			out = append(out, s)
		}
		return out
	}
	return nil
}

// open returns the payload of a token that a key of the set has signed: the one that the
// token names, or, if it names none, the first of its algorithm.
func (i *Issuer) open(token string) ([]byte, error) {
	if !compactToken.MatchString(token) {
		return nil, errors.New("testauth: not a compact JWT")
	}
	msg, err := jws.ParseString(token)
	if err != nil || len(msg.Signatures()) != 1 {
		return nil, errors.New("testauth: token cannot be read")
	}
	head := msg.Signatures()[0].ProtectedHeaders()
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, k := range i.keys {
		if k.algorithm == head.Algorithm() && (head.KeyID() == "" || head.KeyID() == k.id) {
			payload, err := jws.Verify([]byte(token), jws.WithKey(k.algorithm, k.private.Public()))
			if err != nil {
				return nil, fmt.Errorf("testauth: token: signature: %w", err)
			}
			return payload, nil
		}
	}
	return nil, fmt.Errorf("testauth: token: no key %q of %s", head.KeyID(), head.Algorithm())
}
