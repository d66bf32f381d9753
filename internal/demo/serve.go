package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// serve is the command of that name.
func serve(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var cfg embeddedConfig
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.IntVar(&cfg.kafkaPort, "kafka-port", 0, "`port` of the Kafka broker; 0 is a free one")
	fs.IntVar(&cfg.gracedbPort, "gracedb-port", 0, "`port` of GraceDB; 0 is a free one")
	fs.DurationVar(&cfg.tokenLife, "token-life", time.Hour, "life of a token; the next one is there at half time")
	if err := parse(fs, args, stdout, "demo serve [flags]    until Ctrl-C"); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return badUsage("serve: it takes no arguments besides flags, such as %q", fs.Arg(0))
	case cfg.kafkaPort < 0 || cfg.kafkaPort > 65535:
		return badUsage("serve: -kafka-port %d is not a port", cfg.kafkaPort)
	case cfg.gracedbPort < 0 || cfg.gracedbPort > 65535:
		return badUsage("serve: -gracedb-port %d is not a port", cfg.gracedbPort)
	case cfg.tokenLife < 10*time.Second:
		return badUsage("serve: -token-life %v is under 10s", cfg.tokenLife)
	}
	e, err := startEmbedded(ctx, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop
		}
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.announce(stdout); err != nil {
		return err
	}
	return e.serve(ctx, cfg.tokenLife/2, stdout, stderr)
}

// serve renews the token and tells what the supervisor does.
func (e *embedded) serve(ctx context.Context, renewal time.Duration, stdout, stderr io.Writer) error {
	renew := time.NewTicker(renewal)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-renew.C:
			if err := e.token.write(); err != nil {
				// The old one is good for as long again, and then this is tried again.
				fmt.Fprintln(stderr, err)
			}
		case u, ok := <-e.uploads:
			switch {
			case ctx.Err() != nil:
				return nil
			case !ok:
				return errSupervisor
			}
			what := plain(u.graceID) + " is in GraceDB"
			if u.err != nil {
				what = "not uploaded: " + u.err.Error()
			}
			if _, err := fmt.Fprintf(stdout, "# %s %s\n", time.Now().Format(time.TimeOnly), what); err != nil {
				return fmt.Errorf("demo: %w", err)
			}
		}
	}
}

// shellQuoted returns s as a shell takes it for one word, as it is: in quotes only where
// it needs them, so that others than shells can read the usual values too.
func shellQuoted(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// announce says how to reach e. What it writes can be read by a shell, and stands
// in a file too.
func (e *embedded) announce(stdout io.Writer) error {
	var b strings.Builder
	// Found before BEARER_TOKEN_FILE, they would be sent instead.
	b.WriteString("unset SCITOKEN SCITOKEN_FILE _CONDOR_CREDS BEARER_TOKEN\n")
	for _, v := range [][2]string{
		{"KAFKA_BROKER", e.kafka.Addrs()[0]},
		{"TEST_SERVICE", e.url},
		{"KAFKA_CA_CERT", e.caFile},
		{"REQUESTS_CA_BUNDLE", e.caFile},
		{"SSL_CERT_FILE", e.caFile},
		{"BEARER_TOKEN_FILE", e.token.path},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuoted(v[1]))
	}
	script := filepath.Join(e.dir, "env.sh")
	if strings.ContainsFunc(script, unicode.IsControl) {
		return fmt.Errorf("demo: the directory %q has control characters: set another TMPDIR", e.dir)
	}
	if err := os.WriteFile(script, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	_, err := fmt.Fprintf(stdout, `# A Kafka broker (TLS, OAUTHBEARER) and a GraceDB with its supervisor are up until Ctrl-C.
# The topics are localhost.<pipeline>: %[1]s.
# In another terminal say
#     source %[2]s
# which is
%[3]s# and there, for example,
#     go run ./internal/demo stream -brokers $KAFKA_BROKER -service $TEST_SERVICE -ca "$KAFKA_CA_CERT" -from-beginning test
#     go run ./internal/demo -brokers $KAFKA_BROKER -service $TEST_SERVICE -ca "$KAFKA_CA_CERT" testdata/events/coinc.xml
# or the Python client: it fetches the token issuer's keys with SSL_CERT_FILE and keeps them in
# XDG_CACHE_HOME or ~/.cache, so that another XDG_CACHE_HOME leaves yours alone.
`, strings.Join(pipelines, ", "), shellQuoted(script), b.String())
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}
