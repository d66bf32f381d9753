// Package token finds SciTokens where IGWN users keep them, reads them without
// being held up or deceived, and ranks them by their claims. It never verifies a
// signature: only who receives a token can say what it is worth.
//
// Nothing here puts a token, or a part of one, into an error or a warning.
package token

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// MaxLen is the length in bytes of the longest token accepted.
const MaxLen = 16 << 10

// Claims are what a token says of itself. The texts are as in the token: clean
// them before showing them.
type Claims struct {
	Issuer, Subject string    // "" if absent or not a text
	Audience        []string  // nil if absent or anything but a text or texts
	Scopes          []string  // the elements of Scope
	Scope           string    // the scope (or scp) claim; a list is joined by spaces
	Expires         time.Time // exp, in whole seconds; zero if absent
	NotBefore       time.Time // the later of nbf and iat; zero if both are absent

	// anyAudience: for whoever takes it, either by saying so, or by having
	// neither an aud nor a ver claim, as before SciTokens 2.0.
	anyAudience bool
}

// A ParseError says why a text is not a token to use. It holds no part of the text.
type ParseError struct{ Why string }

// Error returns Why.
func (e *ParseError) Error() string { return e.Why }

func bad(why string) error { return &ParseError{why} }

// Parse reads the claims of raw, which must be a token in compact form and nothing
// else: no white space, no prefix, no padding. It reports a *ParseError for
// everything else, for a signature of the wrong length (a token cut short, as by
// a write that is under way), and for a time that is none. An expired token is no
// error.
func Parse(raw string) (Claims, error) {
	if err := checkShape(raw); err != nil {
		return Claims{}, err
	}
	// Behind the gate: jws alone would also take JSON, inner newlines, padding and
	// an empty signature.
	msg, err := jws.Parse([]byte(raw), jws.WithCompact())
	if err != nil || len(msg.Signatures()) != 1 {
		return Claims{}, bad("not a token: its header or payload cannot be read")
	}
	alg := msg.Signatures()[0].ProtectedHeaders().Algorithm()
	if err := checkSignature(alg, raw[strings.LastIndexByte(raw, '.')+1:]); err != nil {
		return Claims{}, err
	}
	return parseClaims(msg.Payload())
}

// checkShape is the gate: three non-empty segments of base64url text, no more.
func checkShape(raw string) error {
	switch {
	case raw == "":
		return errEmpty
	case len(raw) > MaxLen:
		return bad("longer than a token can be (16 KiB)")
	case isVaultToken(raw):
		return bad("not a bearer token but a Vault token, which htgettoken gets one with: take the file that it writes then (bt_u<uid>, not vt_u<uid>)")
	}
	dots, segment := 0, 0
	for i := range len(raw) {
		c := raw[i]
		switch {
		case c == '.':
			if segment == 0 {
				return bad("not a token: an empty segment")
			}
			dots, segment = dots+1, 0
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			segment++
		default:
			return bad("not a token: " + diagnose(raw))
		}
	}
	switch {
	case dots != 2:
		return bad("not a token: it must have three segments with dots between")
	case segment == 0:
		return bad("not a token: the signature is missing")
	}
	return nil
}

// isVaultToken reports whether raw is one of HashiCorp Vault's: of a service, a batch or
// a recovery, of today's form or that of before version 1.10.
func isVaultToken(raw string) bool {
	kind, rest, _ := strings.Cut(raw, ".")
	switch kind {
	case "hvs", "hvb", "hvr":
		return true
	case "s", "b", "r":
		return len(rest) >= 24 && !strings.Contains(rest, ".")
	}
	return false
}

// diagnose names the usual mistakes that leave other characters in a token.
func diagnose(raw string) string {
	lower := strings.ToLower(raw[:min(len(raw), 16)])
	switch {
	case strings.HasPrefix(lower, "bearer "):
		return `remove "Bearer " before it`
	case strings.HasPrefix(lower, "export ") || strings.HasPrefix(lower, "bearer_token="):
		return "it is a shell assignment"
	case strings.HasPrefix(raw, "\ufeff"):
		return "it begins with a byte order mark"
	case raw[0] == '"' || raw[0] == '\'':
		return "remove the quotes around it"
	case raw[0] == '{':
		return "it is JSON without an access_token"
	case strings.HasPrefix(raw, "-----BEGIN"):
		return "it is a PEM file"
	case strings.ContainsAny(raw, "\r\n"):
		return "it has more than one line"
	}
	return "it holds a character that no token has"
}

