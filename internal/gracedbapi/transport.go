package gracedbapi

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/tlsroots"
)

var versionAtEnd = regexp.MustCompile(`/v[0-9]+/*$`)

// parseServiceURL checks where the token would be sent to, for a version of the API.
func parseServiceURL(s, version string) (*url.URL, error) {
	bad := func(format string, args ...any) error {
		return errs.New([]error{errs.Config}, "ClientConfig: ServiceURL: "+format, args...)
	}
	if s == "" {
		return nil, bad(`it is required, such as "https://gracedb.ligo.org/api/"`)
	}
	// No text repeats s before it is known to hold no password.
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return nil, bad("it has spaces: remove them")
	}
	if !strings.Contains(s, "://") && !strings.HasPrefix(s, "/") {
		return nil, bad("it has no scheme: write https:// before the host")
	}
	u, err := url.Parse(s)
	if err != nil {
		// Its text would repeat a password that s may hold.
		return nil, bad("it is not a URL")
	}
	switch {
	case u.User != nil:
		return nil, bad("user and password do not belong into it")
	case u.Hostname() == "":
		return nil, bad("%q has no host", errs.Clean(s))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, bad("%q has a query or a fragment", errs.Clean(s))
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, bad("%q is not https", errs.Clean(s))
	case u.Scheme == "http" && !tlsroots.IsLoopback(u.Hostname()):
		return nil, bad("%q would show the token to the network: use https", errs.Clean(s))
	case versionAtEnd.MatchString(u.Path) && version != "default":
		return nil, bad("%q ends in a version of the API: give the root, such as %q, and another version than v2 as APIVersion",
			errs.Clean(s), errs.Clean(u.Scheme+"://"+u.Host+versionAtEnd.ReplaceAllString(u.Path, "/")))
	}
	return u.JoinPath("/"), nil
}

// newHTTPClient returns a copy of given, or if that is nil a client of this package's own.
func newHTTPClient(given *http.Client, trust *tlsroots.Authorities) *http.Client {
	h := http.Client{Timeout: 60 * time.Second}
	if given != nil {
		h = *given
	} else {
		h.Transport = newTransport(trust)
	}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &h
}

// newTransport returns a transport of this package's own: what others have made of
// http.DefaultTransport, such as switching the check of certificates off, must not
// decide where the token goes. It speaks HTTP/1 only: there a call that ends takes its
// connection with it, while one of HTTP/2 works on for as long as the server likes.
func newTransport(trust *tlsroots.Authorities) http.RoundTripper {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: checkProxy,
		Protocols:              new(http.Protocols),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		// As many callers that publish at once keep their connections; net/http's default is 2.
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 64 << 10,
	}
	t.Protocols.SetHTTP1(true)
	if trust.HasFile() {
		return newTrustingTransport(t, trust)
	}
	return t
}

// A trustingTransport sends requests to whom the authorities vouch for. When these
// change, it goes on with another http.Transport, whose pool cannot be changed.
type trustingTransport struct {
	trust *tlsroots.Authorities

	mu  sync.Mutex
	now *http.Transport
}

func newTrustingTransport(base *http.Transport, trust *tlsroots.Authorities) *trustingTransport {
	base.TLSClientConfig = &tls.Config{RootCAs: trust.Pool(), MinVersion: tls.VersionTLS12}
	return &trustingTransport{trust: trust, now: base}
}

func (t *trustingTransport) transport() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// RoundTrip sends req, once more if the handshake failed because the CA file has
// changed: nothing of it was sent then.
func (t *trustingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	used := t.transport()
	resp, err := used.RoundTrip(req)
	if err == nil {
		return resp, nil
	}
	pool := t.trust.Renewed(req.Context(), used.TLSClientConfig.RootCAs, err)
	if pool == nil || req.Body != nil && req.GetBody == nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.with(pool).RoundTrip(again)
}

// with returns the transport that trusts pool.
func (t *trustingTransport) with(pool *x509.CertPool) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now.TLSClientConfig.RootCAs != pool {
		old := t.now
		t.now = old.Clone()
		t.now.TLSClientConfig.RootCAs = pool
		old.CloseIdleConnections()
	}
	return t.now
}

// CloseIdleConnections is for http.Client's method of that name.
func (t *trustingTransport) CloseIdleConnections() { t.transport().CloseIdleConnections() }
