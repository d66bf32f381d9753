package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gracedb-go/gracedb/internal/clock"
	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/tlsroots"
)

// A dialFunc opens a connection, as the Dial of Cluster does.
type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// A dialer connects to brokers: TCP, then TLS, so that no byte of SASL is written to a
// peer that is not verified.
type dialer struct {
	tcp       dialFunc
	brokers   []string // of the configuration: other addresses are what brokers call each other
	allowed   []string // TokenHosts
	plaintext bool
	skipName  bool // SkipHostnameVerification
	trust     *tlsroots.Authorities
	redials   redials
	openings  openings
}

// dialer returns the function that connects to a broker. ctx bounds the reading of
// the CA file.
func (c Config) dialer(ctx context.Context) (dialFunc, error) {
	d := c.newDialer()
	var err error
	if d.trust, err = tlsroots.Load(ctx, c.CAFile, c.Log()); err != nil {
		return nil, err
	}
	if d.skipName {
		c.Log().Warn("gracedb: broker host names are not verified (SkipHostnameVerification)")
	}
	return d.dial, nil
}

// newDialer returns a dialer that trusts nobody yet.
func (c Config) newDialer() *dialer {
	d := &dialer{
		tcp: c.Dial, brokers: c.Brokers, allowed: c.TokenHosts, plaintext: c.Plaintext, skipName: c.SkipHostnameVerification,
		redials: redials{failed: make(map[string]time.Time)}, openings: newOpenings(c.Brokers),
	}
	if d.tcp == nil {
		d.tcp = (&net.Dialer{}).DialContext
	}
	return d
}

// Reasons not to connect to an address that a broker has named.
var (
	errNotAllowed = errors.New("a broker calls a broker so, but TokenHosts does not allow it: put its host or domain there, if it is one of yours")
	errPlaintext  = errors.New("plaintext to a host that is not on the loopback interface")
)

func (d *dialer) dial(caller context.Context, network, address string) (_ net.Conn, err error) {
	if err := cmp.Or(over(caller), d.redials.wait(caller, address)); err != nil {
		return nil, newDialError(address, fmt.Errorf("%w: %w", errNotDialed, err))
	}
	done, err := d.takeTurn(caller, address)
	if err != nil {
		return nil, newDialError(address, fmt.Errorf("%w, since %d other connections are being opened: %w", errNotDialed, maxOpenings, err))
	}
	// The engine bounds a connection that it makes itself, and not this: without
	// a bound a peer that accepts and is silent would be waited for for ever.
	ctx, cancel := context.WithTimeout(caller, dialTimeout)
	defer cancel()
	defer func() {
		done(err == nil)
		d.redials.note(address, err == nil)
	}()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, newDialError(address, err)
	}
	if !d.mayBeShown(host) {
		return nil, newDialError(address, errNotAllowed)
	}
	// A broker on the loopback interface may advertise another host: the
	// token must not follow it there in the clear.
	if d.plaintext && !tlsroots.IsLoopback(host) {
		return nil, newDialError(address, errPlaintext)
	}
	trusted := d.trust.Pool()
	conn, err := d.open(ctx, network, address, host, trusted)
	if err != nil {
		if trusted = d.trust.Renewed(ctx, trusted, err); trusted != nil {
			conn, err = d.open(ctx, network, address, host, trusted)
		}
	}
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil && caller.Err() == nil:
		err = fmt.Errorf("no answer within %v (%s): %w", dialTimeout, isMute, os.ErrDeadlineExceeded)
	case errors.Is(caller.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("no answer before its caller's time was over (%s): %w", isMute, os.ErrDeadlineExceeded)
	}
	return nil, newDialError(address, d.reason(address, err))
}

// takeTurn waits until a connection to address may be opened, for at most turnTimeout:
// the engine may have chosen this broker for a request that others can answer too.
func (d *dialer) takeTurn(ctx context.Context, address string) (done func(made bool), err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	return d.openings.begin(ctx, address)
}

// mayBeShown reports whether the token may be shown to host.
func (d *dialer) mayBeShown(host string) bool {
	if len(d.allowed) == 0 {
		return true
	}
	host = hostName(host)
	for _, b := range d.brokers {
		if own, _, err := net.SplitHostPort(b); err == nil && hostName(own) == host {
			return true
		}
	}
	return slices.ContainsFunc(d.allowed, func(allowed string) bool {
		allowed = hostName(allowed)
		return host == allowed || strings.HasPrefix(allowed, ".") && strings.HasSuffix(host, allowed) && len(host) > len(allowed)
	})
}

// isMute is what to look at when a broker says nothing at all.
const isMute = "is there a firewall between, or is the broker overloaded?"

