package gracedb_test

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/gracetest"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// services are the embedded broker and GraceDB that the examples run against. A
// program names real ones instead.
type services struct {
	brokers    []string
	serviceURL string
	caFile     string
	token      gracedb.TokenSource
	stop       func()
}

func startServices() (services, error) {
	authority, err := testauth.NewAuthority()
	if err != nil {
		return services{}, err
	}
	issuer, err := testauth.NewIssuer("https://issuer.test")
	if err != nil {
		return services{}, err
	}
	server, err := gracetest.Start(gracetest.Config{Authority: authority, Issuer: issuer})
	if err != nil {
		return services{}, err
	}
	broker, err := kafkatest.Start(kafkatest.Config{
		Authority: authority, Issuer: issuer,
		Topics: map[string]int{"localhost.test": 1, "localhost.gstlal": 1},
	})
	if err != nil {
		server.Close()
		return services{}, err
	}
	token, err := issuer.Token(testauth.Claims{Subject: "albert.einstein@ligo.org"})
	if err != nil {
		return services{}, err
	}
	dir, err := os.MkdirTemp("", "gracedb-example")
	if err != nil {
		return services{}, err
	}
	caFile := filepath.Join(dir, "ca.pem")
	return services{
		brokers: broker.Addrs(), caFile: caFile,
		// The host's first label names the instance.
		serviceURL: strings.Replace(server.URL(), "127.0.0.1", "localhost", 1),
		token:      gracedb.StaticToken(token),
		stop: func() {
			broker.Close()
			server.Close()
			_ = os.RemoveAll(dir)
		},
	}, os.WriteFile(caFile, authority.PEM(), 0o600)
}
