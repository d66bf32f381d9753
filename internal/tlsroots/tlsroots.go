// Package tlsroots knows to whom a token may be shown: to whoever the certificate authorities of
// a CA file, or else the system's, vouch for, and to this machine. A CA file that has changed is
// read again when a handshake fails. It starts no goroutine.
package tlsroots

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/logonce"
	"github.com/gracedb-go/gracedb/internal/token"
)

// An Authorities is whom a client trusts to sign certificates: those of a CA file, or
// the system's. It is safe for concurrent use.
type Authorities struct {
	file string // "" for the system's
	// Given says that a http.Client of the caller's decides, whatever stands here. Whoever
	// made the Authorities sets it, before it is used.
	Given bool
	log   *slog.Logger

	mu   sync.Mutex
	pool *x509.CertPool // nil for the system's
	sum  [sha256.Size]byte
	said logonce.Recently
}

// maxCAFile bounds a CA file; the bundles of systems have about 250 KiB.
const maxCAFile = 8 << 20

// Load reads file, unless that is "". Its errors are ErrConfig, or ctx's.
func Load(ctx context.Context, file string, log *slog.Logger) (*Authorities, error) {
	a := &Authorities{file: file, log: log}
	if file == "" {
		return a, nil
	}
	pool, sum, err := a.read(ctx, [sha256.Size]byte{})
	if err != nil {
		is := []error{err, errs.Config}
		if ctx.Err() != nil {
			is = is[:1]
		}
		return nil, errs.New(is, "CAFile %s: %s", errs.Clean(file), errs.Reason(err))
	}
	a.pool, a.sum = pool, sum
	return a, nil
}

// HasFile reports whether they are those of a CA file, which may change.
func (a *Authorities) HasFile() bool { return a.file != "" }

// read returns what the file holds, and no pool if that has the sum known.
func (a *Authorities) read(ctx context.Context, known [sha256.Size]byte) (*x509.CertPool, [sha256.Size]byte, error) {
	pem, mode, err := token.ReadFile(ctx, a.file, maxCAFile)
	sum := sha256.Sum256(pem)
	if err != nil || sum == known {
		return nil, sum, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, sum, errors.New("no certificate in PEM form")
	}
	if token.WritableByOthers(mode) {
		logonce.Warn(a.log, fmt.Sprintf("gracedb: the CA file %s may be changed by other users (mode %#o), who could take the token with it: chmod o-w it",
			errs.Clean(a.file), mode.Perm()))
	}
	return pool, sum, nil
}

// Pool returns the pool to verify with; nil for the system's.
func (a *Authorities) Pool() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pool
}

// Renewed returns other authorities than was, if a handshake that trusted these has
// failed with err, and the CA file has changed since it was read; or nil.
func (a *Authorities) Renewed(ctx context.Context, was *x509.CertPool, err error) *x509.CertPool {
	if a.file == "" || !isDistrust(err) {
		return nil
	}
	a.mu.Lock()
	known := a.sum
	a.mu.Unlock()
	pool, sum, err := a.read(ctx, known)
	if err != nil && ctx.Err() == nil && !a.said.Already(err.Error()) {
		// It may be half written: the next handshake that fails looks again.
		a.log.Warn("gracedb: the CA file cannot be read again; what it held before stays in use", "file", errs.Clean(a.file), "err", errs.Reason(err))
	}
	a.mu.Lock()
	now := a.pool
	if now == was && pool != nil {
		a.pool, a.sum = pool, sum
	}
	a.mu.Unlock()
	switch {
	case now != was: // read for another handshake meanwhile
		return now
	case pool != nil: // without the lock: a handler may send its records to these brokers
		a.log.Info("gracedb: the CA file has changed and was read again", "file", errs.Clean(a.file))
	}
	return pool
}

// isDistrust reports whether a handshake failed with err because no authority vouches
// for the peer, or one that is not valid itself.
func isDistrust(err error) bool {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	return unknown || invalid
}

// Explain puts before the failure of a handshake what to do about it. whatName says
// what to do about a name that is not the certificate's.
func (a *Authorities) Explain(err error, whatName string) error {
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		if c := e.Certificate; len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) == 0 {
			return fmt.Errorf("the certificate names no host (it lacks subject alternative names, which have replaced the common name: it has to be made anew): %w", err)
		}
		return fmt.Errorf("the certificate is for another host name (%s): %w", whatName, err)
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, none := errors.AsType[x509.SystemRootsError](err)
	switch {
	case !unknown && !none:
		return err
	case a.Given:
		return fmt.Errorf("the certificate's authority is not one that ClientConfig.HTTP trusts (it is for its Transport's TLSClientConfig.RootCAs): %w", err)
	case a.file != "":
		return fmt.Errorf("the certificate's authority is not in CAFile %s: %w", errs.Clean(a.file), err)
	case none || hasNoAuthorities():
		return fmt.Errorf("this machine has no certificate authorities (install ca-certificates, or set SSL_CERT_FILE or CAFile): %w", err)
	}
	return fmt.Errorf("the certificate's authority is not trusted (set CAFile to a file that has it): %w", err)
}

// hasNoAuthorities reports whether the system trusts nobody, which is no error to
// crypto/x509, as in a container without the package ca-certificates.
func hasNoAuthorities() bool {
	system, err := x509.SystemCertPool()
	return err != nil || system.Equal(x509.NewCertPool())
}

// IsLoopback reports whether host is this machine, to which a token may go without TLS.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
