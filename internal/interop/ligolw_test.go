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

func TestCWBSampleIsReadAsGraceDBReadsIt(t *testing.T) {
	ctx, s := need(t)
	script, err := filepath.Abs("../../testdata/check_cwb.py")
	must(t, err)
	file, err := filepath.Abs("../../testdata/events/trigger.txt")
	must(t, err)
	box := s.sandbox(ctx, t)
	if out, err := box.Command(ctx, script, file).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("far 7.43199e-09 Hz")) {
		t.Errorf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(file)
	must(t, err)
	old := filepath.Join(t.TempDir(), "old.txt")
	must(t, os.WriteFile(old, bytes.Replace(data, []byte("event_time:"), []byte("other:"), 1), 0o600))
	if out, err := box.Command(ctx, script, old).CombinedOutput(); err == nil || !bytes.Contains(out, []byte("far 1 Hz")) {
		t.Errorf("without event_time: %v\n%s", err, out)
	}
}
