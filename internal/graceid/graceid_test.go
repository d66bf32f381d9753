package graceid

import (
	"strings"
	"testing"
)

func TestIs(t *testing.T) {
	for id, want := range map[string]bool{
		"G1001": true, "T123456789": true, "MS190124a": false, "G": false, "1": false, "": false, "G1/..": false,
		"g1": true, "G１": false, "G1\n": false, "%471": false, "G 1": false,
		strings.Repeat("G", 8) + strings.Repeat("1", 19): true,
		strings.Repeat("G", 9) + "1":                     false,
		"G" + strings.Repeat("1", 20):                    false,
	} {
		if got := Is(id); got != want {
			t.Errorf("Is(%q) = %v", id, got)
		}
	}
}
