package token

import (
	"testing"
	"time"
)

func BenchmarkParse(b *testing.B) {
	raw := mint(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// A whole look-up: the other places are not set, the file is in BEARER_TOKEN_FILE.
func BenchmarkFind(b *testing.B) {
	dir := b.TempDir()
	path := dir + "/token"
	writeOld(b, path, mint(claims{"aud": "https://gracedb.ligo.org"})+"\n", time.Hour)
	unset(b)
	b.Setenv("BEARER_TOKEN_FILE", path)
	f := Finder{Query: gracedb, Tmp: dir}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Find(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
