package gracedbapi

import (
	"encoding/json"
	"net/http"
	"time"
)

// A statusRule says what a status other than 2xx means.
type statusRule struct {
	from, to   int  // the statuses that it is for
	retryAfter bool // it is only for an answer with a Retry-After that can be read
	acted      bool // the server may have done what it was asked
	again      resend
	advice     func(*answer) string // what to do about it; nil if that is not known
}

// A resend says which requests are sent again.
type resend int

const (
	never        resend = iota
	ifRepeatable        // those that may be sent again although the server may have acted
	always              // all, since the server has done nothing
)

// statusRules are the rules of this package for a status: the first that fits an answer
// counts. Two rules look at more than a status: refusesToken at what GraceDB says with a
// 403, and uploadReserved at whether an earlier try may have led to a 409.
var statusRules = []statusRule{
	// A token that is refused is replaced by another one, once: see Client.do.
	{from: 401, to: 401, again: never, advice: (*answer).tokenAdvice},
	{from: 403, to: 403, again: never, advice: (*answer).tokenAdvice},
	{from: 404, to: 404, again: never, advice: func(a *answer) string { return a.x.notFound }},
	// The server did not wait for the end of the request. The Python client repeats what
	// is repeatable then, too.
	{from: 408, to: 408, again: ifRepeatable},
	// GraceDB counts requests before it looks at them.
	{from: 429, to: 429, again: always},
	// What is left from 300 to 499: redirects, and what is wrong with the request.
	{from: 0, to: 499, again: never},

	// The web server in front of GraceDB did not get its answer.
	{from: 502, to: 502, again: ifRepeatable, acted: true, advice: gatewayAdvice},
	// With Retry-After, GraceDB did nothing and is soon back. Without, it is down for
	// maintenance, which takes longer than repetitions do.
	{from: 503, to: 503, again: always, retryAfter: true, advice: downAdvice},
	{from: 503, to: 503, again: never, advice: downAdvice},
	{from: 504, to: 504, again: ifRepeatable, acted: true, advice: gatewayAdvice},
	// GraceDB failed in the course of the request, and would once more.
	{from: 500, to: 999, again: never, acted: true},
}

func downAdvice(*answer) string { return "GraceDB is down for a while, or overloaded" }

func gatewayAdvice(*answer) string {
	return "the web server there does not reach GraceDB, which may be restarting"
}

// ruleFor returns the rule for a status that is not 2xx.
func ruleFor(status int, retryAfter bool) statusRule {
	for _, r := range statusRules {
		if r.from <= status && status <= r.to && (retryAfter || !r.retryAfter) {
			return r
		}
	}
	return statusRule{} // net/http takes no status of more than three digits
}

// verdict returns what the rule means for a request. after is what Retry-After says.
func (r statusRule) verdict(repeatable bool, after time.Duration) verdict {
	return verdict{
		again: r.again == always || r.again == ifRepeatable && repeatable,
		wait:  min(after, maxWait),
		acted: r.acted,
	}
}

// refusesToken reports whether an answer means that the token is no good. GraceDB
// has an authentication class without a challenge, so that Django REST framework
// makes a 403 of every 401: with the same text for a token that has expired, is for
// somebody else, lacks the scope, or was not sent. The other refusals with 403 (no
// right on a pipeline, an inactive user) stay the same with any token of that user.
func refusesToken(status int, body []byte) bool {
	switch status {
	case http.StatusUnauthorized:
		return true
	case http.StatusForbidden:
		var said struct {
			Detail string `json:"detail"`
		}
		return json.Unmarshal(body, &said) == nil && said.Detail == "Authentication credentials were not provided."
	}
	return false
}
