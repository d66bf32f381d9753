package gracedbapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// An Info is the root document of a GraceDB server: what it is and what it knows. A list
// that the server does not give is nil.
type Info struct {
	ServerVersion string
	APIVersions   []string
	Groups        []string
	Pipelines     []string
	Searches      []string
	Labels        []string
	Links         map[string]string // URLs by name, such as "events"
	Templates     map[string]string // URLs with placeholders such as {graceid}, by name
}

// An infoCache lets one caller fetch the root document while the others wait, each no
// longer than its own ctx. If the ctx of the caller that fetches ends, the next one fetches:
// no call fails because another one had little time.
type infoCache struct {
	known    atomic.Pointer[Info]
	fetching chan struct{}               // holds one element while a caller fetches
	failed   atomic.Pointer[infoFailure] // the last fetch that failed, other than by its ctx
}

// An infoFailure is the error that all callers get who waited for one fetch.
type infoFailure struct{ err error }

// ServiceInfo returns the cached document, which must not be changed.
func (c *Client) ServiceInfo(ctx context.Context) (*Info, error) {
	if info := c.info.known.Load(); info != nil {
		return info, nil
	}
	before := c.info.failed.Load()
	select {
	case c.info.fetching <- struct{}{}:
		defer func() { <-c.info.fetching }()
	case <-ctx.Done():
		return nil, errs.New([]error{ctx.Err()}, "GET %s: %s", showURL(c.root), errs.Reason(ctx.Err()))
	}
	if info := c.info.known.Load(); info != nil {
		return info, nil
	}
	if f := c.info.failed.Load(); f != before {
		return nil, f.err // failed while this caller waited for it
	}
	info, err := c.fetchInfo(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.info.failed.Store(&infoFailure{err})
		}
		return nil, err
	}
	c.info.known.Store(info)
	return info, nil
}

func (c *Client) fetchInfo(ctx context.Context) (*Info, error) {
	a, err := c.do(ctx, exchange{
		method: http.MethodGet, url: c.root, repeatable: true,
		notFound: "is ServiceURL right? It usually ends in /api/",
	})
	if err != nil {
		if a.status == http.StatusNotFound && c.root != c.service {
			return nil, c.badVersion(ctx, err)
		}
		return nil, err
	}
	info, err := decodeInfo(a.body)
	if err != nil {
		return nil, a.unexpected("%s", errs.Reason(err))
	}
	if len(info.Links)+len(info.Templates)+len(info.Groups)+len(info.Pipelines) == 0 {
		// Kept, some other JSON would make every event of this client fail.
		return nil, a.unexpected("is no root document of GraceDB: %q", excerpt(a.body))
	}
	return info, nil
}

// badVersion explains a 404 of the versioned root by what the unversioned one says.
func (c *Client) badVersion(ctx context.Context, notFound error) error {
	a, err := c.do(ctx, exchange{method: http.MethodGet, url: c.service, repeatable: true})
	if err != nil {
		return notFound
	}
	info, err := decodeInfo(a.body)
	if err != nil {
		return notFound
	}
	if len(info.APIVersions) == 0 {
		return errs.New([]error{errs.Config, notFound},
			`%s has no versions of its API: set APIVersion to "default"`, showURL(c.service))
	}
	return errs.New([]error{errs.Config, notFound}, "%s has no API version %q: it has %s", showURL(c.service),
		strings.Trim(strings.TrimPrefix(c.root.Path, c.service.Path), "/"), errs.Clean(strings.Join(info.APIVersions, ", ")))
}

// decodeInfo reads a root document. What it does not hold stays empty; what it
// holds in another form is an error.
func decodeInfo(body []byte) (*Info, error) {
	doc, err := decodeObject(body)
	if err != nil {
		return nil, fmt.Errorf("is not a JSON object: %q", excerpt(body))
	}
	var info Info
	var links, templates map[string]any
	for _, part := range []struct {
		name string
		into any
	}{
		{"server-version", &info.ServerVersion},
		{"API_VERSIONS", &info.APIVersions},
		{"api-versions", &info.APIVersions},
		{"groups", &info.Groups},
		{"pipelines", &info.Pipelines},
		{"searches", &info.Searches},
		{"labels", &info.Labels},
		{"links", &links},
		{"templates", &templates},
	} {
		raw, ok := doc[part.name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, part.into); err != nil {
			return nil, fmt.Errorf("has %q in another form than expected: %q", part.name, excerpt(raw))
		}
	}
	info.Links, info.Templates = stringsIn(links), stringsIn(templates)
	info.clean()
	return &info, nil
}

