package gracedb

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// FuzzFollow gives what a broker sends to one connection at once and to another in
// pieces: both must see the same answers, those that its lengths make.
func FuzzFollow(f *testing.F) {
	for _, length := range []uint32{0, 1, 3, 4, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1} {
		f.Add(append(binary.BigEndian.AppendUint32(nil, length), "abcdef"...), []byte{5, 1}, uint8(0b1011))
		f.Add(slices.Concat(produceAnswer(0), binary.BigEndian.AppendUint32(nil, length), produceAnswer(7)), []byte{4, 0, 200}, uint8(0b101))
	}
	f.Add(slices.Concat(produceAnswer(0), produceAnswer(6), produceAnswer(0)), []byte{3}, uint8(0b111))
	f.Fuzz(func(t *testing.T, stream, pieces []byte, produces uint8) {
		whole, split := followed(produces), followed(produces)
		whole.follow(stream)
		for rest, i := stream, 0; len(rest) > 0; i++ {
			n := len(rest)
			if i < len(pieces) {
				n = min(n, int(pieces[i]))
			}
			split.follow(rest[:n])
			rest = rest[n:]
		}

		frames, rest := uint64(0), stream
		for len(rest) >= 4 && uint64(len(rest)-4) >= uint64(binary.BigEndian.Uint32(rest)) {
			rest = rest[4+binary.BigEndian.Uint32(rest):]
			frames++
		}
		if want := requestsFollowed - min(frames, requestsFollowed); uint64(len(whole.sent)) != want {
			t.Errorf("%x: %d requests are not answered, want %d", stream, len(whole.sent), want)
		}
		for _, c := range []*answeredConn{whole, split} {
			if c.left < 0 || c.left >= 1<<32 || cap(c.body) > 2*len(stream)+64 {
				t.Errorf("%x: %d bytes to come, room for %d", stream, c.left, cap(c.body))
			}
		}
		if diff := cmp.Diff(knownOf(whole), knownOf(split)); diff != "" {
			t.Errorf("%x in pieces of %v: %s", stream, pieces, diff)
		}
	})
}

const requestsFollowed = 8

// followed returns a connection with requests that are not answered: which of them
// have a batch is said by the bits of produces.
func followed(produces uint8) *answeredConn {
	a := newAnswers(func(string) {}, func(string) {})
	c := &answeredConn{answers: a}
	for i := range requestsFollowed {
		r := sentRequest{version: 9, correlation: 77, at: time.Duration(i + 1)}
		if produces>>i&1 == 1 {
			r, _, _ = parseRequest(batchFrame(0, int32(i)))
			r.correlation, r.at = 77, time.Duration(i+1)
		}
		c.sent = append(c.sent, r)
	}
	a.conns = map[*answeredConn]struct{}{c: {}}
	return c
}

// knownOf is what a connection has seen, but for when.
func knownOf(c *answeredConn) map[string]any {
	a := c.answers
	errs := make(map[string]string)
	for _, said := range a.said {
		errs[said.err.Error()] = ""
	}
	body := ""
	if c.keep && c.left > 0 {
		body = string(c.body)
	}
	return map[string]any{
		"unanswered": len(c.sent), "left": c.left, "have": c.have, "head": string(c.head[:c.have]), "body": body,
		"doubtful": a.doubtful.Load(), "taken": len(a.taken), "gaps": len(a.gaps), "said": errs,
	}
}
