#!/usr/bin/env bash
# franz-go v1.22.2: kgo.MaxDecompressBatchBytes refuses a message of 600 bytes where it allows 63 MiB.
#
# It is documented as the largest size that a batch may decompress to, for which there is an error of its own,
# ErrDecompressTooLarge. With zstd it also bounds the window that the head of the frame declares, which the highest levels
# of zstd make 32 to 128 MiB when they compress as a stream, whatever comes; then the error is another, without topic,
# offset or limit. (Against its own fake broker; Kafka hands on such a batch as it is.)
#
# Seen (a message of 600 bytes, compressed with a window of 64 MiB):
#   MaxDecompressBatchBytes of 63 MiB: 0 records, error "unable to decompress batch: window size exceeded", an ErrDecompressTooLarge: false
#   MaxDecompressBatchBytes of 64 MiB: 1 records
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOMODCACHE="$work/modules" GOFLAGS="-mod=mod -modcacherw" GOWORK=off
cat >main.go <<'EOP'
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// wide compresses as a stream, with a window of 64 MiB.
type wide struct{}

func (wide) Compress(dst *bytes.Buffer, src []byte, _ ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	w, err := zstd.NewWriter(dst, zstd.WithWindowSize(64<<20))
	check(err)
	_, err = w.Write(src)
	check(err)
	check(w.Flush()) // so that the encoder does not know how little comes
	check(w.Close())
	return dst.Bytes(), kgo.CodecZstd
}

func main() {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	producer, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.WithCompressor(wide{}))
	check(err)
	check(producer.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: bytes.Repeat([]byte("hello "), 100)}).FirstErr())
	for _, limit := range []int{63, 64} {
		consumer, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.ConsumeTopics("t"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MaxDecompressBatchBytes(limit<<20))
		check(err)
		fetches := consumer.PollFetches(ctx)
		fmt.Printf("MaxDecompressBatchBytes of %d MiB: %d records", limit, fetches.NumRecords())
		for _, e := range fetches.Errors() {
			_, large := errors.AsType[*kgo.ErrDecompressTooLarge](e.Err)
			fmt.Printf(", error %q, an ErrDecompressTooLarge: %v", e.Err, large)
		}
		fmt.Println()
		consumer.Close()
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
EOP
go mod init example.org/ask
go get github.com/twmb/franz-go@v1.22.2 github.com/twmb/franz-go/pkg/kfake@v0.0.0-20260918054303-01f206a7e32c github.com/klauspost/compress@v1.20.3
go run . | tee seen
diff seen - <<'EOP'
MaxDecompressBatchBytes of 63 MiB: 0 records, error "unable to decompress batch: window size exceeded", an ErrDecompressTooLarge: false
MaxDecompressBatchBytes of 64 MiB: 1 records
EOP
