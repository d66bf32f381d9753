#!/usr/bin/env bash
# net/http of Go 1.26.8: a request whose length is known goes out in one write or in two, by the type of its body's reader.
#
# A request with a body from bytes.NewReader leaves in one write. The same bytes from another reader, with
# Request.ContentLength set to the same number, leave in two: the head is flushed alone, before the body is read, and so
# are a packet and a TLS record of their own. It is not the length that decides, which is known in both, but whether the
# reader is one of three types. Whoever wraps a small body, to count or to log it, pays for that.
#
# Seen (reader: writes of one POST with a body of 300 bytes):
#   bytes.Reader: 1
#   io.MultiReader of one bytes.Reader: 2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOTOOLCHAIN=go1.26.8 GOFLAGS=-mod=mod
cat >go.mod <<'EOP'
module ask

go 1.26
EOP
cat >main.go <<'EOP'
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
)

// A counted is a connection that counts its writes.
type counted struct {
	net.Conn
	writes *int
}

func (c counted) Write(b []byte) (int, error) {
	*c.writes++
	return c.Conn.Write(b)
}

func main() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.ContentLength != 300 {
			panic("not the request that was made")
		}
	}))
	defer server.Close()
	for _, body := range []struct {
		name   string
		reader io.Reader
	}{
		{"bytes.Reader", bytes.NewReader(make([]byte, 300))},
		{"io.MultiReader of one bytes.Reader", io.MultiReader(bytes.NewReader(make([]byte, 300)))},
	} {
		writes := 0
		client := http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				return counted{conn, &writes}, err
			},
		}}
		req, err := http.NewRequest(http.MethodPost, server.URL, body.reader)
		if err != nil {
			panic(err)
		}
		req.ContentLength = 300
		resp, err := client.Do(req)
		if err != nil {
			panic(err)
		}
		resp.Body.Close()
		fmt.Printf("%s: %d\n", body.name, writes)
	}
}
EOP
go run . | tee seen
diff seen - <<'EOP'
bytes.Reader: 1
io.MultiReader of one bytes.Reader: 2
EOP
