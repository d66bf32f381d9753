// Package testauth makes what tests and the demo need in order to trust and to be
// trusted: a certificate authority, and an issuer of SciTokens.
package testauth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// An Authority is a certificate authority that was made a moment ago and that
// nobody else trusts. Its certificates are valid around the time of their making,
// so in a synctest bubble make it inside the bubble. It is safe for concurrent use.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// Certificates begin a day before they are made, for clocks that are tested
// while wrong, and outlive any simulation.
const (
	validSince = 24 * time.Hour
	validFor   = 10 * 365 * 24 * time.Hour
)

// NewAuthority returns an Authority with a key of its own.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("testauth: authority key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "gracedb test authority"},
		NotBefore:             now.Add(-validSince),
		NotAfter:              now.Add(validFor),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("testauth: authority certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("testauth: authority certificate: %w", err)
	}
	return &Authority{certificate: certificate, key: key, pem: pemBlock("CERTIFICATE", der)}, nil
}

// PEM returns the authority's certificate, as a CA file has it.
func (a *Authority) PEM() []byte { return bytes.Clone(a.pem) }

// Pool returns a pool that trusts this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Certificate returns a server certificate, with its key and this authority's
// certificate behind it, for hosts, which are names or IP addresses.
func (a *Authority) Certificate(hosts ...string) (tls.Certificate, error) {
	now := time.Now()
	return a.CertificateValid(now.Add(-validSince), now.Add(validFor), hosts...)
}

// CertificateValid is Certificate with a validity of the caller's: expired, or not
// begun, if that is what is to be tested.
func (a *Authority) CertificateValid(notBefore, notAfter time.Time, hosts ...string) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, fmt.Errorf("testauth: a certificate needs a host")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("testauth: key for %s: %w", hosts[0], err)
	}
	serial, err := newSerial()
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: hosts[0]},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("testauth: certificate for %s: %w", hosts[0], err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("testauth: certificate for %s: %w", hosts[0], err)
	}
	return tls.Certificate{
		Certificate: [][]byte{der, a.certificate.Raw},
		PrivateKey:  key,
		Leaf:        leaf,
	}, nil
}

// ServerPEM returns c's PKCS#8 private key and then its chain, leaf first: the PEM
// keystore of Apache Kafka, which takes no password.
func ServerPEM(c tls.Certificate) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("testauth: server key: %w", err)
	}
	out := pemBlock("PRIVATE KEY", key)
	for _, der := range c.Certificate {
		out = append(out, pemBlock("CERTIFICATE", der)...)
	}
	return out, nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("testauth: serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}
