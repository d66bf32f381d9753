package gracedb_test

import (
	stdbase64 "encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/samples"
	"github.com/gracedb-go/gracedb/internal/testrace"
	"github.com/gracedb-go/gracedb/internal/wire"
)

// benchUploads are uploads like those of aframe (0.2 kB) and gstlal.
func benchUploads() []gracedb.Upload {
	uploads := []gracedb.Upload{}
	for _, data := range [][]byte{samples.Aframe(1), samples.Coinc(50_000, 1), samples.Coinc(360_000, 1), samples.Coinc(800_000, 1)} {
		uploads = append(uploads, gracedb.Upload{
			Server: "https://gracedb-test.ligo.org/api/", GraceID: "G123456", Submitter: "gstlal.online@ligo.org",
			Pipeline: "gstlal", Labels: []string{"INJ"}, Filename: "coinc.xml", Data: data, ContentID: wire.ContentID(data),
			Time: time.Unix(1732288000, 123456000), Group: "CBC", Search: "AllSky",
		})
	}
	return uploads
}

// A stdUpload is the same message for encoding/json.
type stdUpload struct {
	Type           string    `json:"type"`
	Server         string    `json:"gracedb_server"`
	GraceID        *string   `json:"graceid"`
	Submitter      *string   `json:"submitter"`
	Pipeline       string    `json:"pipeline"`
	GraceDBUpload  bool      `json:"gracedb_upload"`
	SkipSupervisor bool      `json:"skip_supervisor"`
	Labels         []string  `json:"labels"`
	EventFile      [2]string `json:"eventFile"`
	Timestamp      float64   `json:"_producer_timestamp"`
	ContentID      string    `json:"content_id"`
	Group          string    `json:"group"`
	Search         string    `json:"search,omitempty"`
}

func encodeStd(u gracedb.Upload) ([]byte, error) {
	return json.Marshal(stdUpload{
		Type: "upload", Server: u.Server, GraceID: &u.GraceID, Submitter: &u.Submitter, Pipeline: u.Pipeline,
		GraceDBUpload: true, Labels: u.Labels, EventFile: [2]string{u.Filename, stdbase64.StdEncoding.EncodeToString(u.Data)},
		Timestamp: float64(u.Time.UnixMicro()) / 1e6, ContentID: u.ContentID, Group: u.Group, Search: u.Search,
	})
}

func decodeStd(value []byte) (stdUpload, []byte, error) {
	var u stdUpload
	if err := json.Unmarshal(value, &u); err != nil {
		return u, nil, err
	}
	data, err := stdbase64.StdEncoding.DecodeString(u.EventFile[1])
	return u, data, err
}

func BenchmarkEncode(b *testing.B) {
	for _, u := range benchUploads() {
		size := fmt.Sprintf("%dkB", (len(u.Data)+500)/1000)
		bench := func(name string, f func()) {
			b.Run(size+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(u.Data)))
				for b.Loop() {
					f()
				}
			})
		}
		bench("gracedb", func() { wire.Encode(wire.Upload(u)) })
		bench("stdlib base64 alone", func() {
			dst := make([]byte, stdbase64.StdEncoding.EncodedLen(len(u.Data)))
			stdbase64.StdEncoding.Encode(dst, u.Data)
		})
		bench("encoding json", func() {
			if _, err := encodeStd(u); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, u := range benchUploads() {
		size := fmt.Sprintf("%dkB", (len(u.Data)+500)/1000)
		m := gracedb.Message{Value: wire.Encode(wire.Upload(u))}
		bench := func(name string, f func() error) {
			b.Run(size+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(u.Data)))
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		bench("Upload", func() error { _, err := m.Upload(); return err })
		bench("Decode", func() error { return m.Decode(new(stdUpload)) })
		bench("encoding json and base64", func() error { _, _, err := decodeStd(m.Value); return err })
	}
}

func TestUploadAllocations(t *testing.T) {
	if testrace.Enabled {
		t.Skip("the race detector allocates")
	}
	for _, u := range benchUploads() {
		if got := testing.AllocsPerRun(20, func() { wire.Encode(wire.Upload(u)) }); got != 1 {
			t.Errorf("encoding %d bytes: %v allocations, want 1", len(u.Data), got)
		}
		if got := testing.AllocsPerRun(20, func() { wire.Size(wire.Upload(u)) }); got != 0 {
			t.Errorf("size of %d bytes: %v allocations, want 0", len(u.Data), got)
		}
		m := gracedb.Message{Value: wire.Encode(wire.Upload(u))}
		// The data, 8 strings, the slice of labels and its one.
		got := testing.AllocsPerRun(20, func() {
			if _, err := m.Upload(); err != nil {
				t.Fatal(err)
			}
		})
		if got != 11 {
			t.Errorf("decoding %d bytes: %v allocations, want 11", len(u.Data), got)
		}
	}
}
