package gracedb

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// parseServiceURL checks where the token would be sent to.
func parseServiceURL(s string) (*url.URL, error) {
	bad := func(format string, args ...any) error {
		return fail([]error{ErrConfig}, "ClientConfig: ServiceURL: "+format, args...)
	}
	if s == "" {
		return nil, bad(`it is required, such as "https://gracedb.ligo.org/api/"`)
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
		return nil, bad("%q has no host", cleanText(s))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, bad("%q has a query or a fragment", cleanText(s))
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, bad("%q is not https", cleanText(s))
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, bad("%q would show the token to the network: use https", cleanText(s))
	}
	return u.JoinPath("/"), nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func newHTTPClient(cfg ClientConfig, trust *authorities) *http.Client {
	h := http.Client{Timeout: 60 * time.Second}
	if cfg.HTTP != nil {
		h = *cfg.HTTP
	} else {
		h.Transport = newTransport(trust)
	}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &h
}

func newTransport(trust *authorities) http.RoundTripper {
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok && trust.file == "" {
		return http.DefaultTransport // somebody's instrumentation
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
	if ok {
		t = standard.Clone()
	}
	// Callers that publish at once keep their connections, where two would be kept.
	t.MaxIdleConnsPerHost = 16
	t.MaxResponseHeaderBytes = 64 << 10
	if trust.file != "" {
		return newTrustingTransport(t, trust)
	}
	return t
}