// signatureLen has the length in bytes of the signatures of fixed length.
var signatureLen = map[jwa.SignatureAlgorithm]int{
	jwa.ES256: 64, jwa.ES256K: 64, jwa.ES384: 96, jwa.ES512: 132, jwa.EdDSA: 64,
	jwa.HS256: 32, jwa.HS384: 48, jwa.HS512: 64,
}

// checkSignature compares the length of the signature with the algorithm, which
// is all that tells a token from one cut within its signature.
func checkSignature(alg jwa.SignatureAlgorithm, signature string) error {
	n := len(signature) / 4 * 3
	switch len(signature) % 4 {
	case 1:
		return errCut
	case 2, 3:
		n += len(signature)%4 - 1
	}
	switch alg {
	case jwa.RS256, jwa.RS384, jwa.RS512, jwa.PS256, jwa.PS384, jwa.PS512:
		// As long as the key: 2048 bits or more, in practice a multiple of 512.
		if n < 256 || n%64 != 0 {
			return errCut
		}
		return nil
	}
	want, known := signatureLen[alg]
	switch {
	case !known:
		return bad("not a signed token")
	case n != want:
		return errCut
	}
	return nil
}

var (
	errEmpty = bad("empty")
	errCut   = bad("not a token: the signature is cut short or damaged")
)

func parseClaims(payload []byte) (Claims, error) {
	// A map, because a struct's fields would match "Exp" as well as "exp".
	var claims map[string]json.RawMessage
	if !utf8.Valid(payload) || json.Unmarshal(payload, &claims) != nil || claims == nil {
		return Claims{}, bad("not a token: its payload is not a JSON object")
	}
	c := Claims{
		Issuer:   text(claims["iss"]),
		Subject:  text(claims["sub"]),
		Audience: texts(claims["aud"]),
	}
	var err error
	if c.Expires, err = date(claims, "exp"); err != nil {
		return Claims{}, err
	}
	for _, name := range []string{"nbf", "iat"} {
		t, err := date(claims, name)
		if err != nil {
			return Claims{}, err
		}
		if t.After(c.NotBefore) {
			c.NotBefore = t
		}
	}
	c.Scope = strings.Join(texts(cmpOr(claims["scope"], claims["scp"])), " ")
	for element := range strings.SplitSeq(c.Scope, " ") {
		if element != "" {
			c.Scopes = append(c.Scopes, element)
		}
	}
	_, hasAudience := claims["aud"]
	_, hasVersion := claims["ver"]
	c.anyAudience = !hasAudience && !hasVersion
	for _, a := range c.Audience {
		if a == "ANY" || a == "https://wlcg.cern.ch/jwt/v1/any" {
			c.anyAudience = true
		}
	}
	return c, nil
}

func cmpOr(a, b json.RawMessage) json.RawMessage {
	if a != nil {
		return a
	}
	return b
}

// text returns the text that v is, or "".
func text(v json.RawMessage) (s string) {
	if len(v) == 0 || v[0] != '"' || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// texts returns the text or the list of texts that v is, or nil.
func texts(v json.RawMessage) []string {
	if len(v) == 0 {
		return nil
	}
	if v[0] == '"' {
		return []string{text(v)}
	}
	var list []*string // pointers, since null would pass for ""
	if v[0] != '[' || json.Unmarshal(v, &list) != nil {
		return nil
	}
	var out []string
	for _, s := range list {
		if s == nil {
			return nil
		}
		out = append(out, *s)
	}
	return out
}

// maxDate is the end of the year 9999.
const maxDate = 253402300799

// date returns the claim called name, a number of seconds, rounded down; the zero
// time if there is none.
func date(claims map[string]json.RawMessage, name string) (time.Time, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, nil
	}
	var seconds float64
	switch {
	case v[0] == '"', v[0] == 'n', json.Unmarshal(v, &seconds) != nil, seconds < 0:
		return time.Time{}, bad(name + " claim is not a time")
	case 1e12 <= seconds && seconds < 1e13: // from 2001 to 2286
		return time.Time{}, bad(name + " claim is in milliseconds, and must be in seconds: whoever issues the token has to mend it")
	case seconds > maxDate:
		return time.Time{}, bad(name + " claim is not a time")
	}
	return time.Unix(int64(seconds), 0), nil
}
