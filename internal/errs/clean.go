package errs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// tokenRemoved stands where a token was.
	tokenRemoved = "[token removed]"
	// MaxLook bounds what is looked at of a text: more than is ever shown of one, so that
	// a token is recognised although the end of it is cut off.
	MaxLook = 16 << 10
)

// tokenLike matches what looks like a JWT, or a piece of one in a header.
var tokenLike = regexp.MustCompile(`eyJ[-_A-Za-z0-9]{6,}(\.[-_A-Za-z0-9]*){0,2}|(?i:bearer )[-_.~+/=A-Za-z0-9]+`)

// Clean makes a text from elsewhere (a broker, a server, a file) fit to be
// shown: no token, no control characters, one line, at most MaxText bytes.
func Clean(s string) string { return CleanN(s, MaxText) }

// CleanN is Clean for limit bytes. All that anybody else wrote goes through
// here before it stands in an error, a log or a public value. The order matters: what
// cannot be seen may stand inside a token, and is deleted before one is looked for.
func CleanN(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == utf8.RuneError:
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s[:min(len(s), max(limit, MaxLook))])
	s = strings.TrimSpace(WithoutTokens(s))
	if len(s) > limit {
		cut := limit - len("…")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return s
}

// WithoutTokens returns s without the tokens that it holds, and their pieces.
func WithoutTokens(s string) string {
	clean, epoch := tokensShown.isClean(s)
	if clean {
		return s
	}
	found := tokensShown.in(s)
	for _, at := range tokenLike.FindAllStringIndex(s, -1) {
		found = append(found, textSpan{at[0], at[1]})
	}
	if found == nil {
		tokensShown.noteClean(s, epoch)
		return s
	}
	slices.SortFunc(found, func(a, b textSpan) int { return cmp.Compare(a.start, b.start) })
	var b strings.Builder
	kept, end := 0, -1
	for _, at := range found {
		if at.start > end {
			b.WriteString(s[kept:at.start])
			b.WriteString(tokenRemoved)
		}
		end = max(end, at.end)
		kept = end
	}
	b.WriteString(s[kept:])
	return b.String()
}

// nextLetter returns the letter, digit, '-' or '_' that s[i:] begins with, or 0 if it
// begins with something else, and how many bytes that takes. What JSON, URLs and HTML
// write for a character counts as it: whoever reads the text reads the character.
func nextLetter(s string, i int) (letter byte, width int) {
	code, width := rune(s[i]), 1
	rest := s[i:]
	switch c := s[i]; {
	case c == '\\':
		for width < len(rest) && rest[width] == '\\' { // a string inside a string
			width++
		}
		if width == len(rest) || !strings.ContainsRune("ubfnrt", rune(rest[width])) {
			return 0, width
		}
		code, width = -1, width+1
		if rest[width-1] == 'u' {
			if r, ok := number(rest[width:], 4, 16); ok {
				code, width = r, width+4
			}
		}
	case c == '%':
		if r, ok := number(rest[1:], 2, 16); ok {
			code, width = r, 3
		}
	case c == '&':
		const longest = 32
		end := strings.IndexByte(rest[:min(len(rest), longest)], ';')
		name := ""
		if end > 0 {
			name = rest[1:end]
		}
		switch {
		case strings.HasPrefix(name, "#x"), strings.HasPrefix(name, "#X"):
			if r, ok := number(name[2:], len(name)-2, 16); ok {
				code, width = r, end+1
			}
		case strings.HasPrefix(name, "#"):
			if r, ok := number(name[1:], len(name)-1, 10); ok {
				code, width = r, end+1
			}
		case name != "" && strings.Trim(name, entityLetters) == "":
			code, width = -1, end+1
		}
	}
	switch {
	case 'A' <= code && code <= 'Z':
		return byte(code) + 'a' - 'A', width
	case 'a' <= code && code <= 'z', '0' <= code && code <= '9', code == '-', code == '_':
		return byte(code), width
	}
	return 0, width
}

const entityLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// number reads the n digits that s begins with. What is too large is some number.
func number(s string, n int, base rune) (value rune, ok bool) {
	if n < 1 || len(s) < n {
		return 0, false
	}
	for _, c := range []byte(s[:n]) {
		digit := rune(strings.IndexByte("0123456789abcdef", c|0x20))
		if c < '0' || digit < 0 || digit >= base {
			return 0, false
		}
		value = (value*base + digit) & 0xffffff
	}
	return value, true
}

// A veiled is an error of somebody else's whose text holds a token. It matches what the
// error matches, but hands nothing out that would show its text.
type veiled struct {
	text string
	err  error
}

// Tokenless matches the errors whose own text was made without tokens. They need no veil.
var Tokenless = errors.New("holds no token")

// Veil returns err, veiled if need be.
func Veil(err error) error {
	switch err := err.(type) { //nolint:errorlint // what it wraps is looked at, too
	case nil, *kind, *failure, *veiled:
		return err
	case interface{ Is(target error) bool }:
		if err.Is(Tokenless) {
			return err.(error)
		}
	}
	text := err.Error()
	if WithoutTokens(text) == text {
		return err
	}
	return &veiled{Clean(text), err}
}

func (v *veiled) Error() string        { return v.text }
func (v *veiled) Is(target error) bool { return errors.Is(v.err, target) }

// Format writes the text whatever the verb.
func (v *veiled) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.text) }
