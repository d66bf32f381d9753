package gracedb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// dialer returns the function that connects to a broker: TCP through c.Dial,
// then TLS, so that no byte of SASL is written to a peer that is not verified.
func (c Cluster) dialer() (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	plaintext := c.Plaintext
	redials := redials{failed: make(map[string]time.Time)}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pool, err := loadCAFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = pool
	}
	if c.SkipHostnameVerification {
		skipHostname(conf)
		c.logger().Warn("gracedb: broker host names are not verified (SkipHostnameVerification)")
	}
	return func(caller context.Context, network, address string) (made net.Conn, err error) {
		// The engine bounds a connection that it makes itself, and not this: without
		// a bound a peer that accepts and is silent would be waited for for ever.
		ctx, cancel := context.WithTimeout(caller, dialTimeout)
		defer cancel()
		if err := redials.wait(ctx, address); err != nil {
			return nil, &dialError{address, err}
		}
		defer func() { redials.note(address, err == nil) }()
		silent := func(err error) error {
			if ctx.Err() == nil || caller.Err() != nil {
				return err
			}
			return fmt.Errorf("no answer within %v: %w", dialTimeout, os.ErrDeadlineExceeded)
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, &dialError{address, err}
		}
		// A broker on the loopback interface may advertise another host: the
		// token must not follow it there in the clear.
		if plaintext && !isLoopback(host) {
			return nil, &dialError{address, errors.New("plaintext to a host that is not on the loopback interface")}
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, &dialError{address, silent(err)}
		}
		if plaintext {
			return &pacedConn{Conn: conn, raw: conn}, nil
		}
		peer := conf.Clone()
		peer.ServerName = host
		secure := tls.Client(conn, peer)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake's failure is what matters
			return nil, &dialError{address, silent(tlsReason(err))}
		}
		return &pacedConn{Conn: secure, raw: conn}, nil
	}, nil
}

// A redials keeps tries to connect to an address apart once one has failed. The engine
// (v1.22.2) pauses before it sends a message again, but not while it has another for the
// same broker whose context has ended: if connecting fails at once, it would spin.
type redials struct {
	mu     sync.Mutex
	failed map[string]time.Time // by address: when the last try did
}

// redialPause is no longer than the engine's own pauses, which mostly do.
const redialPause = 50 * time.Millisecond

// wait returns when it is time to try.
func (r *redials) wait(ctx context.Context, address string) error {
	r.mu.Lock()
	at := r.failed[address]
	r.mu.Unlock()
	return sleep(ctx, redialPause-time.Since(at))
}

func (r *redials) note(address string, made bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if made {
		delete(r.failed, address)
		return
	}
	if len(r.failed) >= maxAddresses {
		clear(r.failed)
	}
	r.failed[address] = time.Now()
}

// A dialError is a failed connection. The engine is told that it is temporary:
// which of them last is decided by whoever waits, and no queued message fails
// because a broker restarts with yesterday's certificate.
type dialError struct {
	addr string
	err  error
}

func (e *dialError) Error() string   { return fmt.Sprintf("%s: %s", e.addr, e.err) }
func (e *dialError) Unwrap() error   { return e.err }
func (e *dialError) Temporary() bool { return true }

// isAway reports whether it looks as if the broker were restarting: not so if its name
// is unknown or its certificate wrong.
func (e *dialError) isAway() bool {
	_, refused := errors.AsType[syscall.Errno](e.err)
	return refused || isTimeout(e.err) || errors.Is(e.err, io.EOF)
}

// tlsReason says what to do about the two failures that are often taken for each
// other, a wrong name and a wrong authority, and about a peer without TLS.
func tlsReason(err error) error {
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("the certificate is for another host name (a wrong address, or SkipHostnameVerification in development): %w", e)
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("the certificate's authority is not trusted (set CAFile to the right one): %w", e)
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("the broker does not speak TLS on this port: %w", e)
	}
	return fmt.Errorf("TLS handshake: %w", err)
}

// skipHostname makes conf accept any host name of a certificate whose chain is
// good. VerifyConnection also runs on resumed sessions, unlike
// VerifyPeerCertificate.
func skipHostname(conf *tls.Config) {
	conf.InsecureSkipVerify = true //nolint:gosec // the chain is verified just below
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		opts := x509.VerifyOptions{Roots: conf.RootCAs, Intermediates: x509.NewCertPool()}
		for _, cert := range cs.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		_, err := cs.PeerCertificates[0].Verify(opts)
		return err
	}
}

// loadCAFile reads a PEM file of authorities.
func loadCAFile(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fail([]error{ErrConfig, err}, "CAFile: %s", reason(err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fail([]error{ErrConfig}, "CAFile: %s holds no PEM certificate", cleanText(path))
	}
	return pool, nil
}

// A pacedConn applies a write deadline to every piece of a large write, so that
// the deadline means "no progress" and a slow link can carry a large event.
type pacedConn struct {
	net.Conn
	raw      net.Conn     // below TLS
	patience atomic.Int64 // a Duration
}

// A connError is a failed read or write. As with a dialError, the engine is told
// that it is temporary: what TLS or a caller's Dial makes of a lost connection is
// not always known to it, and then it would fail queued messages.
type connError struct{ error }

func (e connError) Unwrap() error { return e.error }
func (connError) Temporary() bool { return true }

func (c *pacedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && err != io.EOF { //nolint:errorlint // io.ReadFull compares it so, too
		err = connError{err}
	}
	return n, err
}

// Close does not wait for TLS to say goodbye, which a mute peer would delay by 5
// seconds for each connection. Kafka's frames tell where they end.
func (c *pacedConn) Close() error { return c.raw.Close() }

const writePiece = 64 << 10

func (c *pacedConn) SetWriteDeadline(t time.Time) error {
	var patience time.Duration
	if !t.IsZero() {
		patience = max(time.Until(t), time.Millisecond)
	}
	c.patience.Store(int64(patience))
	return c.Conn.SetWriteDeadline(t)
}

func (c *pacedConn) Write(b []byte) (int, error) {
	written := 0
	for piece := range slices.Chunk(b, writePiece) {
		if patience := time.Duration(c.patience.Load()); written > 0 && patience > 0 {
			if err := c.Conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
				return written, connError{err}
			}
		}
		n, err := c.Conn.Write(piece)
		written += n
		if err != nil {
			return written, connError{err}
		}
	}
	return written, nil
}
