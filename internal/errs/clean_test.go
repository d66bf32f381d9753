package errs

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// opaque is a token of no known form. Its pieces are found by their letters alone.
const opaque = "q7Zr0Xw3-Kp_9sLmVb2Ty8HdNcJf5Gu1"

func TestCleanText(t *testing.T) {
	tokensShown.note(opaque)
	for _, tt := range []struct{ name, in, want string }{
		{"no token", "a\nb\x00\u200bc\xff", "a bc"},
		{"whole", "x " + opaque + " y", "x [token removed] y"},
		{"a piece of 12", "x" + opaque[3:15] + ".y", "x[token removed].y"},
		{"11 letters", opaque[3:14], opaque[3:14]},
		{"twice", opaque + "|" + opaque, "[token removed]|[token removed]"},
		{"apart", opaque + " and " + opaque, "[token removed] and [token removed]"},
		{"in lines", opaque[:16] + "\n" + opaque[16:], "[token removed]"},
		{"as a host", "https://" + strings.ToLower(opaque) + ".example/", "https://[token removed].example/"},
		{"in a URL", strings.ReplaceAll(opaque, "_", "%5F"), "[token removed]"},
		{"in JSON", strings.ReplaceAll(opaque, "p", `\u0070`), "[token removed]"},
		{"in JSON in JSON", strings.ReplaceAll(opaque, "p", `\\u0070`), "[token removed]"},
		{"in HTML", strings.ReplaceAll(strings.ReplaceAll(opaque, "p", "&#112;"), "9", "&#x39;&shy;"), "[token removed]"},
		{"of which nothing is known", "eyJhbGciOi.J9 x", "[token removed] x"},
		{"half of it known", "eyJhbGciOi" + opaque + "JFUzI1NiJ9 x", "[token removed] x"},
		{"escapes that end early", `\ \\ \u1 % %4 & &# &#x; &;`, `\ \\ \u1 % %4 & &# &#x; &;`},
		{"too long", strings.Repeat("é", MaxText), strings.Repeat("é", (MaxText-3)/2) + "…"},
	} {
		if got := Clean(tt.in); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// As many tokens are remembered as are in use, and the last one whatever its length.
func TestShownTokensForget(t *testing.T) {
	shown := shownTokens{seed: tokensShown.seed}
	token := func(i int) string { return strings.Repeat(fmt.Sprintf("%02d-%s.", i, opaque), 3) }
	for i := range 3 * maxShown {
		shown.note(token(0))
		shown.note(token(i))
		for _, known := range []int{0, i} {
			if shown.in(token(known)) == nil {
				t.Fatalf("after %d tokens, %d is not known", i+1, known)
			}
		}
	}
	if len(shown.recent) != maxShown {
		t.Errorf("%d tokens remembered", len(shown.recent))
	}
	long := strings.Repeat("0123456789ab-"+opaque, maxShownPieces/32)
	shown.note(long)
	if len(shown.recent) != 1 || shown.in(long) == nil || shown.in("01-"+opaque[:9]+opaque[9:]) == nil {
		t.Errorf("%d tokens remembered beside a long one", len(shown.recent))
	}
	shown.note(token(1))
	if shown.in("0123456789ab-") != nil || len(shown.recent) != 1 {
		t.Error("a long token is not forgotten")
	}
}

// An error of somebody else's that holds a token shows it by no verb and to no
// errors.As, but is still what it is.
func TestFailVeilsCauses(t *testing.T) {
	tokensShown.note(opaque)
	cause := fmt.Errorf("joined: %w", errors.Join(net.ErrClosed, &net.DNSError{Name: opaque + ".example", Err: "no such host"}))
	err := New([]error{Connection, cause}, "cannot reach %s", opaque)
	for _, kind := range []error{Connection, net.ErrClosed} {
		if !errors.Is(err, kind) {
			t.Errorf("not %v: %v", kind, err)
		}
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		t.Error("the cause is handed out")
	}
	for _, e := range err.(*failure).is { //nolint:errorlint // it is that
		if text := fmt.Sprintf("%v %+v %#v %s %q %v", e, e, e, e, e, err); strings.Contains(text, opaque[:12]) {
			t.Errorf("shown: %s", text)
		}
	}
	clean := &net.DNSError{Name: "x.example", Err: "no such host"}
	if got, ok := errors.AsType[*net.DNSError](New([]error{clean}, "x")); !ok || got != clean {
		t.Error("a cause without a token is not handed out")
	}
}
