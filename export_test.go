package gracedb

import (
	"net/http"
	"net/url"
)

// SetProxy gives c, which has a transport of its own, a proxy as from the environment.
// net/http reads the environment once for a process, and never uses a proxy for this
// machine.
func SetProxy(c *Client, proxy *url.URL) {
	c.api.HTTP.Transport.(*http.Transport).Proxy = http.ProxyURL(proxy)
}