// hostName returns the one form of a name or address that has several.
func hostName(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// reason says what to look at when address cannot be connected to, and where its name comes from,
// if no caller wrote it: a broker that is reached by one name may have another as its advertised
// listener.
func (d *dialer) reason(address string, err error) error {
	configured := slices.Contains(d.brokers, address)
	if errors.Is(err, syscall.ECONNREFUSED) {
		if configured {
			return fmt.Errorf("%w (the broker is down, or Brokers has a wrong port)", err)
		}
		return fmt.Errorf("%w (the broker is down)", err)
	}
	if _, ok := errors.AsType[*net.DNSError](err); !ok {
		return err
	}
	if configured {
		return fmt.Errorf("%w (check Brokers)", err)
	}
	return fmt.Errorf("the broker reached at %s calls itself %s, which cannot be found here (its advertised.listeners, or this machine's DNS): %w",
		strings.Join(d.brokers, " or "), address, err)
}

// errNotDialed says nothing of the network: the request's ctx, such as of one that has
// waited for a token, had ended before anything was tried.
var errNotDialed = errors.New("not tried")

// open connects to a broker whose authority must be one of trusted, or of the
// system's if that is nil.
func (d *dialer) open(ctx context.Context, network, address, host string, trusted *x509.CertPool) (net.Conn, error) {
	conn, err := d.tcp(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if d.plaintext {
		return &pacedConn{Conn: conn, raw: conn, addr: address}, nil
	}
	secure := tls.Client(conn, d.tlsConfig(host, trusted))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's failure is what matters
		return nil, d.tlsReason(err)
	}
	return &pacedConn{Conn: secure, raw: conn, addr: address}, nil
}

// tlsConfig is for a broker called host, whose authority must be one of trusted.
func (d *dialer) tlsConfig(host string, trusted *x509.CertPool) *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trusted, ServerName: host}
	if d.skipName {
		skipHostname(conf)
	}
	return conf
}

// A redials keeps tries to connect to an address apart once one has failed. The engine
// (v1.22.2) pauses before it sends a message again, but not while it has another for the
// same broker whose context has ended: if connecting fails at once, it would spin.
type redials struct {
	mu     sync.Mutex           // guards failed
	failed map[string]time.Time // by address: when the last try did
}

// redialPause is no longer than the engine's own pauses, which mostly do.
const redialPause = 50 * time.Millisecond

// wait returns when it is time to try.
func (r *redials) wait(ctx context.Context, address string) error {
	r.mu.Lock()
	at := r.failed[address]
	r.mu.Unlock()
	return clock.Sleep(ctx, redialPause-time.Since(at))
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

// newDialError returns the error of a connection to address, which brokers name.
func newDialError(address string, err error) *dialError {
	return &dialError{errs.WithoutTokens(address), errs.Veil(err)}
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

// tlsReason says what to do about a certificate that is not good, and about a peer
// without TLS.
func (d *dialer) tlsReason(err error) error {
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if isText(e.RecordHeader[0]) {
			return fmt.Errorf("%w: %w", notKafka(e.RecordHeader[:]), err)
		}
		return fmt.Errorf("the broker does not speak TLS on this port: %w", e)
	}
	if _, lost := errors.AsType[syscall.Errno](err); lost || errors.Is(err, io.EOF) {
		return fmt.Errorf("TLS handshake: %w (a broker without TLS on this port?)", err)
	}
	if said := d.trust.Explain(err, "a wrong address, or SkipHostnameVerification in development"); said != err { //nolint:errorlint // is it the same
		return said
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

// A pacedConn applies a write deadline to every piece of a large write, so that
// the deadline means "no progress" and a slow link can carry a large event.
type pacedConn struct {
	net.Conn
	raw      net.Conn     // below TLS
	addr     string       // of the broker
	heard    bool         // something has been read
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
	if n > 0 && !c.heard {
		c.heard = true
		if isText(b[0]) {
			return 0, newDialError(c.addr, notKafka(b[:n]))
		}
	}
	if err != nil && err != io.EOF { //nolint:errorlint // io.ReadFull compares it so, too
		err = connError{err}
	}
	return n, err
}

// isText reports whether a peer that begins with b speaks in text: as the first byte of
// an answer's length, b would mean half a GiB or more.
func isText(b byte) bool { return ' ' <= b && b <= '~' }

// notKafka is the error of a peer that begins with text.
func notKafka(said []byte) error {
	protocol := "another protocol"
	if bytes.HasPrefix(said, []byte("HTTP")) || said[0] == '<' {
		protocol = "HTTP"
	}
	return fmt.Errorf("this port speaks %s, not Kafka: it says %q", protocol, said[:min(len(said), 16)])
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
