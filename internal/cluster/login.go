package cluster

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/errs"
)

// login reads the rest of an answer to SaslAuthenticate, and cleans the text of a refusal in
// it. The engine makes an error of that text, which a kgo.Client of the caller's hands out as
// it is, and the broker was just shown the token.
func (c *framedConn) login(version int16) error {
	body := make([]byte, c.left) // at most maxLoginAnswer
	if _, c.bad = io.ReadFull(c.in, body); c.bad != nil {
		if c.bad == io.EOF { //nolint:errorlint // io.ReadFull returns it so
			c.bad = io.ErrUnexpectedEOF
		}
		return c.bad
	}
	c.left, c.pass = 0, append(slices.Clip(c.head[:]), cleanLogin(body, version)...)
	binary.BigEndian.PutUint32(c.pass, uint32(len(c.pass)-4))
	return nil
}

// cleanLogin returns the answer in body, which follows the request's number, with a text that
// is fit to be shown. What cannot be read it leaves to the engine, which shows none of it.
func cleanLogin(body []byte, version int16) []byte {
	r := kmsg.NewPtrSASLAuthenticateResponse()
	r.SetVersion(version)
	in := kbin.Reader{Src: body}
	if r.IsFlexible() {
		kmsg.SkipTags(&in)
	}
	head := body[:len(body)-len(in.Src)]
	if !in.Ok() || r.ReadFrom(in.Src) != nil || r.ErrorMessage == nil {
		return body
	}
	said := errs.Clean(*r.ErrorMessage)
	if said == *r.ErrorMessage {
		return body
	}
	r.ErrorMessage = &said
	return r.AppendTo(slices.Clip(head))
}

// isRawLogin reports whether b is a login without SaslAuthenticate, or the request before it.
// The engine (v1.22.3) logs in so where a broker's versions say that it is older than Kafka
// 1.0. What such a broker answers has no number, so no frame after it could be judged.
func isRawLogin(b []byte) bool {
	key, version := int16(binary.BigEndian.Uint16(b[4:])), binary.BigEndian.Uint16(b[6:])
	return key == int16(kmsg.SASLHandshake) && version == 0 || kmsg.RequestForKey(key) == nil
}

var errRawLogin = errors.New("the broker has no SaslHandshake 1: it wants a login of before Kafka 1.0, which it is not given")
