package faults

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/kafkatest"
)

// This file is about what a producer costs while nothing is published: because
// there is nothing, or because the broker is down.

// The event after ten quiet minutes, at whatever moment between two keep-warm
// requests, takes one round trip, as the event before: no connection, handshake or
// authentication is in its way. That costs a few bytes a minute. Only if the session
// is just being renewed, which is done over the same connection and takes two round
// trips, does the event wait for that.
func TestQuietProducer(t *testing.T) {
	const oneWay = 20 * time.Millisecond
	for _, session := range []struct {
		life   time.Duration // if zero, the token's: it is not renewed in this test
		delays time.Duration
	}{{0, 0}, {10 * time.Minute, 4 * oneWay}} {
		t.Run(fmt.Sprint("session=", session.life), func(t *testing.T) {
			virtually(t, kafkatest.Config{MaxSession: session.life}, func(t *testing.T, r *rig) {
				far := &shape{dial: r.Dial, latency: func() time.Duration { return oneWay }}
				p := r.producer(t, func(c *gracedb.ProducerConfig) { c.Cluster.Dial = far.Dial })
				within(t, "the first event", r.send(t, p, "k"), 2*oneWay)
				var worst time.Duration
				for second := range 20 {
					in, out := r.Bytes()
					// Half a second more, or the first event would come in the very moment of a
					// keep-warm request, and meet that.
					quiet := 10*time.Minute + time.Duration(second)*time.Second + 500*time.Millisecond
					time.Sleep(quiet)
					in2, out2 := r.Bytes()
					perMinute := float64(in2-in+out2-out) / quiet.Minutes()
					if perMinute >= 4000 {
						t.Errorf("%.0f bytes a minute", perMinute)
					}
					if second == 0 {
						t.Logf("%.0f bytes a minute: %.0f to the broker, %.0f from it", perMinute,
							float64(in2-in)/quiet.Minutes(), float64(out2-out)/quiet.Minutes())
					}
					dials := far.count()
					requests := r.Requests()
					worst = max(worst, r.send(t, p, "k"))
					if n := far.count() - dials; n != 0 {
						t.Errorf("the event met %d new connections", n)
					}
					others := []kmsg.Key{kmsg.ApiVersions, kmsg.Metadata, kmsg.InitProducerID}
					if session.life == 0 {
						others = append(others, kmsg.SASLHandshake, kmsg.SASLAuthenticate)
					}
					for _, key := range others {
						if n := r.Requests()[key] - requests[key]; n != 0 {
							t.Errorf("the event met %d requests %v", n, key.Name())
						}
					}
				}
				t.Logf("worst %v, with a round trip of %v", worst, 2*oneWay)
				within(t, "an event", worst, 2*oneWay+session.delays)
				closeProducer(t, p)
				r.judge(t)
			})
		})
	}
}

// Ten thousand events of 1 MiB while the broker is down: Produce waits as long as
// its ctx allows, what is buffered is bounded, and so is what that costs.
func TestFault_P9_BrokerDown(t *testing.T) {
	for name, fault := range map[string]func(*rig) (heal func() error){
		"refused": func(r *rig) func() error {
			r.Refuse()
			r.Drop(kafkatest.RST)
			return func() error { return r.Accept() }
		},
		"frozen": func(r *rig) func() error {
			r.Freeze()
			return func() error { r.Thaw(); return nil }
		},
	} {
		t.Run(name, func(t *testing.T) { brokerDown(t, fault) })
	}
}

func brokerDown(t *testing.T, fault func(*rig) (heal func() error)) {
	const (
		callers     = 4
		size, limit = 1 << 20, 64 << 20
		fit         = limit/size - 1 // with what a message costs beside its value
		patience    = time.Second
	)
	events := 10_000
	if raced { // when all this takes ten times as long; the run without does the whole number
		events = 1000
	}
	block := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(block) // which does not compress
	virtually(t, kafkatest.Config{}, func(t *testing.T, r *rig) {
		p := r.producer(t, func(c *gracedb.ProducerConfig) { c.MaxBufferedBytes, c.FlushTimeout = limit, time.Minute })
		r.send(t, p, "k")
		base := liveHeap()
		heal := fault(r)
		produce := func(ctx context.Context, key string) error {
			m := r.begin(key)
			m.Value = append(append(make([]byte, 0, size), m.Value...), ' ')
			m.Value = append(m.Value, block[len(m.Value):]...)
			err := p.Produce(ctx, m, func(got gracedb.Message, err error) { r.end(t, brief(m), got, err) })
			if err != nil {
				r.end(t, brief(m), gracedb.Message{}, err)
			}
			return err
		}
		for range fit {
			if err := produce(context.Background(), "fits"); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for caller := range callers {
			wg.Go(func() {
				for range (events - fit) / callers {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					start := time.Now()
					err := produce(ctx, fmt.Sprint("caller", caller))
					cancel()
					if took := time.Since(start); took != patience {
						t.Errorf("Produce took %v", took)
					}
					wantKinds(t, err, is(context.DeadlineExceeded, gracedb.ErrDelivery), is(gracedb.ErrOutcomeUnknown), fmt.Sprint(limit))
					if n := p.Pending(); n > fit {
						t.Errorf("%d messages of 1 MiB are buffered", n)
					}
				}
			})
		}
		var peak uint64
		for range 4 {
			time.Sleep(time.Duration(events/callers) * patience / 4)
			peak = max(peak, liveHeap()-base)
		}
		wg.Wait()
		t.Logf("%d events buffered; live heap %d MiB", p.Pending(), peak>>20)
		if peak > 2*limit && !raced {
			t.Errorf("live heap %d bytes, want at most %d", peak, 2*limit)
		}
		if err := heal(); err != nil {
			t.Error(err)
		}
		closeProducer(t, p)
		r.judge(t)
		if n := r.count(); n[delivered] != fit+1 || n[unknown] != 0 {
			t.Errorf("%v", n)
		}
	})
}

// brief returns m without its padding, which a history need not see.
func brief(m gracedb.Message) gracedb.Message {
	value, _, _ := bytes.Cut(m.Value, []byte(" "))
	m.Value = bytes.Clone(value)
	return m
}
