package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each text of kgo's that this package goes by stands in the source of kgo. If one does not any
// more, look how that version says it: what goes by the text does nothing now, and says nothing.
func TestEngineTexts(t *testing.T) {
	list := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/twmb/franz-go/pkg/kgo")
	list.Env = append(os.Environ(), "GOFLAGS=") // flags that are meant for the go test that runs this may not suit
	dir, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal("no source of kgo:", err)
	}
	var source strings.Builder
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	for _, text := range slices.Concat(kgoToldElsewhere, kgoTriesAgain, []string{KGOUnknownMagic}) {
		if !strings.Contains(source.String(), `"`+text) {
			t.Errorf("kgo does not say %q any more", text)
		}
	}
}
