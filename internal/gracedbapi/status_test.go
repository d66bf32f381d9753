package gracedbapi

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// Each status that HTTP has, or may come to have, means this and nothing else.
func TestStatusRules(t *testing.T) {
	const hint = time.Hour // what Retry-After says; waited for no longer than maxWait
	type want struct {
		status     int
		retryAfter bool
		repeatable bool // again: what may be repeated
		creation   bool // again: a creation
		acted      bool
		advice     string
	}
	const (
		down    = "GraceDB is down for a while, or overloaded"
		gateway = "the web server there does not reach GraceDB, which may be restarting"
	)
	wants := make(map[string]want)
	for _, w := range []want{
		{408, false, true, false, false, ""},
		{408, true, true, false, false, ""},
		{429, false, true, true, false, ""},
		{429, true, true, true, false, ""},
		{502, false, true, false, true, gateway},
		{502, true, true, false, true, gateway},
		{503, false, false, false, false, down},
		{503, true, true, true, false, down},
		{504, false, true, false, true, gateway},
		{504, true, true, false, true, gateway},
		{404, false, false, false, false, "look there"},
		{404, true, false, false, false, "look there"},
	} {
		wants[fmt.Sprint(w.status, w.retryAfter)] = w
	}
	for status := 100; status <= 999; status++ {
		if status/100 == 2 {
			continue
		}
		for _, told := range []bool{false, true} {
			w, ok := wants[fmt.Sprint(status, told)]
			if !ok {
				w = want{acted: status >= 500}
			}
			rule := ruleFor(status, told)
			for isRepeatable, again := range map[bool]bool{true: w.repeatable, false: w.creation} {
				got := rule.verdict(isRepeatable, hint)
				if want := (verdict{again: again, wait: maxWait, acted: w.acted}); got != want {
					t.Errorf("%d, Retry-After %v, repeatable %v: %+v, want %+v", status, told, isRepeatable, got, want)
				}
			}
			if status == http.StatusUnauthorized || status == http.StatusForbidden {
				continue // what the token says: TestRefusedTokenText
			}
			a := answer{status: status, x: exchange{url: new(url.URL), notFound: "look there"}}
			if got := a.advice(); got != w.advice {
				t.Errorf("%d: advice %q, want %q", status, got, w.advice)
			}
		}
	}
}

// A rule that stands behind one which fits all that it fits says nothing.
func TestStatusRulesAllCount(t *testing.T) {
	counts := make([]bool, len(statusRules))
	for status := 300; status <= 599; status++ {
		for _, told := range []bool{false, true} {
			for i, r := range statusRules {
				if r.from <= status && status <= r.to && (told || !r.retryAfter) {
					counts[i] = true
					break
				}
			}
		}
	}
	for i, ok := range counts {
		if !ok {
			t.Errorf("no answer is judged by %+v", statusRules[i])
		}
	}
}
