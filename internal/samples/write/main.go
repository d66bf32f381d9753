// Write writes sample event files: those of testdata/events into -dir, or a coinc
// file of -size bytes to standard output.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"github.com/gracedb-go/gracedb/internal/samples"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", "", "write the files of testdata/events into this directory")
	large := flag.Bool("large", false, "with -dir: write the large files instead")
	size := flag.Int("size", 50_000, "about how many bytes")
	seed := flag.Uint64("seed", 1, "what the values come from")
	flag.Parse()

	if *dir == "" {
		if _, err := os.Stdout.Write(samples.Coinc(*size, *seed)); err != nil {
			log.Fatal(err)
		}
		return
	}
	events := samples.Events()
	if *large {
		events = samples.LargeEvents()
	}
	for _, e := range events {
		if err := os.WriteFile(filepath.Join(*dir, e.Filename), e.Data, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
