package testauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// The signature algorithms of SciTokens.
const (
	ES256 = "ES256"
	RS256 = "RS256"
)

// An Issuer signs SciTokens and checks them, as cilogon.org does the one and a
// broker the other. It is safe for concurrent use.
type Issuer struct {
	url string

	mu   sync.Mutex
	keys []*signingKey // newest first; guarded by mu
}

type signingKey struct {
	id        string
	algorithm jwa.SignatureAlgorithm
	private   crypto.Signer
}

// Claims are what a token says.
type Claims struct {
	Subject  string   // sub; if empty, "alice"
	Audience []string // aud; if nil, "ANY"
	Scope    string   // scope, separated by spaces; if empty, "gracedb.read kafka.consume"
	// Times are cut to whole seconds in the token.
	IssuedAt  time.Time // iat; if zero, now
	NotBefore time.Time // nbf; if zero, IssuedAt
	Expires   time.Time // exp; if zero, three hours after IssuedAt
	// Extra adds claims or replaces those above, with a value of any type; nil
	// leaves the claim out.
	Extra map[string]any
	// Algorithm is ES256 or RS256; if empty, ES256, which is many times faster.
	Algorithm string
}

// A PublicKey is a key of the issuer as others know it.
type PublicKey struct {
	ID        string // kid
	Algorithm string
	PEM       []byte // SubjectPublicKeyInfo
}

// NewIssuer returns an Issuer whose tokens say iss = url. Nothing is ever fetched
// from there.
func NewIssuer(url string) (*Issuer, error) {
	i := &Issuer{url: url}
	if _, err := i.add(ES256); err != nil {
		return nil, err
	}
	return i, nil
}

// URL returns what the tokens say in iss.
func (i *Issuer) URL() string { return i.url }

// Token returns a signed token.
func (i *Issuer) Token(c Claims) (string, error) {
	payload, err := json.Marshal(i.payload(c))
	if err != nil {
		return "", fmt.Errorf("testauth: claims: %w", err)
	}
	algorithm := c.Algorithm
	if algorithm == "" {
		algorithm = ES256
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	key, err := i.current(algorithm)
	if err != nil {
		return "", err
	}
	headers := jws.NewHeaders()
	for name, value := range map[string]any{jws.KeyIDKey: key.id, jws.TypeKey: "JWT"} {
		if err := headers.Set(name, value); err != nil {
			return "", fmt.Errorf("testauth: token header %s: %w", name, err)
		}
	}
	token, err := jws.Sign(payload, jws.WithKey(key.algorithm, key.private, jws.WithProtectedHeaders(headers)))
	if err != nil {
		return "", fmt.Errorf("testauth: sign: %w", err)
	}
	return string(token), nil
}

func (i *Issuer) payload(c Claims) map[string]any {
	if c.Subject == "" {
		c.Subject = "alice"
	}
	if c.Audience == nil {
		c.Audience = []string{"ANY"}
	}
	if c.Scope == "" {
		c.Scope = "gracedb.read kafka.consume"
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = time.Now()
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = c.IssuedAt
	}
	if c.Expires.IsZero() {
		c.Expires = c.IssuedAt.Add(3 * time.Hour)
	}
	var aud any = c.Audience
	if len(c.Audience) == 1 {
		aud = c.Audience[0]
	}
	m := map[string]any{
		"iss": i.url, "sub": c.Subject, "aud": aud, "scope": c.Scope, "ver": "scitoken:2.0",
		"iat": c.IssuedAt.Unix(), "nbf": c.NotBefore.Unix(), "exp": c.Expires.Unix(), "jti": rand.Text(),
	}
	maps.Copy(m, c.Extra)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

// JWKS returns the public keys as a JSON Web Key Set: one of each algorithm, and
// those of before that Rotate has kept.
func (i *Issuer) JWKS() ([]byte, error) {
	if _, err := i.Keys(); err != nil {
		return nil, err
	}
	set, err := i.set()
	if err != nil {
		return nil, err
	}
	return json.Marshal(set)
}

// Keys returns the public keys, the newest first, for whoever needs them one by one.
func (i *Issuer) Keys() ([]PublicKey, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, algorithm := range []string{RS256, ES256} {
		if _, err := i.current(algorithm); err != nil {
			return nil, err
		}
	}
	var out []PublicKey
	for _, k := range i.keys {
		der, err := x509.MarshalPKIXPublicKey(k.private.Public())
		if err != nil {
			return nil, fmt.Errorf("testauth: public key %s: %w", k.id, err)
		}
		out = append(out, PublicKey{ID: k.id, Algorithm: k.algorithm.String(), PEM: pemBlock("PUBLIC KEY", der)})
	}
	return out, nil
}

// Rotate makes new keys and signs with them from now on. Tokens signed before
// stay good, unless dropOld.
func (i *Issuer) Rotate(dropOld bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.keys
	i.keys = nil
	for _, was := range slices.Backward(old) {
		if slices.ContainsFunc(i.keys, func(k *signingKey) bool { return k.algorithm == was.algorithm }) {
			continue
		}
		if _, err := i.add(was.algorithm.String()); err != nil {
			return err
		}
	}
	if !dropOld {
		i.keys = append(i.keys, old...)
	}
	return nil
}

// current returns the newest key of an algorithm. RSA keys take a while to make,
// so there is none before one is asked for. i.mu must be held.
func (i *Issuer) current(algorithm string) (*signingKey, error) {
	for _, k := range i.keys {
		if k.algorithm.String() == algorithm {
			return k, nil
		}
	}
	return i.add(algorithm)
}

// add makes a key. i.mu must be held, or i not be shared yet.
func (i *Issuer) add(algorithm string) (*signingKey, error) {
	k := &signingKey{id: "test-" + rand.Text()[:8], algorithm: jwa.SignatureAlgorithm(algorithm)}
	var err error
	switch algorithm {
	case ES256:
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = errors.New("unknown algorithm")
	}
	if err != nil {
		return nil, fmt.Errorf("testauth: %s key: %w", algorithm, err)
	}
	i.keys = slices.Insert(i.keys, 0, k)
	return k, nil
}

func (i *Issuer) set() (jwk.Set, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	set := jwk.NewSet()
	for _, k := range i.keys {
		key, err := jwk.FromRaw(k.private.Public())
		if err != nil {
			return nil, fmt.Errorf("testauth: key %s: %w", k.id, err)
		}
		for name, value := range map[string]any{
			jwk.KeyIDKey: k.id, jwk.AlgorithmKey: k.algorithm, jwk.KeyUsageKey: jwk.ForSignature,
		} {
			if err := key.Set(name, value); err != nil {
				return nil, fmt.Errorf("testauth: key %s: %w", k.id, err)
			}
		}
		if err := set.AddKey(key); err != nil {
			return nil, fmt.Errorf("testauth: key %s: %w", k.id, err)
		}
	}
	return set, nil
}
