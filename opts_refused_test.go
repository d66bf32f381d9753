package gracedb_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/cluster"
	"github.com/gracedb-go/gracedb/internal/errs"
)

// As users write them, where the compiler puts the functions of options into their callers.
func TestOptsRefused(t *testing.T) {
	with := func(opts ...kgo.Opt) gracedb.Cluster {
		return gracedb.Cluster{Brokers: []string{"localhost:1"}, Instance: "x", Token: gracedb.StaticToken("a.b.c"), Opts: opts}
	}
	for name, opt := range map[string]kgo.Opt{
		"Dialer":                  kgo.Dialer(nil),
		"DialTLSConfig":           kgo.DialTLS(),
		"SASL":                    kgo.SASL(),
		"WithContext":             kgo.WithContext(context.Background()),
		"ProducerBatchMaxBytesFn": kgo.ProducerBatchMaxBytes(1 << 20),
		"ProducerLinger":          kgo.ProducerLinger(time.Second),
		"ProduceRequestTimeout":   kgo.ProduceRequestTimeout(time.Second),
		"RequiredAcks":            kgo.RequiredAcks(kgo.LeaderAck()),
		"DisableIdempotentWrite":  kgo.DisableIdempotentWrite(),
		"RecordDeliveryTimeout":   kgo.RecordDeliveryTimeout(time.Second),
		"ConsumeStartOffset":      kgo.ConsumeStartOffset(kgo.NewOffset().AtEnd()),
		"ConsumeResetOffset":      kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		"WithDecompressor":        kgo.WithDecompressor(kgo.DefaultDecompressor()),
		"DisableAutoCommit":       kgo.DisableAutoCommit(),
		"OnPartitionsLost":        kgo.OnPartitionsLost(nil),
	} {
		c := with(opt)
		_, err := gracedb.NewConsumer(t.Context(), gracedb.ConsumerConfig{Cluster: c, Topics: []string{"test"}, Lazy: true, GroupID: "g"})
		_, err2 := gracedb.NewProducer(t.Context(), gracedb.ProducerConfig{Cluster: c, Lazy: true})
		for _, err := range []error{err, err2} {
			if !errors.Is(err, errs.Config) || !strings.Contains(err.Error(), "kgo."+name+": ") {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err = c.ClientOpts()
		if _, refused := cluster.Connecting[name]; refused != errors.Is(err, errs.Config) {
			t.Errorf("ClientOpts with %s: %v", name, err)
		}
	}
	if _, err := with(nil).ClientOpts(); !errors.Is(err, errs.Config) {
		t.Errorf("a nil option: %v", err)
	}
}
