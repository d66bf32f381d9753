package token

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A Description is what can be told of a token that a receiver has refused. Its texts
// hold claims as they are: clean them before showing them.
type Description struct {
	Says   string   // sub, aud, iss, scope, kid, iat and exp
	Causes []string // why Apache Kafka (4.3.1, 4.4.0) refuses every such token
	Maybe  []string // why this broker may refuse it
}

// A claimSet is the header or the payload of a token.
type claimSet map[string]json.RawMessage

// decodeClaims returns what a segment of a token holds, or nil.
func decodeClaims(segment string) claimSet {
	raw, err := base64.RawURLEncoding.DecodeString(segment)
	var c claimSet
	if err != nil || json.Unmarshal(raw, &c) != nil {
		return nil
	}
	return c
}

// Describe describes raw, which the broker called host has refused at the time now.
// It reads also what Parse does not take for a token.
func Describe(raw, host string, now time.Time) Description {
	segments := strings.Split(raw, ".")
	if len(segments) != 3 {
		return Description{Says: "nothing that can be read here", Causes: []string{"it is not a JWT"}}
	}
	header, claims := decodeClaims(segments[0]), decodeClaims(segments[1])
	if header == nil || claims == nil {
		return Description{Says: "nothing that can be read here", Causes: []string{"it is damaged"}}
	}
	kid := text(header["kid"])
	d := Description{
		Says: strings.Join([]string{
			claims.named("sub"), "aud " + clip(orNone(strings.Join(texts(claims["aud"]), " "))), claims.named("iss"),
			"scope " + clip(orNone(strings.Join(texts(cmpOr(claims["scope"], claims["scp"])), " "))), "kid " + clip(orNone(kid)), claims.dated("iat", now), claims.dated("exp", now),
		}, ", "),
		Causes: claims.faults(now),
	}
	d.Maybe = append(claims.doubts(host), "the broker may not know its issuer or its key"+map[bool]string{true: " (it names none: no kid)"}[kid == ""],
		"its clock may differ from this machine's")
	return d
}

// named returns the claim called name, and that name.
func (c claimSet) named(name string) string {
	return name + " " + clip(orNone(text(c[name])))
}

// orNone returns what to show of a claim that may be missing or blank.
func orNone(text string) string {
	if strings.TrimSpace(text) == "" {
		return "none"
	}
	return text
}

// clip bounds what one claim may take of an error's text.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// seconds returns the claim called name if it is a number that is a date.
func (c claimSet) seconds(name string) (time.Time, bool) {
	var s float64
	if v := c[name]; len(v) == 0 || v[0] == '"' || v[0] == 'n' || json.Unmarshal(v, &s) != nil || math.Abs(s) > maxDate {
		return time.Time{}, false
	}
	return time.Unix(int64(s), 0), true
}

// dated returns the date called name, and how far it is from now.
func (c claimSet) dated(name string, now time.Time) string {
	at, ok := c.seconds(name)
	switch {
	case !ok && len(c[name]) == 0:
		return name + " none"
	case !ok:
		return name + " no date"
	case at.After(now):
		return fmt.Sprintf("%s %s (in %s)", name, at.UTC().Format(time.RFC3339), Span(at.Sub(now)))
	}
	return fmt.Sprintf("%s %s (%s ago)", name, at.UTC().Format(time.RFC3339), Span(now.Sub(at)))
}

// faults returns what Kafka's validator takes from no token.
func (c claimSet) faults(now time.Time) []string {
	var f []string
	add := func(is bool, why string) {
		if is {
			f = append(f, why)
		}
	}
	dates := make(map[string]time.Time)
	for _, name := range []string{"iat", "exp", "nbf"} {
		at, ok := c.seconds(name)
		dates[name] = at
		switch {
		case ok:
		case len(c[name]) > 0:
			add(true, "its "+name+" is not a number of seconds")
		case name != "nbf":
			add(true, "it has no "+name)
		}
	}
	iat, exp, nbf := dates["iat"], dates["exp"], dates["nbf"]
	add(!exp.IsZero() && !exp.After(now), "it has expired (on its way, if this machine's clock is right)")
	add(!exp.IsZero() && iat.After(exp), "its iat is later than its exp")
	add(nbf.After(now), "it is not valid yet (nbf is "+Span(nbf.Sub(now))+" ahead of this machine's clock)")
	add(strings.TrimSpace(text(c["sub"])) == "", "it has no sub, which Kafka needs unless it is told of another claim")
	for _, name := range []string{"scope", "scp"} {
		list := texts(c[name])
		add(len(list) == 1 && strings.TrimSpace(list[0]) == "", "its "+name+" is empty")
		slices.Sort(list)
		add(len(slices.Compact(slices.Clone(list))) < len(list), "its "+name+" lists one twice")
		if list != nil {
			break
		}
	}
	return f
}

// doubts returns what is to be said of the audience. Kafka compares texts: to it, ANY is
// none but its own.
func (c claimSet) doubts(host string) []string {
	aud := texts(c["aud"])
	wanted := "https://" + host + " or " + host
	anyone := slices.ContainsFunc(aud, func(a string) bool { return a == "ANY" || a == "https://wlcg.cern.ch/jwt/v1/any" })
	named := slices.ContainsFunc(aud, func(a string) bool { return sameAudience(a, host) })
	switch {
	case len(aud) == 0:
		return []string{"it has no aud, where the broker may want " + wanted}
	case named:
		return []string{"the broker may list another form of its name as audience (" + wanted + ")"}
	case anyone:
		return []string{"the broker may not list ANY in sasl.oauthbearer.expected.audience, and want " + wanted}
	}
	return []string{"the broker may want another audience, such as " + wanted}
}
