package diagnose

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/sasl"
)

// stepTime is how long a broker is waited for at each step after connecting.
const stepTime = 5 * time.Second

// maxAnswer is more than a broker has to say before a login.
const maxAnswer = 256 << 10

// A line is one connection to one broker, on which one request is made at a time.
type line struct {
	conn    net.Conn
	address string
	format  *kmsg.RequestFormatter
	last    int32 // request
}

// ask sends a request, whose version is set, and reads the answer.
func (l *line) ask(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	deadline := time.Now().Add(stepTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := l.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	l.last++
	if _, err := l.conn.Write(l.format.AppendRequest(nil, req, l.last)); err != nil {
		return nil, l.lost(req, err)
	}
	var head [8]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return nil, l.lost(req, err)
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if size < 4 || size > maxAnswer || int32(binary.BigEndian.Uint32(head[4:])) != l.last {
		return nil, errs.New([]error{errs.Connection}, "kafka: %s: what answers is no Kafka broker", errs.Clean(l.address))
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(l.conn, body); err != nil {
		return nil, l.lost(req, err)
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body); err != nil { // none of them is flexible
		return nil, errs.New([]error{errs.Connection, err}, "kafka: %s: the answer to %s cannot be read", errs.Clean(l.address), kmsg.NameForKey(req.Key()))
	}
	return resp, nil
}

func (l *line) lost(req kmsg.Request, err error) error {
	return errs.New([]error{errs.Connection, err}, "kafka: %s: no answer to %s: %s", errs.Clean(l.address), kmsg.NameForKey(req.Key()), errs.Reason(err))
}

// versions returns the newest version of each request that the broker knows.
func (l *line) versions(ctx context.Context) (map[kmsg.Key]int16, error) {
	answer, err := l.ask(ctx, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return nil, err
	}
	resp := answer.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, l.refused("its versions", err, nil)
	}
	known := make(map[kmsg.Key]int16, len(resp.ApiKeys))
	for _, k := range resp.ApiKeys {
		known[kmsg.Key(k.ApiKey)] = k.MaxVersion
	}
	return known, nil
}

// login authenticates with a token, and returns how long the session lasts; 0 if the broker
// does not end it.
func (l *line) login(ctx context.Context, raw string) (time.Duration, error) {
	hello := kmsg.NewPtrSASLHandshakeRequest()
	hello.Version, hello.Mechanism = 1, "OAUTHBEARER"
	answer, err := l.ask(ctx, hello)
	if err != nil {
		return 0, err
	}
	if said := answer.(*kmsg.SASLHandshakeResponse); said.ErrorCode != 0 {
		return 0, errs.New([]error{errs.Authentication, kerr.ErrorForCode(said.ErrorCode)},
			"kafka: broker %s takes no OAUTHBEARER, only %s", errs.Clean(l.address), errs.Clean(fmt.Sprint(said.SupportedMechanisms)))
	}
	mechanism := sasl.New(only(raw), sasl.NewState(slog.New(slog.DiscardHandler), 0))
	session, first, err := mechanism.Authenticate(ctx, l.address)
	if err != nil {
		return 0, err
	}
	login := kmsg.NewPtrSASLAuthenticateRequest()
	login.Version, login.SASLAuthBytes = 1, first
	if answer, err = l.ask(ctx, login); err != nil {
		return 0, err
	}
	said := answer.(*kmsg.SASLAuthenticateResponse)
	if err := kerr.ErrorForCode(said.ErrorCode); err != nil {
		return 0, l.refused("the token", err, said.ErrorMessage)
	}
	if _, _, err := session.Challenge(said.SASLAuthBytes); err != nil {
		return 0, err
	}
	return time.Duration(said.SessionLifetimeMillis) * time.Millisecond, nil
}

func (l *line) refused(what string, err error, said *string) error {
	text := errs.Reason(err)
	if said != nil {
		text += ": " + errs.Clean(*said)
	}
	return errs.New([]error{errs.Authentication, err}, "kafka: broker %s refused %s: %s", errs.Clean(l.address), what, text)
}
