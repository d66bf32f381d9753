package samples

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("other processors fuse multiplications and additions: the last digits differ")
	}
	events := Events()
	for _, e := range events {
		file, err := os.ReadFile(filepath.Join("..", "..", "testdata", "events", e.Filename))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Filename, ".gz") { // other versions of compress/gzip may compress otherwise
			file, e.Data = inflate(t, file), inflate(t, e.Data)
		}
		if !bytes.Equal(file, e.Data) {
			t.Errorf("testdata/events/%s is not what is generated: run go generate ./internal/samples", e.Filename)
		}
	}
	files, err := filepath.Glob("../../testdata/events/*")
	if err != nil || len(files) != len(events) {
		t.Errorf("%d files in testdata/events, %d events: %v", len(files), len(events), err)
	}
}

func inflate(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	inflated, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return inflated
}

func TestCoinc(t *testing.T) {
	for _, size := range []int{0, 20_000, 50_000, 360_000, 800_000} {
		data := Coinc(size, 7)
		if !bytes.Equal(data, Coinc(size, 7)) {
			t.Errorf("%d bytes: not the same twice", size)
		}
		if bytes.Equal(data, Coinc(size, 8)) {
			t.Errorf("%d bytes: the same from another seed", size)
		}
		if off := len(data) - size; size > 0 && (off < -500 || off > 500) {
			t.Errorf("asked for %d bytes, got %d", size, len(data))
		}
		d := xml.NewDecoder(bytes.NewReader(data))
		d.Strict = true
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
		}
	}
}

func TestAframe(t *testing.T) {
	data := Aframe(1)
	if !json.Valid(data) || len(data) < 150 || len(data) > 250 {
		t.Errorf("%d bytes: %s", len(data), data)
	}
}
