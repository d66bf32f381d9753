package wire

import (
	"bytes"
	stdbase64 "encoding/base64"
	"testing"
	"time"

	"github.com/segmentio/asm/base64"
)

func TestAppendUnixTime(t *testing.T) {
	for _, tt := range []struct {
		time time.Time
		want string
	}{
		{time.Unix(1, 999999999), "1.999999"},
		{time.Unix(1732288000, 0), "1732288000.000000"},
		{time.Unix(-5, 0), "0.000000"},
		{time.Unix(253402300799, 1000), "253402300799.000001"},
	} {
		if got := appendUnixTime(nil, tt.time); string(got) != tt.want {
			t.Errorf("%v: %s, want %s", tt.time, got, tt.want)
		}
	}
}

func TestFileName(t *testing.T) {
	for path, want := range map[string]string{
		"coinc.xml": "coinc.xml", "/data/coinc.xml": "coinc.xml", "sub/../coinc.xml.gz": "coinc.xml.gz",
		"../../etc/passwd": "passwd", "dir/": "dir", "": "", ".": "", "..": "", "/": "", "a/..": "", "-": "-",
	} {
		if got := FileName(path); got != want {
			t.Errorf("fileName(%q) = %q, want %q", path, got, want)
		}
	}
}

// The assembly writes and reads 32 bytes at a time.
func TestBase64(t *testing.T) {
	data := make([]byte, 300)
	for i := range data {
		data[i] = byte(i*i + i>>3)
	}
	for n := range data {
		want := stdbase64.StdEncoding.EncodeToString(data[:n])
		got := make([]byte, len(want)+8)
		base64.StdEncoding.Encode(got[:len(want)], data[:n])
		if string(got) != want+string(make([]byte, 8)) {
			t.Fatalf("%d bytes encode to %q, want %q", n, got, want)
		}
		back, ok := fromBase64([]byte(want))
		if !ok || !bytes.Equal(back, data[:n]) {
			t.Fatalf("%d bytes decode to %x", n, back)
		}
		for i := range want { // a character that is none, anywhere
			bad := []byte(want)
			bad[i] = '*'
			if _, ok := fromBase64(bad); ok {
				t.Fatalf("%q decodes", bad)
			}
		}
	}
}
