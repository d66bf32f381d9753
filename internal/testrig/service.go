package testrig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A Service is a GraceDB and a Client of it.
type Service struct {
	*gracetest.Server
	Client *gracedb.Client
	Bearer string // the token of Client
}

// NewService starts a server and makes a client of it; edit, if not nil, changes
// how the client is configured.
func NewService(t testing.TB, cfg gracetest.Config, edit func(*gracedb.ClientConfig)) *Service {
	t.Helper()
	s, err := gracetest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	token, err := s.Token(testauth.Claims{})
	if err != nil {
		t.Fatal(err)
	}
	h := s.HTTPClient()
	t.Cleanup(h.CloseIdleConnections)
	cc := gracedb.ClientConfig{ServiceURL: s.URL(), HTTP: h, Token: TokenIs(token)}
	if edit != nil {
		edit(&cc)
	}
	return &Service{Server: s, Client: NewClient(t, cc), Bearer: token}
}

// NewClient makes a Client, whose configuration is right.
func NewClient(t testing.TB, cc gracedb.ClientConfig) *gracedb.Client {
	t.Helper()
	c, err := gracedb.NewClient(cc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TokenIs returns a source of one token.
func TokenIs(token string) gracedb.TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// Event returns an event that the server knows all names of.
func Event() gracedb.Event {
	return gracedb.Event{
		Group: "CBC", Pipeline: "gstlal", Search: "AllSky", Labels: []string{"INJ", "DQV"},
		Filename: "coinc.xml", Data: []byte(gracetest.Readable),
	}
}

// InBubble runs f with a service on a network in memory, where time is virtual.
func InBubble(t *testing.T, cfg gracetest.Config, edit func(*gracedb.ClientConfig), f func(*testing.T, *Service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Virtual, cfg.Plain = true, true
		f(t, NewService(t, cfg, edit))
	})
}

// Call makes one request of a kind, with all that it needs made before.
func (s *Service) Call(ctx context.Context, kind string) error {
	switch kind {
	case "root":
		_, err := s.Client.ServiceInfo(ctx)
		return err
	case "reserve":
		_, err := s.Client.Reserve(ctx, Event())
		return err
	case "create":
		_, err := s.Client.CreateEvent(ctx, Event())
		return err
	case "upload":
		r, err := s.Client.Reserve(ctx, Event())
		if err != nil {
			return fmt.Errorf("not the upload, the reservation before it: %w", err)
		}
		_, err = s.Client.UploadReservedEvent(ctx, r.GraceID, Event(), gracedb.Provenance{})
		return err
	}
	panic(kind)
}

// WantPosts fails unless the server got that many of each.
func (s *Service) WantPosts(t *testing.T, reserve, upload, create int) {
	t.Helper()
	if r, u, c := s.Count("reserve"), s.Count("upload"), s.Count("create"); r != reserve || u != upload || c != create {
		t.Errorf("%d reservations, %d uploads, %d creations; want %d, %d, %d", r, u, c, reserve, upload, create)
	}
}

// ContentIDOf computes a content_id independently of internal/wire.
func ContentIDOf(b []byte) string {
	id := sha256.Sum256(b)
	s := hex.EncodeToString(id[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:32]
}
