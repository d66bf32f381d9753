// Package vectors reads testdata/vectors for tests, whichever package they belong to.
package vectors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// Lines returns the lines of a file there, which are recorded from the Python package; see
// the README beside them.
func Lines[T any](name string) ([]T, error) {
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "testdata", "vectors", name))
	if err != nil {
		return nil, err
	}
	var lines []T
	for line := range bytes.Lines(text) {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", name, len(lines)+1, err)
		}
		lines = append(lines, v)
	}
	return lines, nil
}
