//go:build unix

package interop

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/gracedb-go/gracedb/internal/samples"
)

func TestLIGOLWSamplesAreReadByLIGOLW(t *testing.T) {
	ctx, s := need(t)
	script, err := filepath.Abs("../../testdata/check_ligolw.py")
	must(t, err)
	files, err := filepath.Glob("../../testdata/events/*.xml*")
	must(t, err)
	args := []string{script}
	for _, file := range files {
		file, err := filepath.Abs(file)
		must(t, err)
		args = append(args, file)
	}
	dir := t.TempDir()
	for _, e := range samples.LargeEvents() {
		file := filepath.Join(dir, e.Filename)
		must(t, os.WriteFile(file, e.Data, 0o600))
		args = append(args, file)
	}
	if len(files) < 2 {
		t.Errorf("files to check: %q", files)
	}
	box := s.sandbox(ctx, t)
	if out, err := box.Command(ctx, args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}

	// A reader that accepts everything would prove nothing.
	broken := filepath.Join(dir, "broken.xml")
	must(t, os.WriteFile(broken, bytes.Replace(samples.LargeEvents()[0].Data, []byte("</Dim>"), []byte("1</Dim>"), 1), 0o600))
	if out, err := box.Command(ctx, script, broken).CombinedOutput(); err == nil {
		t.Errorf("a broken file is accepted\n%s", out)
	}
}
