package gracedb

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenLike matches what looks like a JWT, or a piece of one in a header.
var tokenLike = regexp.MustCompile(`eyJ[-_A-Za-z0-9]{6,}(\.[-_A-Za-z0-9]*){0,2}|(?i:bearer )[-_.~+/=A-Za-z0-9]+`)

// cleanText makes a text from elsewhere (a broker, a server, a file) fit to be
// shown: no token, no control characters, one line, at most maxText bytes.
func cleanText(s string) string { return cleanTextN(s, maxText) }

func cleanTextN(s string, limit int) string {
	// A token cut in half by the limit would not be recognised: look further.
	const slack = 32 << 10
	if len(s) > limit+slack {
		s = s[:limit+slack]
	}
	s = tokenLike.ReplaceAllString(s, "[token removed]")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == utf8.RuneError:
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)
	s = strings.TrimSpace(s)
	if len(s) > limit {
		cut := limit - len("…")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

// redact removes from s all that it has in common with token, 12 bytes or more at a
// time, so that an answer that echoes a piece of the token cannot show it.
func redact(s, token string) string {
	const window = 12
	if len(token) < window || len(s) < window {
		return s
	}
	pieces := make(map[string]bool, len(token))
	for i := 0; i+window <= len(token); i++ {
		pieces[token[i:i+window]] = true
	}
	var b strings.Builder
	kept := 0
	for i := 0; i+window <= len(s); {
		if !pieces[s[i:i+window]] {
			i++
			continue
		}
		end := i + window
		for end < len(s) && pieces[s[end-window+1:end+1]] {
			end++
		}
		b.WriteString(s[kept:i])
		b.WriteString("[token removed]")
		kept, i = end, end
	}
	b.WriteString(s[kept:])
	return b.String()
}
