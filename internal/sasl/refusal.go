package sasl

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb/internal/errs"
	"github.com/gracedb-go/gracedb/internal/token"
)

// refusal turns a broker's challenge into an error. Kafka says no more than
// invalid_token, so the error says what the token does.
func refusal(addr, tok string, challenge []byte) error {
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
	b.WriteString("; " + token.WhatItSays(tok, d))
	b.WriteString("; the reason is in the broker's log")
	return errs.New([]error{errs.Authentication, kerr.SaslAuthenticationFailed}, "kafka: %s", errs.CleanN(b.String(), errs.MaxOwnText))
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
