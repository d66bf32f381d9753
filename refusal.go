package gracedb

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// kafkaRefusal turns a broker's challenge into an error. Kafka says no more than
// invalid_token, so the error says what the token does.
func kafkaRefusal(addr, tok string, challenge []byte) error {
	status, text := readChallenge(challenge[:min(len(challenge), errs.MaxLook)])
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	d := token.Describe(tok, host, time.Now())
	var b strings.Builder
	fmt.Fprintf(&b, "broker %s refused the token: %s", addr, errs.CleanN(text, errs.MaxText/4))
	switch {
	case status != "invalid_token":
	case len(d.Causes) > 0:
		b.WriteString(": " + strings.Join(d.Causes, "; "))
	default:
		b.WriteString(": " + strings.Join(d.Maybe, ", or "))
	}
	b.WriteString("; " + whatTokenSays(tok, d))
	b.WriteString("; the reason is in the broker's log")
	return errs.New([]error{errs.Authentication, kerr.SaslAuthenticationFailed}, "kafka: %s", errs.CleanN(b.String(), errs.MaxOwnText))
}

// whatTokenSays returns a clause about tok: its claims and, if FindToken has found it,
// where.
func whatTokenSays(tok string, d token.Description) string {
	says := "the token says " + d.Says
	if place := tokenPlaces.of(tok); place != "" {
		says += " (found at " + place + ")"
	}
	return says
}

// readChallenge returns the status of a challenge and all that it says (RFC 7628,
// section 3.2.2).
func readChallenge(challenge []byte) (status, text string) {
	var said struct {
		Status string `json:"status"`
		Scope  string `json:"scope"`
		Config string `json:"openid-configuration"`
	}
	if json.Unmarshal(challenge, &said) != nil || said.Status == "" {
		return "", string(challenge)
	}
	text = said.Status
	if said.Scope != "" {
		text += ", scope wanted: " + said.Scope
	}
	if said.Config != "" {
		text += ", see " + said.Config
	}
	return said.Status, text
}

// tokenPlaces knows where FindToken has found the tokens of late, for errors about them.
var tokenPlaces = foundPlaces{seed: maphash.MakeSeed()}

// A foundPlaces remembers the places of a few tokens by their hashes.
type foundPlaces struct {
	seed maphash.Seed
	mu   sync.Mutex
	at   map[uint64]string
}

func (p *foundPlaces) note(tok, place string) {
	const most = 64
	hash := maphash.String(p.seed, tok)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil || len(p.at) >= most {
		p.at = make(map[uint64]string)
	}
	p.at[hash] = place
}

func (p *foundPlaces) of(tok string) string {
	hash := maphash.String(p.seed, tok)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at[hash]
}
