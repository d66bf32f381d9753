package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A tokenFile is a file with a token that is valid.
type tokenFile struct {
	path   string
	life   time.Duration // of each token; if zero, three hours
	issuer *testauth.Issuer
}

// write puts a new token into the file. Readers find the old one or the new one,
// and nobody else finds either.
func (t tokenFile) write() error {
	var claims testauth.Claims
	if t.life != 0 {
		claims.Expires = time.Now().Add(t.life)
	}
	token, err := t.issuer.Token(claims)
	if err != nil {
		return err
	}
	next := t.path + ".next"
	if err := os.WriteFile(next, []byte(token+"\n"), 0o600); err != nil {
		return fmt.Errorf("demo: token file: %w", err)
	}
	if err := os.Rename(next, t.path); err != nil {
		return fmt.Errorf("demo: token file: %w", err)
	}
	return nil
}

// read is a gracedb.TokenSource. FindToken would do as much and more, but might
// find a token elsewhere, which is no business of embedded services.
func (t tokenFile) read(context.Context) (string, error) {
	b, err := os.ReadFile(t.path)
	return strings.TrimSpace(string(b)), err
}

// An issuer is a testauth.Issuer whose keys can be had where its tokens say. The
// Python client fetches them before it sends a token to GraceDB.
type issuer struct {
	*testauth.Issuer
	server *http.Server
	done   chan struct{}
}

func startIssuer(ctx context.Context, authority *testauth.Authority) (*issuer, error) {
	certificate, err := authority.Certificate("localhost", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: issuer: %w", err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	url := "https://localhost:" + port
	i := &issuer{done: make(chan struct{})}
	if i.Issuer, err = testauth.NewIssuer(url); err != nil {
		_ = l.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`+"\n", url, url+"/jwks")
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		keys, err := i.JWKS()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(keys)
	})
	i.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	go func() {
		defer close(i.done)
		_ = i.server.ServeTLS(l, "", "") // ends with ErrServerClosed
	}()
	return i, nil
}

func (i *issuer) close() {
	_ = i.server.Close()
	<-i.done
}
