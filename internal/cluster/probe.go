package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/tlsroots"
)

// A Prober connects to brokers as a Client does, and tells of each step. It is safe for
// concurrent use.
type Prober struct {
	dialer *dialer
	own    bool  // Config.Dial is not set: names are looked up here
	caErr  error // of the CA file
}

// Prober returns what probes the brokers of c. A CA file that cannot be read fails the step of
// TLS alone.
func (c Config) Prober(ctx context.Context) *Prober {
	d := c.newDialer()
	p := &Prober{dialer: d, own: c.Dial == nil}
	if d.trust, p.caErr = tlsroots.Load(ctx, c.CAFile, c.Log()); p.caErr != nil {
		d.trust = &tlsroots.Authorities{}
	}
	return p
}

// A Step is one step of a probe.
type Step struct {
	Done bool // it was begun
	Err  error
	Took time.Duration
}

// A Probed is what came of connecting to one broker. After a step that failed none is begun.
type Probed struct {
	Names, TCP, TLS Step
	Addresses       []string             // that the name stands for; nil if Config.Dial looks for them
	Peer            string               // what was connected to
	State           *tls.ConnectionState // nil without TLS
	Conn            net.Conn             // nil if a step failed; the caller closes it
}

// Probe connects to address, within 5 seconds for each step.
func (p *Prober) Probe(ctx context.Context, address string) (r Probed) {
	host, _, err := net.SplitHostPort(address)
	if err == nil && !p.dialer.mayBeShown(host) {
		err = errNotAllowed
	}
	if err == nil && p.dialer.plaintext && !tlsroots.IsLoopback(host) {
		err = errPlaintext
	}
	if err != nil {
		r.Names = Step{Done: true, Err: p.failed(address, err)}
		return r
	}
	if p.own {
		r.Names = step(ctx, func(ctx context.Context) error {
			addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			for _, a := range addrs {
				r.Addresses = append(r.Addresses, a.Unmap().String())
			}
			if err != nil {
				return p.failed(address, err)
			}
			return nil
		})
		if r.Names.Err != nil {
			return r
		}
	}
	var conn net.Conn
	r.TCP = step(ctx, func(ctx context.Context) (err error) {
		if conn, err = p.dialer.tcp(ctx, "tcp", address); err != nil {
			return p.failed(address, err)
		}
		r.Peer = conn.RemoteAddr().String()
		return nil
	})
	if r.TCP.Err != nil {
		return r
	}
	if p.dialer.plaintext {
		r.Conn = &pacedConn{Conn: conn, raw: conn, addr: address}
		return r
	}
	r.TLS = step(ctx, func(ctx context.Context) error { return p.secure(ctx, conn, address, host, &r) })
	if r.TLS.Err != nil {
		_ = conn.Close()
	}
	return r
}

// secure is the step of TLS.
func (p *Prober) secure(ctx context.Context, conn net.Conn, address, host string, r *Probed) error {
	if p.caErr != nil {
		return p.caErr
	}
	secure := tls.Client(conn, p.dialer.tlsConfig(host, p.dialer.trust.Pool()))
	if err := secure.HandshakeContext(ctx); err != nil {
		return p.failed(address, p.dialer.tlsReason(err))
	}
	state := secure.ConnectionState()
	r.State, r.Conn = &state, &pacedConn{Conn: secure, raw: conn, addr: address}
	return nil
}

func (p *Prober) failed(address string, err error) error {
	return errs.New([]error{errs.Connection, err}, "kafka: %s: %s", errs.Clean(address), errs.Reason(p.dialer.reason(address, err)))
}

// step does one step of a probe, within dialTimeout.
func step(caller context.Context, f func(context.Context) error) Step {
	ctx, cancel := context.WithTimeout(caller, dialTimeout)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	took := time.Since(began)
	if err != nil && ctx.Err() != nil {
		err = errs.New([]error{errs.Connection, err, ctx.Err()}, "%s", fmt.Sprintf("no answer within %v: %s", took.Round(time.Millisecond), errs.Reason(err)))
	}
	return Step{Done: true, Err: err, Took: took}
}
