package gracedbapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// advice returns what to do about an answer that is not the one hoped for; "" if that
// is not known.
func (a *answer) advice() string {
	if a.status/100 == 2 {
		if strings.Contains(a.header.Get("Content-Type"), "html") || bytes.HasPrefix(bytes.TrimSpace(a.body), []byte("<")) {
			return "a page instead of data: is ServiceURL right, or does a login stand before it?"
		}
		return ""
	}
	if advice := ruleFor(a.status, false).advice; advice != nil {
		return advice(a)
	}
	return ""
}

// tokenAdvice says of a token what it says itself, and, if it was refused, why, as far
// as that can be seen here: GraceDB has one text for all that is wrong with a token.
func (a *answer) tokenAdvice() string {
	var b strings.Builder
	now, host := time.Now(), a.x.url.Hostname()
	if refusesToken(a.status, a.body) {
		wanted := tokenQueryFor(host)
		b.WriteString("GraceDB says the same of every token that it does not take: ")
		switch faults := wanted.Faults(a.claims, now); {
		case len(a.claims.Scopes)+len(a.claims.Audience) == 0 && a.claims.Subject == "":
		case len(faults) > 0:
			b.WriteString(strings.Join(faults, "; ") + "; ")
		default:
			b.WriteString("its issuer or its sub may be unknown there, or the clocks differ; ")
		}
	}
	b.WriteString(token.WhatItSays(a.token, token.Describe(a.token, host, now)))
	return errs.CleanN(b.String(), errs.MaxText)
}

// TokenQuery returns what the GraceDB of c wants of a token.
func (c *Client) TokenQuery() token.Query { return tokenQueryFor(c.service.Hostname()) }

// tokenQueryFor returns what a GraceDB on a host wants of a token.
func tokenQueryFor(host string) token.Query {
	return token.Query{Audience: []string{"https://" + host, host}, Scopes: []string{"gracedb.read"}}
}

// explain puts with the failure of a try to get an answer what to do about it.
func (c *Client) explain(a *answer, err error) error {
	op, proxied := errors.AsType[*net.OpError](err)
	proxied = proxied && op.Op == "proxyconnect"
	err = c.trust.Explain(err, "a wrong ServiceURL")
	dns, named := errors.AsType[*net.DNSError](err)
	switch {
	case a.away && c.trust.Given && c.proxy(a.x.url) != "":
		return fmt.Errorf("by way of %s, the proxy that ClientConfig.HTTP uses: %w", c.proxy(a.x.url), err)
	case proxied && c.trust.Given:
		return fmt.Errorf("the proxy that ClientConfig.HTTP uses: %w", err)
	case proxied:
		return fmt.Errorf("the proxy of $HTTPS_PROXY cannot be used (set NO_PROXY if GraceDB can be reached without): %w", err)
	case named && dns.IsNotFound:
		return fmt.Errorf("%w: is ServiceURL right?", err)
	case a.away && errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: GraceDB is away, or ServiceURL is wrong", err)
	}
	return err
}

// proxy returns the host and port of the proxy to u; "" if there is none, or none is known
// of.
func (c *Client) proxy(u *url.URL) string {
	t, ok := c.HTTP.Transport.(*http.Transport)
	if !ok || t.Proxy == nil {
		return ""
	}
	proxy, err := t.Proxy(&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: make(http.Header)})
	if err != nil || proxy == nil {
		return ""
	}
	return errs.Clean(proxy.Host)
}

// A proxyRefusal is what a proxy answers that does not let a connection through. It
// is the proxy's own and no answer of GraceDB's.
type proxyRefusal struct {
	proxy  string // host and port
	status int
}

func (e *proxyRefusal) Error() string {
	return fmt.Sprintf("the proxy %s of $HTTPS_PROXY refused: %d %s (set NO_PROXY if GraceDB can be reached without)",
		e.proxy, e.status, http.StatusText(e.status))
}

// lasts reports whether the proxy will say the same again: its 5xx mean that it does
// not reach GraceDB, which may be restarting.
func (e *proxyRefusal) lasts() bool { return e.status < http.StatusInternalServerError }

// checkProxy is a Transport's OnProxyConnectResponse.
func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyRefusal{errs.Clean(proxy.Host), resp.StatusCode}
}

// dialProblem reports whether err will be the same however often one tries.
func dialProblem(err error) bool {
	if proxy, ok := errors.AsType[*proxyRefusal](err); ok {
		return proxy.lasts()
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return true
	}
	_, cert := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return cert || alert || errors.Is(err, http.ErrSchemeMismatch)
}
