package diagnose

import (
	"strings"
	"testing"
)

// What to do goes by the status of the answer, and not by what its text has in it: the port 40315 is
// no 403.
func TestServiceAdvice(t *testing.T) {
	for status, want := range map[int]string{
		200: "correct ServiceURL", 404: "correct ServiceURL", 401: "htgettoken", 403: "htgettoken",
		0: "try again later", 500: "try again later", 503: "try again later",
	} {
		if got := serviceAdvice(status); !strings.Contains(got, want) {
			t.Errorf("%d: %s", status, got)
		}
	}
}
