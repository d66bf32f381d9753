package testauth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		good, err := a.Certificate("localhost", "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		expired, err := a.CertificateValid(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour), "localhost")
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := NewAuthority()
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name  string
			cert  tls.Certificate
			trust *Authority
			host  string
			want  string
		}{
			{"name", good, a, "localhost", ""},
			{"address", good, a, "127.0.0.1", ""},
			{"other name", good, a, "kafka.example", "not kafka.example"},
			{"expired", expired, a, "localhost", "expired"},
			{"other authority", good, stranger, "localhost", "unknown authority"},
		} {
			func() {
				server, client := net.Pipe()
				go func() {
					s := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{tt.cert}})
					_ = s.Handshake()
					_ = s.Close()
				}()
				err := tls.Client(client, &tls.Config{RootCAs: tt.trust.Pool(), ServerName: tt.host}).Handshake()
				_ = client.Close()
				if got := errText(err); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
					t.Errorf("%s: handshake: %q, want %q", tt.name, got, tt.want)
				}
			}()
		}
	})
}

func TestServerPEM(t *testing.T) {
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Certificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	rest, err := ServerPEM(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(rest, rest); err != nil {
		t.Errorf("not a key pair: %v", err)
	}
	var kinds []string
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		kinds = append(kinds, b.Type)
	}
	if diff := cmp.Diff([]string{"PRIVATE KEY", "CERTIFICATE", "CERTIFICATE"}, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, err := NewIssuer("https://issuer.test")
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := NewIssuer("https://issuer.test")
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		for _, tt := range []struct {
			name   string
			issuer *Issuer
			claims Claims
			want   string
		}{
			{"defaults", issuer, Claims{}, ""},
			{"RSA", issuer, Claims{Algorithm: RS256}, ""},
			{"one audience of many", issuer, Claims{Audience: []string{"https://a.test", "https://kafka.test"}}, ""},
			{"last second", issuer, Claims{Expires: now.Add(time.Second)}, ""},
			{"expired", issuer, Claims{Expires: now}, "expired 0s ago"},
			{"early", issuer, Claims{NotBefore: now.Add(30 * time.Second)}, "not valid for another 30s"},
			{"audience", issuer, Claims{Audience: []string{"https://a.test"}}, "aud is"},
			{"no exp", issuer, Claims{Extra: map[string]any{"exp": nil}}, "no exp"},
			{"exp of another type", issuer, Claims{Extra: map[string]any{"exp": "soon"}}, "exp"},
			{"no iat", issuer, Claims{Extra: map[string]any{"iat": nil}}, "no iat"},
			{"no sub", issuer, Claims{Extra: map[string]any{"sub": nil}}, "no sub"},
			{"iss", issuer, Claims{Extra: map[string]any{"iss": "https://elsewhere.test"}}, "iss is"},
			{"signature", stranger, Claims{}, "key"},
		} {
			func() {
				token, err := tt.issuer.Token(tt.claims)
				if err != nil {
					t.Fatal(err)
				}
				_, err = issuer.Verify(token, "https://kafka.test", "ANY")
				if got := errText(err); (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
					t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
				}
			}()
		}
	})
}

func TestVerifyForms(t *testing.T) {
	issuer, err := NewIssuer("https://issuer.test")
	if err != nil {
		t.Fatal(err)
	}
	token, err := issuer.Token(Claims{Extra: map[string]any{"uid": "alice"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := issuer.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject != "alice" || got.Scope != "gracedb.read kafka.consume" || got.Extra["uid"] != "alice" || got.Extra["ver"] != "scitoken:2.0" {
		t.Errorf("claims: %+v", got)
	}
	if d := got.Expires.Sub(got.IssuedAt); d != 3*time.Hour {
		t.Errorf("valid for %v", d)
	}
	unsigned := "eyJhbGciOiJub25lIn0." + strings.Split(token, ".")[1] + "."
	for _, bad := range []string{"", "a.b", token + "\n", " " + token, unsigned, unsigned + "AA", `{"payload":""}`} {
		if _, err := issuer.Verify(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestRotate(t *testing.T) {
	issuer, err := NewIssuer("https://issuer.test")
	if err != nil {
		t.Fatal(err)
	}
	first, err := issuer.Token(Claims{})
	if err != nil {
		t.Fatal(err)
	}
	if err := issuer.Rotate(false); err != nil {
		t.Fatal(err)
	}
	second, err := issuer.Token(Claims{})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{first, second} {
		if _, err := issuer.Verify(token); err != nil {
			t.Error(err)
		}
	}
	if err := issuer.Rotate(true); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{first, second} {
		if _, err := issuer.Verify(token); err == nil {
			t.Error("a token of a dropped key is still good")
		}
	}
}

func TestPublicKeys(t *testing.T) {
	issuer, err := NewIssuer("https://issuer.test")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := issuer.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	keys, err := issuer.Keys()
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 2 || len(keys) != 2 {
		t.Fatalf("%d keys in the set, %d alone; want 2", len(set.Keys), len(keys))
	}
	for i, k := range keys {
		if set.Keys[i]["kid"] != k.ID || set.Keys[i]["alg"] != k.Algorithm || set.Keys[i]["d"] != "" {
			t.Errorf("key %d: %v, want %s %s and nothing private", i, set.Keys[i], k.ID, k.Algorithm)
		}
		block, _ := pem.Decode(k.PEM)
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			t.Error(err)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
