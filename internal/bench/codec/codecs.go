package main

import (
	"bytes"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A codec is a way to compress batches.
type codec struct {
	name string
	kgo.Compressor
	slow bool // too slow to be tried over networks
}

// The names that the report looks for.
const (
	none  = "none"
	fast  = "snappy"
	dense = "zstd 1, all literals"
)

func codecs() ([]codec, error) {
	all := []codec{{name: none, Compressor: plain{}}}
	for _, c := range []struct {
		name string
		kind kgo.CompressionCodec
		slow bool
	}{
		{fast, kgo.SnappyCompression(), false},
		{"lz4", kgo.Lz4Compression(), false},
		{"zstd 1", kgo.ZstdCompression().WithLevel(1), false},
		{"zstd 2", kgo.ZstdCompression().WithLevel(2), false},
		{"zstd 3", kgo.ZstdCompression().WithLevel(3), true},
		{"zstd 4", kgo.ZstdCompression().WithLevel(4), true},
	} {
		compressor, err := kgo.DefaultCompressor(c.kind)
		if err != nil {
			return nil, err
		}
		all = append(all, codec{c.name, compressor, c.slow})
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(64<<10), zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		return nil, err
	}
	return append(all, codec{dense, literals{encoder}, false}), nil
}

type plain struct{}

func (plain) Compress(_ *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return src, kgo.CodecNone
}

// literals is what the library does when it compresses: the entropy coder is used
// also where nothing repeats, as in the base64 text of a gzip file.
type literals struct{ *zstd.Encoder }

func (l literals) Compress(dst *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return l.EncodeAll(src, dst.AvailableBuffer()), kgo.CodecZstd
}