// clean makes what a server has said of itself fit to be shown. Links stay as they are,
// to be judged as such, but one that holds a token leads nowhere.
func (info *Info) clean() {
	clean := func(s string) string { return errs.CleanN(s, errs.MaxLook) }
	info.ServerVersion = clean(info.ServerVersion)
	for _, list := range [][]string{info.APIVersions, info.Groups, info.Pipelines, info.Searches, info.Labels} {
		for i, name := range list {
			list[i] = clean(name)
		}
	}
	for _, m := range []*map[string]string{&info.Links, &info.Templates} {
		cleaned := make(map[string]string, len(*m))
		for name, value := range *m {
			cleaned[clean(name)] = errs.WithoutTokens(value)
		}
		*m = cleaned
	}
}

// stringsIn returns the members of m that are strings.
func stringsIn(m map[string]any) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		if s, ok := v.(string); ok {
			out[k] = s
		}
	}
	return out
}

// A ValidEvent is an event that Check has found right, as it is sent.
type ValidEvent struct {
	Event
	ContentID string // for whoever checks it to fill in
	info      *Info  // that it was checked with
}

// Check returns e as it is sent, or what is wrong with it. It sends nothing of it.
func (c *Client) Check(ctx context.Context, e Event) (ValidEvent, error) {
	e, err := e.checkLocally()
	if err != nil {
		return ValidEvent{}, err
	}
	info, err := c.ServiceInfo(ctx)
	if err != nil {
		return ValidEvent{}, err
	}
	if err := e.checkNames(info); err != nil {
		return ValidEvent{}, err
	}
	if e.Pipeline == "MBTA" && !strings.Contains(e.Filename, ".xml") {
		c.log.WarnContext(ctx, "gracedb: GraceDB will store this file without reading it: of MBTA, it reads files with .xml in their names only",
			"filename", e.Filename)
	}
	return ValidEvent{Event: e, info: info}, nil
}

// linkURL returns a link of the root document.
func (c *Client) linkURL(info *Info, name string) (*url.URL, error) {
	raw, ok := info.Links[name]
	if !ok {
		return nil, errs.New(nil, "the root document of %s has no link %q", showURL(c.root), name)
	}
	return c.resolve(name, raw)
}

// templateURL returns a template of the root document with graceID, if not empty, in
// its place.
func (c *Client) templateURL(info *Info, name, graceID string) (*url.URL, error) {
	raw, ok := info.Templates[name]
	if !ok {
		return nil, errs.New([]error{errors.ErrUnsupported},
			"%s does not reserve graceids: its root document has no %q", showURL(c.root), name)
	}
	if graceID != "" {
		expanded, err := expandTemplate(raw, graceID)
		if err != nil {
			return nil, err
		}
		raw = expanded
	}
	return c.resolve(name, raw)
}

// resolve makes a URL of what the root document says, which must not lead the
// token elsewhere.
func (c *Client) resolve(name, raw string) (*url.URL, error) {
	u, err := c.root.Parse(raw)
	if err != nil || u.Opaque != "" {
		return nil, errs.New(nil, "the root document of %s: %s is not a URL: %q", showURL(c.root), name, errs.Clean(raw))
	}
	if u.User != nil || !sameOrigin(u, c.service) {
		return nil, errs.New(nil, "the root document of %s: %s leads to %s, which is refused: it is not %s://%s", showURL(c.root),
			name, errs.Clean(u.Scheme+"://"+u.Host), c.service.Scheme, c.service.Host)
	}
	u.Fragment = ""
	return u, nil
}
