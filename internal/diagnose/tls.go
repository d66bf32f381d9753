package diagnose

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// renewBefore is when a certificate should have been renewed.
const renewBefore = 14 * 24 * time.Hour

// addTLS reports a handshake that succeeded.
func (r *report) addTLS(target string, took time.Duration, state *tls.ConnectionState) {
	if state == nil || len(state.PeerCertificates) == 0 {
		r.warn("tls", target, took, "the connection is not encrypted", "use TLS but on this machine")
		return
	}
	cert := state.PeerCertificates[0]
	authority, chain := cert.Issuer.CommonName, len(state.PeerCertificates)
	if len(state.VerifiedChains) > 0 {
		verified := state.VerifiedChains[0]
		authority, chain = verified[len(verified)-1].Subject.CommonName, len(verified)
	}
	end := cert.NotAfter
	for _, c := range state.PeerCertificates {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	detail := fmt.Sprintf("%s, certificate for %s until %s, authority %q, chain of %d", tls.VersionName(state.Version),
		namesOf(cert), end.UTC().Format(time.RFC3339), authority, chain)
	if left := time.Until(end); left < renewBefore {
		r.warn("tls", target, took, fmt.Sprintf("the certificate ends in %v: %s", left.Round(time.Minute), detail),
			"have the certificate renewed by whoever runs "+target)
		return
	}
	r.ok("tls", target, took, "%s", detail)
}

// namesOf returns the hosts that a certificate is for.
func namesOf(cert *x509.Certificate) string {
	names := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if more := len(names) - 4; more > 0 {
		names = append(names[:4], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// connectAdvice says what to do about a failure to connect to target.
func connectAdvice(err error, target string) string {
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	_, dns := errors.AsType[*net.DNSError](err)
	timeout, slow := errors.AsType[net.Error](err)
	switch {
	case authority:
		return "set CAFile to a file that holds the authority of " + target
	case name:
		return "use a name that the certificate is for, or have it made for this one"
	case isInvalid && invalid.Reason == x509.Expired:
		return "have the certificate renewed by whoever runs " + target + ", unless this machine's clock is wrong"
	case isInvalid:
		return "have the certificate made anew by whoever runs " + target
	case errors.Is(err, errs.Config):
		return "correct CAFile"
	case noTLS || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return "use the port where " + target + " speaks TLS"
	case dns:
		return "correct the name in the configuration, or this machine's DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start what should listen there, or correct the port"
	case slow && timeout.Timeout():
		return "look whether the host is up, and whether a firewall between drops packets to it"
	}
	return "ask whoever runs " + target
}
