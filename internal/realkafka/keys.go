//go:build unix

package realkafka

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A keyServer shows the brokers the issuer's keys of the moment.
type keyServer struct {
	url    string
	server *http.Server
}

func serveKeys(ctx context.Context, issuer *testauth.Issuer) (*keyServer, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("realkafka: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set, err := issuer.JWKS()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(set))
	})
	go func() { _ = server.Serve(l) }()
	return &keyServer{url: "http://" + l.Addr().String() + "/keys", server: server}, nil
}

func (s *keyServer) close() error { return s.server.Close() }
